"""`betold`: calls without words, and whether their callers gave up."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


@pytest.fixture
def given_up(dialogues: Dialogues) -> Dialogue:
    return dialogues("betold")[0]


@pytest.fixture
def kept_on(dialogues: Dialogues) -> Dialogue:
    return dialogues("betold")[1]


def test_a_turn_is_what_the_caller_said_until_the_assistant_spoke(given_up: Dialogue) -> None:
    assert [turn.nlu[0].intent for turn in given_up.turns] == ["noise+move_booking", "refuse"]
    assert [slot.name for slot in given_up.turns[0].nlu[0].slots] == ["day", "branch"]


def test_the_response_is_what_the_assistant_did(given_up: Dialogue) -> None:
    response = given_up.turns[0].response
    assert response is not None
    assert (response.text, response.action) == (None, "one_moment+suggest_day")


def test_the_words_are_not_known(given_up: Dialogue) -> None:
    assert [turn.text for turn in given_up.turns] == ["", ""]


def test_a_call_that_was_given_up_has_failed(given_up: Dialogue, kept_on: Dialogue) -> None:
    for dialogue, success in ((given_up, False), (kept_on, True)):
        assert dialogue.annotation is not None
        assert dialogue.annotation.success is success
        assert dialogue.annotation.goals is not None
        assert [goal.success for goal in dialogue.annotation.goals] == [success]


def test_the_last_turn_does_not_give_the_success_away(given_up: Dialogue, kept_on: Dialogue) -> None:
    assert given_up.turns[-1].response is None
    assert kept_on.turns[-1].response is None


def test_a_call_of_unknown_outcome_is_not_annotated(dialogues: Dialogues) -> None:
    dialogue = dialogues("betold")[2]
    assert dialogue.annotation is None
    assert dialogue.turns[0].annotation is None


def test_calls_that_differ_have_different_ids(dialogues: Dialogues) -> None:
    assert len({dialogue.dialogue_id for dialogue in dialogues("betold")}) == 3


@pytest.mark.parametrize(
    ("utterances", "reason"),
    [
        ([], RejectReason.NO_TURNS),
        ([{"caller_name": "nlg", "intent": "welcome"}], RejectReason.NO_TURNS),
        ([{"caller_name": "nlu"}], RejectReason.MISSING_FIELD),
        ([{"caller_name": "cat", "intent": "meow"}], RejectReason.WRONG_TYPE),
        ([{"caller_name": "nlu", "intent": "book", "entities": [{"entity": ""}]}], RejectReason.WRONG_TYPE),
    ],
)
def test_a_bad_call_is_rejected(utterances: object, reason: RejectReason) -> None:
    log_format = get_format("betold")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps({"utterances_annotations": utterances}).encode())
    assert error.value.reason == reason
