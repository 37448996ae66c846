"""`frames`: goals that follow the active frame, and nothing that gives it away."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


@pytest.fixture
def dialogue(dialogues: Dialogues) -> Dialogue:
    return dialogues("frames")[0]


@pytest.fixture
def single(dialogues: Dialogues) -> Dialogue:
    return dialogues("frames")[1]


def test_a_turn_is_a_message_with_its_answers(dialogue: Dialogue) -> None:
    turn = dialogue.turns[1]
    assert turn.text == "A week in Oslo for 2 adults, any dates."
    assert turn.response is not None
    assert turn.response.text == "There is one at the Fjord Inn. It costs 900."


def test_a_turn_starts_when_the_user_writes(dialogue: Dialogue) -> None:
    assert dialogue.turns[1].started_at == dt.datetime(2016, 11, 24, 15, 6, 50, tzinfo=dt.UTC)


def test_what_nobody_answers_has_no_response(single: Dialogue) -> None:
    assert single.opening == "Good day."
    assert single.turns[0].response is None
    assert single.turns[1].response is not None


def test_going_back_to_a_frame_goes_back_to_its_goal(dialogue: Dialogue) -> None:
    assert [turn.annotation.goal_id for turn in dialogue.turns if turn.annotation] == list("11311")


def test_a_frame_that_the_user_never_turns_to_is_no_goal(dialogue: Dialogue) -> None:
    assert dialogue.annotation is not None
    assert dialogue.annotation.goals is not None
    assert [goal.goal_id for goal in dialogue.annotation.goals] == ["1", "3"]


def test_the_intent_is_what_the_user_says_it_is_or_else_the_acts(dialogue: Dialogue) -> None:
    assert [turn.annotation.intent for turn in dialogue.turns if turn.annotation] == [
        "NONE",
        "book",
        "inform",
        "request+switch_frame",
        "NONE",
    ]


def test_slots_are_what_the_user_informs_of_with_the_span_where_it_is_said(dialogue: Dialogue) -> None:
    annotation = dialogue.turns[1].annotation
    assert annotation is not None
    assert annotation.slots is not None
    assert [(slot.name, slot.value, slot.start, slot.end) for slot in annotation.slots] == [
        ("dst_city", "Oslo", 10, 14),
        ("n_adults", "2", 19, 20),
        ("flex", "true", None, None),
    ]


def test_the_wizard_says_whether_a_dialogue_succeeded(dialogue: Dialogue, single: Dialogue) -> None:
    assert dialogue.annotation is not None
    assert dialogue.annotation.success is True
    assert single.annotation is not None
    assert single.annotation.success is False


def test_only_the_one_goal_of_a_dialogue_has_its_success(dialogue: Dialogue, single: Dialogue) -> None:
    assert dialogue.annotation is not None
    assert dialogue.annotation.goals is not None
    assert [goal.success for goal in dialogue.annotation.goals] == [None, None]
    assert single.annotation is not None
    assert single.annotation.goals is not None
    assert [goal.success for goal in single.annotation.goals] == [False]


def test_the_users_rating_is_feedback_and_no_success(dialogue: Dialogue, single: Dialogue) -> None:
    assert dialogue.feedback is not None
    assert (dialogue.feedback.rating, dialogue.feedback.success) == (0.75, None)
    assert single.feedback is not None
    assert (single.feedback.rating, single.feedback.success) == (1.0, None)


def test_the_response_does_not_give_the_frames_away(dialogue: Dialogue) -> None:
    assert all(turn.response.action is None for turn in dialogue.turns if turn.response)


def test_a_dialogue_without_labels_is_not_annotated(dialogues: Dialogues) -> None:
    dialogue = dialogues("frames")[2]
    assert dialogue.feedback is None
    assert dialogue.annotation is None
    assert dialogue.turns[0].annotation is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"turns": []}, RejectReason.NO_TURNS),
        ({"turns": [{"author": "wizard", "text": "Hello?"}]}, RejectReason.NO_TURNS),
        ({"turns": [{"author": "user", "text": ""}]}, RejectReason.MISSING_TEXT),
        ({"turns": [{"author": "user"}]}, RejectReason.MISSING_FIELD),
        ({"turns": [{"author": "cat", "text": "Meow"}]}, RejectReason.WRONG_TYPE),
        ({"turns": [{"author": "user", "text": "a", "timestamp": 1e20}]}, RejectReason.INVALID_VALUE),
        ({"turns": [{"author": "user", "text": "a", "labels": {}}]}, RejectReason.MISSING_FIELD),
        ({"labels": {"userSurveyRating": 6}}, RejectReason.WRONG_TYPE),
    ],
)
def test_a_bad_dialogue_is_rejected(change: dict[str, object], reason: RejectReason) -> None:
    log_format = get_format("frames")
    assert isinstance(log_format, DialogueFormat)
    record = {"id": "1", "turns": [{"author": "user", "text": "a"}]} | change
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps(record).encode())
    assert error.value.reason == reason
