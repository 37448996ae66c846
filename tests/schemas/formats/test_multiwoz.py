"""`multiwoz`: goals that follow the domain of the state, and nothing that gives it away."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


def parse(record: object) -> list[Dialogue]:
    log_format = get_format("multiwoz")
    assert isinstance(log_format, DialogueFormat)
    return log_format.parse(json.dumps(record).encode())


@pytest.fixture
def dialogue(dialogues: Dialogues) -> Dialogue:
    return dialogues("multiwoz")[0]


def test_a_record_holds_dialogues_by_their_id(examples: Callable[[str], list[bytes]]) -> None:
    document = {name: dialogue for record in examples("multiwoz") for name, dialogue in json.loads(record).items()}
    assert [dialogue.dialogue_id for dialogue in parse(document)] == ["MUL1.json", "SNG2.json", "SNG3.json"]


def test_a_turn_is_an_utterance_with_its_answer(dialogue: Dialogue) -> None:
    assert dialogue.turns[1].text == "A hotel in the north ."
    assert dialogue.turns[1].response is not None
    assert dialogue.turns[1].response.text == "The Mill Inn ?"
    assert dialogue.turns[7].response is None


def test_the_domain_is_the_one_whose_state_changes(dialogue: Dialogue) -> None:
    domains = [turn.annotation.domain for turn in dialogue.turns if turn.annotation]
    assert [domains[turn] for turn in (1, 2, 4, 6)] == ["hotel", "hotel", "taxi", "taxi"]


def test_where_no_state_changes_the_domain_is_the_one_that_the_user_speaks_of(dialogue: Dialogue) -> None:
    assert dialogue.turns[3].annotation is not None
    assert dialogue.turns[3].annotation.domain == "taxi"


def test_without_a_domain_of_its_own_a_turn_has_that_of_the_turn_before(dialogue: Dialogue) -> None:
    assert dialogue.turns[7].annotation is not None
    assert dialogue.turns[7].annotation.domain == "taxi"


def test_what_comes_first_belongs_to_the_first_domain(dialogue: Dialogue) -> None:
    assert dialogue.turns[0].annotation is not None
    assert dialogue.turns[0].annotation.domain == "hotel"


def test_going_back_to_a_domain_goes_back_to_its_goal(dialogue: Dialogue) -> None:
    assert [turn.annotation.goal_id for turn in dialogue.turns if turn.annotation] == list("00011011")


def test_a_dialogue_of_no_domain_has_one_goal(dialogues: Dialogues) -> None:
    dialogue = dialogues("multiwoz")[1]
    assert [(turn.annotation.goal_id, turn.annotation.domain) for turn in dialogue.turns if turn.annotation] == [
        ("0", None),
        ("0", None),
    ]


def test_slots_are_the_new_values_that_are_said(dialogue: Dialogue) -> None:
    slots = [turn.annotation.slots for turn in dialogue.turns if turn.annotation and turn.annotation.slots]
    assert [[(slot.name, slot.value, slot.start, slot.end) for slot in each] for each in slots] == [
        [("area", "north", 15, 20)],
        [("people", "3", 25, 26)],
        [("destination", "mill inn", 7, 15)],
        [("leaveAt", "9:00", 9, 13), ("people", "4", 27, 28)],
    ]


def test_the_response_does_not_give_the_domain_away(dialogue: Dialogue) -> None:
    assert all(turn.response.action is None for turn in dialogue.turns if turn.response)


def test_a_dialogue_without_states_is_not_annotated(dialogues: Dialogues) -> None:
    dialogue = dialogues("multiwoz")[2]
    assert dialogue.annotation is None
    assert dialogue.turns[0].annotation is None


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ([], RejectReason.NO_TURNS),
        ([{"text": " "}], RejectReason.MISSING_TEXT),
        ([{"metadata": {}}], RejectReason.MISSING_FIELD),
        ([{"text": "a"}, {"text": "b", "metadata": {"hotel": "north"}}], RejectReason.WRONG_TYPE),
        ([{"text": "a"}, {"text": "b", "metadata": {"hotel": {"semi": {"": "a"}}}}], RejectReason.INVALID_VALUE),
    ],
)
def test_a_bad_dialogue_is_rejected_by_its_place(log: object, reason: RejectReason) -> None:
    with pytest.raises(RecordError, match=r"^dialogue 2 of it: ") as error:
        parse({"GOOD.json": {"log": [{"text": "a"}]}, "BAD.json": {"log": log}})
    assert error.value.reason == reason
