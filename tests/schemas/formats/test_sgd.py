"""`sgd`: goals that follow the active intents, and nothing that gives the truth away."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


@pytest.fixture
def dialogue(dialogues: Dialogues) -> Dialogue:
    return dialogues("sgd")[0]


def test_a_turn_is_an_utterance_with_its_answer(dialogue: Dialogue) -> None:
    turn = dialogue.turns[1]
    assert turn.text == "Book a table in Oakland."
    assert turn.response is not None
    assert (turn.response.text, turn.response.action) == ("For how many?", "CONFIRM+REQUEST")


def test_the_dialogues_services_are_those_in_reach(dialogue: Dialogue) -> None:
    assert dialogue.services == ["Restaurants_1", "Buses_1"]


def test_a_newly_active_intent_opens_a_goal(dialogue: Dialogue) -> None:
    assert [turn.annotation.goal_id for turn in dialogue.turns if turn.annotation] == list("0111223")


def test_a_turn_has_the_intent_of_its_goal(dialogue: Dialogue) -> None:
    assert [turn.annotation.intent for turn in dialogue.turns if turn.annotation] == [
        "NONE",
        "ReserveRestaurant",
        "ReserveRestaurant",
        "ReserveRestaurant",
        "FindBus",
        "NONE",
        "FindBus",
    ]


def test_the_domain_is_the_service_of_the_intent_or_else_of_the_first_frame(dialogue: Dialogue) -> None:
    assert [turn.annotation.domain for turn in dialogue.turns if turn.annotation] == [
        "Restaurants_1",
        "Restaurants_1",
        "Restaurants_1",
        "Restaurants_1",
        "Buses_1",
        "Buses_1",
        "Buses_1",
    ]


def test_the_last_notification_says_whether_a_goal_succeeded(dialogue: Dialogue) -> None:
    assert dialogue.annotation is not None
    assert dialogue.annotation.goals is not None
    assert [(goal.goal_id, goal.intent, goal.success) for goal in dialogue.annotation.goals] == [
        ("0", None, None),
        ("1", "ReserveRestaurant", True),
        ("2", "FindBus", None),
        ("3", "FindBus", None),
    ]
    assert dialogue.annotation.success is None


def test_a_dialogue_with_a_failed_goal_has_failed(examples: Callable[[str], list[bytes]]) -> None:
    record = examples("sgd")[0].replace(b"NOTIFY_SUCCESS", b"NOTIFY_FAILURE")
    log_format = get_format("sgd")
    assert isinstance(log_format, DialogueFormat)
    annotation = log_format.parse(record)[0].annotation
    assert annotation is not None
    assert annotation.success is False


def test_slots_are_the_spans_of_the_users_frames(dialogue: Dialogue) -> None:
    annotation = dialogue.turns[1].annotation
    assert annotation is not None
    assert annotation.slots is not None
    assert [(slot.name, slot.value, slot.start, slot.end) for slot in annotation.slots] == [("city", "Oakland", 16, 23)]


def test_the_response_does_not_give_the_outcome_away(dialogue: Dialogue) -> None:
    for turn in dialogue.turns[2:4]:
        assert turn.response is not None
        assert turn.response.action is None
        assert turn.response.status is None


def test_the_gold_frames_are_no_hypotheses(dialogue: Dialogue) -> None:
    assert all(turn.nlu == [] for turn in dialogue.turns)


def test_a_dialogue_without_frames_is_not_annotated(dialogues: Dialogues) -> None:
    dialogue = dialogues("sgd")[1]
    assert dialogue.annotation is None
    assert dialogue.turns[0].annotation is None


def test_what_nobody_answers_has_no_response(dialogues: Dialogues) -> None:
    dialogue = dialogues("sgd")[1]
    assert dialogue.opening == "Welcome."
    assert dialogue.turns[0].response is None
    assert dialogue.turns[1].response is not None
    assert dialogue.turns[1].response.text == "Yes. Go on."


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], RejectReason.NO_TURNS),
        ([{"speaker": "SYSTEM", "utterance": "Hello?"}], RejectReason.NO_TURNS),
        ([{"speaker": "USER", "utterance": ""}], RejectReason.MISSING_TEXT),
        ([{"speaker": "USER"}], RejectReason.MISSING_FIELD),
        ([{"speaker": "CAT", "utterance": "Meow"}], RejectReason.WRONG_TYPE),
        (
            [
                {
                    "speaker": "USER",
                    "utterance": "Hi",
                    "frames": [{"service": "a", "slots": [{"slot": "b", "start": 0, "exclusive_end": 3}]}],
                }
            ],
            RejectReason.INVALID_VALUE,
        ),
    ],
)
def test_a_bad_dialogue_is_rejected(turns: object, reason: RejectReason) -> None:
    log_format = get_format("sgd")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps({"dialogue_id": "1", "services": [], "turns": turns}).encode())
    assert error.value.reason == reason
