"""The canonical log: what it accepts, what it fills in, and that its schemas say the same as its records."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pyarrow as pa
import pytest

from schemas.log import (
    ARROW_SCHEMA,
    LOG_SCHEMA_VERSION,
    SLOT_LIMIT,
    AsrHypothesis,
    Dialogue,
    DialogueAnnotation,
    NluHypothesis,
    Slot,
    Turn,
    TurnAnnotation,
    TurnEvent,
    as_utc,
    decode,
    from_unix,
    json_schema,
    validate,
    validate_event,
)
from schemas.rejects import RecordError, RejectReason

EXAMPLES = Path(__file__).parent / "formats" / "data"
GOLDEN = Path(__file__).parent / "golden"


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.jsonl").read_bytes().splitlines()[0])


def one_turn(**turn: Any) -> Dialogue:
    return Dialogue(dialogue_id="d", turns=[Turn(**turn)])


def reason(dialogue: Dialogue) -> RejectReason:
    with pytest.raises(RecordError) as error:
        validate(dialogue)
    return error.value.reason


def test_a_null_list_is_an_absent_list() -> None:
    record = b'{"dialogue_id": "d", "turns": [{"text": "a", "asr": null, "nlu": null, "annotation": {"slots": null}}]}'
    turn = decode(record, Dialogue).turns[0]
    assert (turn.asr, turn.nlu) == ([], [])


def test_a_null_id_is_a_missing_id() -> None:
    with pytest.raises(RecordError) as error:
        decode(b'{"dialogue_id": null, "turns": [{"text": "a"}]}', Dialogue)
    assert error.value.reason == RejectReason.MISSING_FIELD


def test_unknown_fields_are_ignored() -> None:
    assert decode(b'{"dialogue_id": "d", "mood": 7, "turns": [{"text": "a", "x": []}]}', Dialogue).dialogue_id == "d"


def test_invalid_utf8_is_seen_in_fields_that_are_ignored() -> None:
    with pytest.raises(RecordError) as error:
        decode(b'{"dialogue_id": "d", "mood": "\xff", "turns": [{"text": "a"}]}', Dialogue)
    assert error.value.reason == RejectReason.INVALID_UTF8


def test_a_time_without_an_offset_is_in_utc() -> None:
    assert as_utc(dt.datetime(2024, 5, 2, 9, 30)) == dt.datetime(2024, 5, 2, 9, 30, tzinfo=dt.UTC)


def test_a_time_that_utc_does_not_have_is_rejected() -> None:
    with pytest.raises(RecordError) as error:
        as_utc(dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))))
    assert error.value.reason == RejectReason.INVALID_VALUE


@pytest.mark.parametrize("seconds", [1e18, -1e18, float("nan"), float("inf")])
def test_seconds_beyond_the_calendar_are_rejected(seconds: float) -> None:
    with pytest.raises(RecordError) as error:
        from_unix(seconds)
    assert error.value.reason == RejectReason.INVALID_VALUE


def test_a_dialogue_starts_with_its_first_turn() -> None:
    dialogue = validate(one_turn(text="a", started_at=dt.datetime(2024, 5, 2)))
    assert dialogue.started_at == dt.datetime(2024, 5, 2, tzinfo=dt.UTC)


def test_speech_in_which_nothing_was_recognised_is_kept() -> None:
    assert validate(one_turn(asr=[AsrHypothesis(text="")])).turns[0].text == ""


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({}, RejectReason.MISSING_TEXT),
        ({"text": "\t"}, RejectReason.MISSING_TEXT),
        ({"text": "a", "wake_score": float("nan")}, RejectReason.INVALID_VALUE),
        ({"asr": [AsrHypothesis(text="a", score=float("inf"))]}, RejectReason.INVALID_VALUE),
        (
            {"text": "ab", "annotation": TurnAnnotation(slots=[Slot(name="s", value="b", start=1)])},
            RejectReason.INVALID_VALUE,
        ),
        (
            {"text": "ab", "annotation": TurnAnnotation(slots=[Slot(name="s", value="b", start=1, end=3)])},
            RejectReason.INVALID_VALUE,
        ),
        (
            {"text": "ab", "annotation": TurnAnnotation(slots=[Slot(name="s", value="b", start=2, end=1)])},
            RejectReason.INVALID_VALUE,
        ),
        ({"text": "ab", "annotation": TurnAnnotation(slots=[Slot(name="", value="b")])}, RejectReason.INVALID_VALUE),
        ({"text": "a", "annotation": TurnAnnotation(rephrase_of=0)}, RejectReason.INVALID_VALUE),
        ({"text": "a", "annotation": TurnAnnotation(ratings=[1, float("nan")])}, RejectReason.INVALID_VALUE),
    ],
)
def test_what_a_type_cannot_say_is_checked(turn: dict[str, Any], expected: RejectReason) -> None:
    assert reason(one_turn(**turn)) == expected


def test_a_hypothesis_has_so_many_slots_at_most() -> None:
    slots = [Slot(name="s", value=str(index)) for index in range(SLOT_LIMIT + 1)]
    assert validate(one_turn(text="a", nlu=[NluHypothesis(slots=slots[1:]), NluHypothesis(slots=slots[:1])]))
    too_many = one_turn(text="a", nlu=[NluHypothesis(), NluHypothesis(slots=slots)])
    assert reason(too_many) == RejectReason.RECORD_TOO_LARGE


def test_a_rating_of_a_dialogue_that_is_not_finite_is_rejected() -> None:
    dialogue = one_turn(text="a")
    dialogue.annotation = DialogueAnnotation(ratings=[float("inf")])
    assert reason(dialogue) == RejectReason.INVALID_VALUE


def test_a_person_without_a_rating_is_no_rating() -> None:
    with pytest.raises(RecordError) as error:
        decode(b'{"dialogue_id": "d", "turns": [{"text": "a", "annotation": {"ratings": [1, null]}}]}', Dialogue)
    assert error.value.reason == RejectReason.WRONG_TYPE


def test_an_event_is_checked_as_a_turn_is() -> None:
    event = TurnEvent(session_id="s", started_at=dt.datetime(2024, 5, 2), asr=[AsrHypothesis(text="a")])
    assert validate_event(event).text == "a"
    assert event.started_at.tzinfo is dt.UTC


@pytest.mark.parametrize(
    ("text", "value", "span"),
    [
        ("Flights to Rome", "rome", (11, 15)),
        ("romeo in rome", "rome", (9, 13)),
        ("İİ rome", "rome", (3, 7)),
        ("what (c)", "(c)", (5, 8)),
        ("romeo", "rome", (None, None)),
        ("a", "", (None, None)),
    ],
)
def test_a_slot_has_the_span_at_which_its_value_is_said(
    text: str, value: str, span: tuple[int | None, int | None]
) -> None:
    slot = Slot.said_in(text, "city", value)
    assert (slot.start, slot.end) == span


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


def changed(record: Any) -> Iterator[Any]:
    """The record with one of its values, at any depth, replaced by another kind of value."""
    for path in places(record):
        for value in (None, "", "x", 0, 1.5, -2, True, [], {}):
            copied = copy.deepcopy({"": record})
            inner: Any = copied
            for key in ("", *path)[:-1]:
                inner = inner[key]
            inner[("", *path)[-1]] = value
            yield copied[""]


@pytest.mark.parametrize(("name", "as_type"), [("jsonl", Dialogue), ("turns", TurnEvent)])
def test_the_json_schema_accepts_what_decode_accepts(name: str, as_type: type[msgspec.Struct]) -> None:
    schema = json_schema(as_type)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    accepted = 0
    for record in changed(example(name)):
        try:
            decode(json.dumps(record).encode(), as_type)
        except RecordError:
            continue
        accepted += 1
        assert validator.is_valid(record), record
    assert accepted


@pytest.mark.parametrize(
    "record",
    [
        {"turns": [{"text": "a"}]},
        {"dialogue_id": "d", "turns": []},
        {"dialogue_id": "d", "turns": [{"text": 5}]},
        {"dialogue_id": "d", "turns": [{"text": "a", "feedback": "fine"}]},
    ],
)
def test_the_json_schema_refuses_what_decode_refuses(record: Any) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(record)
    with pytest.raises(RecordError):
        decode(json.dumps(record).encode(), Dialogue)


def test_a_row_of_the_arrow_schema_is_a_dialogue() -> None:
    dialogue = validate(decode(json.dumps(example("jsonl")).encode(), Dialogue))
    row = msgspec.to_builtins(dialogue, builtin_types=(dt.datetime,))
    (read,) = pa.Table.from_pylist([row], schema=ARROW_SCHEMA).to_pylist()
    assert validate(decode(read, Dialogue)) == dialogue


def test_the_arrow_schema_has_every_field_of_a_record() -> None:
    names = set(ARROW_SCHEMA.names)
    assert names == set(Dialogue.__struct_fields__)
    assert {field.name for field in ARROW_SCHEMA.field("turns").type.value_type} == set(Turn.__struct_fields__)


def test_the_log_changes_only_with_its_version(described: Callable[[pa.Schema], str]) -> None:
    for found, suffix in (
        (json.dumps(json_schema(), indent=1) + "\n", "json"),
        (described(ARROW_SCHEMA), "txt"),
    ):
        golden = GOLDEN / f"log-{LOG_SCHEMA_VERSION}.{suffix}"
        assert golden.exists(), f"a new version of the log: write this to {golden.name}\n{found}"
        assert found == golden.read_text(), "the log has changed: raise LOG_SCHEMA_VERSION"


def test_the_arrow_schema_is_of_the_version_of_the_log() -> None:
    assert ARROW_SCHEMA.metadata == {b"faultline.log_schema_version": LOG_SCHEMA_VERSION.encode()}
