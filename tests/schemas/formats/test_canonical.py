"""`jsonl`, `parquet` and `turns`: the canonical log, by dialogue and by turn event."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.formats import DialogueFormat, EventFormat, get_format
from schemas.log import ARROW_SCHEMA, Dialogue, ExplicitFeedback, FailurePoint, TurnEvent
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]
Events = Callable[[str], list[TurnEvent]]


def reject(name: str, record: bytes) -> RejectReason:
    log_format = get_format(name)
    with pytest.raises(RecordError) as error:
        if isinstance(log_format, EventFormat):
            log_format.parse_event(record)
        elif isinstance(log_format, DialogueFormat):
            log_format.parse(record)
    return error.value.reason


def test_every_field_is_read(dialogues: Dialogues) -> None:
    dialogue = dialogues("jsonl")[0]
    turn = dialogue.turns[0]
    assert (dialogue.locale, dialogue.device, dialogue.user_id) == ("en-GB", "speaker", "u-77")
    assert dialogue.feedback is not None
    assert dialogue.feedback.rating == 0.25
    assert dialogue.annotation is not None
    assert dialogue.annotation.goals is not None
    assert dialogue.annotation.goals[0].intent == "play_music"
    assert turn.wake_score == 0.93
    assert [(each.text, each.score) for each in turn.asr] == [
        ("play joy division", -1.5),
        ("play choice division", -3.25),
    ]
    assert [each.intent for each in turn.nlu] == ["play_music", "play_radio"]
    assert (turn.nlu[0].slots[0].start, turn.nlu[0].slots[0].end) == (5, 17)
    assert turn.entities[0].name == "Joy Denalane"
    assert turn.response is not None
    assert turn.response.status == "success"
    assert turn.barge_in is True
    assert turn.feedback is ExplicitFeedback.NEGATIVE
    assert turn.annotation is not None
    assert turn.annotation.failure_point is FailurePoint.ER


def test_the_text_of_a_spoken_turn_is_its_first_hypothesis(dialogues: Dialogues) -> None:
    assert dialogues("jsonl")[0].turns[0].text == "play joy division"


def test_times_are_given_in_utc(dialogues: Dialogues) -> None:
    dialogue = dialogues("jsonl")[0]
    assert dialogue.started_at == dt.datetime(2024, 5, 2, 7, 30, tzinfo=dt.UTC)
    assert dialogue.turns[0].started_at == dt.datetime(2024, 5, 2, 9, 30, 1, tzinfo=dt.UTC)


def test_a_dialogue_survives_a_parquet_file(dialogues: Dialogues) -> None:
    before = dialogues("jsonl")
    rows = msgspec.to_builtins(before, builtin_types=(dt.datetime,))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA), sink)
    log_format = get_format("parquet")
    assert isinstance(log_format, DialogueFormat)
    read = pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist()
    assert [dialogue for row in read for dialogue in log_format.parse(row)] == before


def test_a_turn_event_has_its_session(events: Events) -> None:
    event = events("turns")[0]
    assert (event.session_id, event.event_id, event.user_id) == ("s-1", "e-1", "u-77")
    assert event.text == "lights on"
    assert event.feedback is ExplicitFeedback.POSITIVE
    assert event.barge_in is False


def test_the_time_of_a_turn_event_is_given_in_utc(events: Events) -> None:
    assert events("turns")[1].started_at == dt.datetime(2024, 5, 2, 9, 30, 20, tzinfo=dt.UTC)


def test_a_turn_event_may_rephrase_another_turn_of_its_session(events: Events) -> None:
    annotation = events("turns")[1].annotation
    assert annotation is not None
    assert annotation.rephrase_of == 0


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"dialogue_id": "a", "turns": []}', RejectReason.NO_TURNS),
        (b'{"dialogue_id": "a"}', RejectReason.MISSING_FIELD),
        (b'{"dialogue_id": 7, "turns": [{"text": "a"}]}', RejectReason.WRONG_TYPE),
        (b'{"dialogue_id": "a", "turns": [{}]}', RejectReason.MISSING_TEXT),
        (b'{"dialogue_id": "a", "turns": [{"text": " "}]}', RejectReason.MISSING_TEXT),
        (b'{"dialogue_id": "a", "turns": [{"text": null}]}', RejectReason.MISSING_TEXT),
        (b'{"dialogue_id": "a", "turns": [{"text": "a", "started_at": "yesterday"}]}', RejectReason.WRONG_TYPE),
        (b'{"dialogue_id": "a", "turns": [{"text": "a", "feedback": "fine"}]}', RejectReason.WRONG_TYPE),
    ],
)
def test_a_bad_dialogue_is_rejected(record: bytes, reason: RejectReason) -> None:
    assert reject("jsonl", record) == reason


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"session_id": "s", "text": "a"}', RejectReason.MISSING_FIELD),
        (b'{"session_id": "", "text": "a", "started_at": "2024-05-02T09:30:01Z"}', RejectReason.WRONG_TYPE),
        (b'{"session_id": "s", "text": " ", "started_at": "2024-05-02T09:30:01Z"}', RejectReason.MISSING_TEXT),
        (b'{"session_id": "s", "text": "a", "started_at": 5}', RejectReason.WRONG_TYPE),
    ],
)
def test_a_bad_turn_event_is_rejected(record: bytes, reason: RejectReason) -> None:
    assert reject("turns", record) == reason
