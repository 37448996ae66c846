"""`lex`: entries of Lex V2's conversation logs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest

from schemas.formats import EventFormat, get_format
from schemas.log import TurnEvent
from schemas.rejects import RecordError, RejectReason

Events = Callable[[str], list[TurnEvent]]


@pytest.fixture
def spoken(events: Events) -> TurnEvent:
    return events("lex")[0]


def test_an_entry_is_an_event_of_its_session(spoken: TurnEvent) -> None:
    assert (spoken.session_id, spoken.event_id) == ("s-9", "r-1")
    assert spoken.started_at == dt.datetime(2022, 3, 25, 2, 6, 7, 382_000, tzinfo=dt.UTC)
    assert (spoken.locale, spoken.device) == ("en-US", "Connect")


def test_transcriptions_are_the_n_best_list_of_speech(spoken: TurnEvent) -> None:
    assert spoken.text == "a trip to the big apple tomorrow"
    assert [each.score for each in spoken.asr] == [0.92, 0.4]


def test_interpretations_are_the_hypotheses(spoken: TurnEvent) -> None:
    assert [(each.intent, each.score) for each in spoken.nlu] == [("BookTrip", 0.85), ("FallbackIntent", None)]


def test_only_what_this_request_says_are_its_slots(spoken: TurnEvent) -> None:
    assert [(slot.name, slot.value, slot.start, slot.end) for slot in spoken.nlu[0].slots] == [
        ("City", "big apple", 14, 23),
        ("Date", "tomorrow", 24, 32),
    ]


def test_resolved_values_are_entity_resolutions(spoken: TurnEvent) -> None:
    assert [(each.slot, each.value, each.name) for each in spoken.entities] == [
        ("City", "big apple", "New York"),
        ("City", "big apple", "Newark"),
        ("Date", "tomorrow", "2022-03-26"),
    ]


def test_a_list_slot_is_one_slot_for_each_value(events: Events) -> None:
    assert [slot.value for slot in events("lex")[3].nlu[0].slots] == ["soup", "salad"]


def test_the_response_is_what_was_said_and_asked_for(spoken: TurnEvent) -> None:
    assert spoken.response is not None
    assert (spoken.response.text, spoken.response.action) == ("How many?", "ElicitSlot:Seats")


def test_the_status_says_how_the_turn_ended(events: Events) -> None:
    statuses = [event.response.status for event in events("lex") if event.response]
    assert statuses == [None, "no_match", "no_input", "success"]


def test_typed_text_has_no_recogniser(events: Events) -> None:
    assert events("lex")[1].asr == []


def test_silence_is_a_turn_in_which_nothing_was_heard(events: Events) -> None:
    assert [each.text for each in events("lex")[2].asr] == [""]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"timestamp": "soon"}, RejectReason.WRONG_TYPE),
        ({"sessionId": None}, RejectReason.MISSING_FIELD),
        ({"inputTranscript": None}, RejectReason.MISSING_TEXT),
        ({"interpretations": [{"nluConfidence": "high"}]}, RejectReason.WRONG_TYPE),
        ({"interpretations": [{"nluConfidence": "nan"}]}, RejectReason.INVALID_VALUE),
    ],
)
def test_a_bad_entry_is_rejected(
    examples: Callable[[str], list[bytes]], changes: dict[str, object], reason: RejectReason
) -> None:
    log_format = get_format("lex")
    assert isinstance(log_format, EventFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse_event(json.dumps(json.loads(examples("lex")[1]) | changes).encode())
    assert error.value.reason == reason
