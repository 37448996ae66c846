"""`dialogflow-cx`: rows of the BigQuery export."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest

from schemas.formats import EventFormat, get_format
from schemas.log import ExplicitFeedback, TurnEvent
from schemas.rejects import RecordError, RejectReason

Events = Callable[[str], list[TurnEvent]]


def parse(row: object) -> TurnEvent:
    log_format = get_format("dialogflow-cx")
    assert isinstance(log_format, EventFormat)
    return log_format.parse_event(row if isinstance(row, dict) else json.dumps(row).encode())


@pytest.fixture
def spoken(events: Events) -> TurnEvent:
    return events("dialogflow-cx")[1]


def test_a_row_is_an_event_of_its_conversation(spoken: TurnEvent) -> None:
    assert spoken.session_id.endswith("/sessions/s-1")
    assert spoken.event_id == "2"
    assert spoken.started_at == dt.datetime(2024, 5, 2, 9, 30, 5, tzinfo=dt.UTC)
    assert (spoken.locale, spoken.device) == ("en", "phone")


def test_speech_has_its_transcript(spoken: TurnEvent) -> None:
    assert spoken.text == "fly to Rome for two"
    assert [each.text for each in spoken.asr] == ["fly to Rome for two"]


def test_the_match_leads_the_alternatives(spoken: TurnEvent) -> None:
    assert [(each.domain, each.intent, each.score) for each in spoken.nlu] == [
        ("Flights", "book.flight", 0.75),
        (None, "book.train", 0.25),
    ]


def test_parameters_are_slots_with_the_span_that_was_said(spoken: TurnEvent) -> None:
    assert [(slot.name, slot.value, slot.start, slot.end) for slot in spoken.nlu[0].slots] == [
        ("city", "rome", 7, 11),
        ("seats", "2", None, None),
    ]


def test_the_response_has_its_messages_and_page(spoken: TurnEvent) -> None:
    assert spoken.response is not None
    assert (spoken.response.text, spoken.response.action) == ("A flight to Rome. When?", "Ask Date")


def test_a_failed_webhook_is_a_failure(spoken: TurnEvent) -> None:
    assert spoken.response is not None
    assert spoken.response.status == "failure"


def test_thumbs_down_is_negative_feedback(spoken: TurnEvent) -> None:
    assert spoken.feedback is ExplicitFeedback.NEGATIVE


def test_an_event_is_a_turn_in_which_nothing_was_heard(events: Events) -> None:
    event = events("dialogflow-cx")[0]
    assert event.text == ""
    assert event.nlu[0].intent == "WELCOME"


def test_json_columns_may_be_text(events: Events) -> None:
    event = events("dialogflow-cx")[2]
    assert event.text == "gnarf"
    assert event.asr == []
    assert event.response is not None
    assert event.response.status == "no_match"
    assert event.feedback is None


def test_alternatives_of_another_shape_are_not_read(examples: Callable[[str], list[bytes]]) -> None:
    row = json.loads(examples("dialogflow-cx")[1])
    row["response"]["queryResult"]["diagnosticInfo"] = {"Alternative Matched Intents": {"new": "shape"}}
    assert [each.intent for each in parse(row).nlu] == ["book.flight"]


def test_a_handoff_to_a_person_is_said(examples: Callable[[str], list[bytes]]) -> None:
    row = json.loads(examples("dialogflow-cx")[0])
    row["response"]["queryResult"]["responseMessages"] = [{"liveAgentHandoff": {}}]
    response = parse(row).response
    assert response is not None
    assert response.status == "handoff"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"response": "{"}, RejectReason.INVALID_JSON),
        ({"response": "null"}, RejectReason.MISSING_FIELD),
        ({"response": {}}, RejectReason.MISSING_FIELD),
        ({"response": {"queryResult": {"text": 5}}}, RejectReason.WRONG_TYPE),
        ({"request_time": "soon"}, RejectReason.INVALID_VALUE),
        ({"request_time": 1714642200}, RejectReason.WRONG_TYPE),
        ({"response": {"queryResult": {"text": " "}}}, RejectReason.MISSING_TEXT),
    ],
)
def test_a_bad_row_is_rejected(
    examples: Callable[[str], list[bytes]], changes: dict[str, object], reason: RejectReason
) -> None:
    with pytest.raises(RecordError) as error:
        parse(json.loads(examples("dialogflow-cx")[1]) | changes)
    assert error.value.reason == reason
