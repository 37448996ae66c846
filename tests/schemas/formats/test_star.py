"""`star`: one turn an utterance, one goal a task, success as the user said it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


def parse(record: object) -> list[Dialogue]:
    log_format = get_format("star")
    assert isinstance(log_format, DialogueFormat)
    return log_format.parse(json.dumps(record).encode())


@pytest.fixture
def single(dialogues: Dialogues) -> Dialogue:
    return dialogues("star")[0]


@pytest.fixture
def multi(dialogues: Dialogues) -> Dialogue:
    return dialogues("star")[1]


def test_the_response_is_what_the_user_saw(single: Dialogue) -> None:
    response = single.turns[0].response
    assert response is not None
    assert (response.text, response.action) == ("What city?", "hotel_ask_city")


def test_a_user_who_speaks_twice_makes_two_turns(single: Dialogue) -> None:
    assert [turn.text for turn in single.turns] == ["I need a hotel.", "Berlin.", "For two."]
    assert single.turns[1].response is None


def test_a_turn_starts_when_the_user_speaks(single: Dialogue) -> None:
    assert single.turns[0].started_at == dt.datetime(2020, 5, 13, 12, 37, 43, tzinfo=dt.UTC)


def test_the_only_task_is_intent_and_goal(single: Dialogue) -> None:
    assert single.dialogue_id == "star-8"
    assert single.annotation is not None
    assert single.annotation.goals is not None
    assert [(goal.intent, goal.success) for goal in single.annotation.goals] == [("hotel_book", True)]


def test_the_question_on_the_outcome_says_whether_it_succeeded(single: Dialogue) -> None:
    assert single.annotation is not None
    assert single.annotation.success is True
    assert single.feedback is not None
    assert single.feedback.success is True


def test_success_is_unknown_where_nobody_was_asked(multi: Dialogue) -> None:
    assert multi.annotation is not None
    assert multi.annotation.success is None
    assert multi.feedback is None


def test_the_task_in_force_is_the_intent(multi: Dialogue) -> None:
    assert [turn.annotation.intent for turn in multi.turns if turn.annotation] == [
        None,
        "weather",
        "bank_balance",
        "weather",
    ]


def test_going_back_to_a_task_goes_back_to_its_goal(multi: Dialogue) -> None:
    assert [turn.annotation.goal_id for turn in multi.turns if turn.annotation] == ["0", "1", "2", "1"]


def test_what_comes_before_the_first_request_is_the_opening(multi: Dialogue) -> None:
    assert multi.opening == "Hello."


def test_a_dialogue_in_which_the_user_never_spoke_is_rejected() -> None:
    with pytest.raises(RecordError) as error:
        parse({"DialogueID": 1, "Events": [{"Agent": "Wizard", "Action": "utter", "Text": "Hello?"}]})
    assert error.value.reason == RejectReason.NO_TURNS


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"Text": ""}, RejectReason.MISSING_TEXT),
        ({"Text": 5}, RejectReason.WRONG_TYPE),
        ({"Text": "a", "UnixTime": 1e18}, RejectReason.INVALID_VALUE),
    ],
)
def test_a_bad_utterance_is_rejected(event: dict[str, object], reason: RejectReason) -> None:
    with pytest.raises(RecordError) as error:
        parse({"DialogueID": 1, "Events": [{"Agent": "User", "Action": "utter", **event}]})
    assert error.value.reason == reason
