"""`rasa`: sessions of a tracker, with the intent ranking and what the assistant did."""

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
def first(dialogues: Dialogues) -> Dialogue:
    return dialogues("rasa")[0]


def test_each_session_in_which_the_user_speaks_is_a_dialogue(dialogues: Dialogues) -> None:
    assert [dialogue.dialogue_id for dialogue in dialogues("rasa")] == ["u-1#1", "u-1#2", "u-2"]


def test_a_message_starts_a_turn(first: Dialogue) -> None:
    turn = first.turns[0]
    assert (turn.text, turn.turn_id) == ("a table at eight in Rome", "m-1")
    assert turn.started_at == dt.datetime(2019, 6, 5, 14, 20, 11, 500_000, tzinfo=dt.UTC)
    assert (first.device, first.user_id) == ("rest", "u-1")


def test_the_intent_leads_the_ranking(first: Dialogue) -> None:
    assert [(each.intent, each.score) for each in first.turns[0].nlu] == [("book", 0.81), ("greet", 0.1)]


def test_entities_are_the_slots_of_the_first_hypothesis(first: Dialogue) -> None:
    slots = first.turns[0].nlu[0].slots
    assert [(slot.name, slot.value, slot.start, slot.end, slot.score) for slot in slots] == [
        ("city.place", "Rome", 20, 24, 0.9),
        ("time", "8", 11, 16, None),
    ]
    assert first.turns[0].nlu[1].slots == []


def test_the_response_is_what_the_assistant_said_and_did(first: Dialogue) -> None:
    response = first.turns[0].response
    assert response is not None
    assert response.text == "Booked. Enjoy."
    assert response.action == "action_book+utter_booked"
    assert response.status is None


def test_a_greeting_is_the_opening(first: Dialogue) -> None:
    assert first.opening == "Hello!"


def test_a_fallback_is_no_match(dialogues: Dialogues) -> None:
    response = dialogues("rasa")[1].turns[0].response
    assert response is not None
    assert response.status == "no_match"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([], RejectReason.NO_TURNS),
        ([{"event": "bot", "text": "Hello?"}], RejectReason.NO_TURNS),
        ([{"event": "user", "text": ""}], RejectReason.MISSING_TEXT),
        ([{"event": "user", "text": 5}], RejectReason.WRONG_TYPE),
        ([{"text": "a"}], RejectReason.MISSING_FIELD),
        ([{"event": "user", "text": "a", "timestamp": 1e300}], RejectReason.INVALID_VALUE),
        (
            [{"event": "user", "text": "a", "parse_data": {"entities": [{"entity": "b", "start": 0, "end": 2}]}}],
            RejectReason.INVALID_VALUE,
        ),
    ],
)
def test_a_bad_tracker_is_rejected(events: object, reason: RejectReason) -> None:
    log_format = get_format("rasa")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps({"sender_id": "u", "events": events}).encode())
    assert error.value.reason == reason
