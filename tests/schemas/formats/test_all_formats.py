"""What every registered format promises: a record is parsed or rejected with a reason, and never anything else."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.formats import DialogueFormat, EventFormat, UnknownFormatError, formats, get_format
from schemas.log import ARROW_SCHEMA, Dialogue, Turn, validate
from schemas.rejects import RecordError, RejectReason

NAMES = list(formats())

awkward = st.sampled_from(
    [
        0,
        -1,
        2**31,
        2**63,
        10**400,
        1e308,
        -1e308,
        0.1,
        "",
        " ",
        "İ",
        "\ud800",
        "\x00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2024-02-30T00:00:00Z",
        "{",
        "null",
        "[]",
        '{"queryResult": 1}',
        [],
        {},
        [None],
        True,
        None,
    ]
)
json_values = st.recursive(
    awkward | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse(name: str, record: Any) -> list[Dialogue]:
    """The record's dialogues; an event as the dialogue of one turn that it becomes."""
    log_format = get_format(name)
    if isinstance(log_format, EventFormat):
        event = log_format.parse_event(record)
        turn = Turn(**{field: getattr(event, field) for field in Turn.__struct_fields__})
        return [Dialogue(dialogue_id=event.session_id, turns=[turn], started_at=event.started_at)]
    assert isinstance(log_format, DialogueFormat)
    return log_format.parse(record)


def parse_or_reject(name: str, record: Any) -> None:
    try:
        found = parse(name, record)
    except RecordError as error:
        assert error.reason in RejectReason
        assert error.message
        return
    assert found
    for dialogue in found:
        assert dialogue.dialogue_id
        assert dialogue.turns
        assert all(turn.text is not None for turn in dialogue.turns)
        assert all(slot.name for turn in dialogue.turns for each in turn.nlu for slot in each.slots)
        assert all(turn.started_at is None or turn.started_at.tzinfo is dt.UTC for turn in dialogue.turns)
    rows = msgspec.to_builtins(found, builtin_types=(dt.datetime,))
    assert pa.Table.from_pylist(rows, schema=ARROW_SCHEMA).num_rows == len(found)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


def mutated(value: Any, path: tuple[Any, ...], replacement: Any) -> Any:
    if not path:
        return replacement
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = replacement
    return changed


def as_rows(text: bytes) -> dict[str, Any] | None:
    """The record as a Parquet row gives it: a mapping; null where it cannot be one."""
    try:
        row = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return row if isinstance(row, dict) else None


@pytest.fixture(scope="session")
def example(examples: Callable[[str], list[bytes]]) -> Callable[[str], list[Any]]:
    return lambda name: [json.loads(record) for record in examples("jsonl" if name == "parquet" else name)]


def test_every_format_is_found_by_its_name() -> None:
    known = [
        "betold",
        "dbdc3",
        "dialogflow-cx",
        "dstc2",
        "frames",
        "jsonl",
        "lex",
        "multiwoz",
        "parquet",
        "rasa",
        "sgd",
        "slurp",
        "star",
        "tiage",
        "turns",
        "utterances",
    ]
    assert known == NAMES


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownFormatError, match=r"'csv'.*dstc2.*turns"):
        get_format("csv")


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_are_of_the_format(name: str, example: Callable[[str], list[Any]]) -> None:
    for record in example(name):
        assert parse(name, json.dumps(record).encode())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_a_parquet_file_is_read_as_a_line_is(name: str, example: Callable[[str], list[Any]]) -> None:
    for record in example(name):
        assert parse(name, record) == parse(name, json.dumps(record).encode())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", RejectReason.INVALID_JSON),
        (b"{", RejectReason.INVALID_JSON),
        (b"not JSON", RejectReason.INVALID_JSON),
        (b'{"unknown":' + b"[" * 100_000, RejectReason.INVALID_JSON),
        (b'{"a": "\xff"}', RejectReason.INVALID_UTF8),
        (b"[]", RejectReason.WRONG_TYPE),
        (b"{}", RejectReason.MISSING_FIELD),
    ],
)
def test_what_is_no_record_is_rejected_with_the_reason(name: str, record: bytes, reason: RejectReason) -> None:
    with pytest.raises(RecordError) as error:
        parse(name, record)
    assert error.value.reason == reason


def test_an_empty_id_is_rejected(example: Callable[[str], list[Any]]) -> None:
    with pytest.raises(RecordError) as error:
        parse("dstc2", json.dumps(example("dstc2")[0] | {"session": ""}).encode())
    assert error.value.reason == RejectReason.MISSING_FIELD


@pytest.mark.parametrize("name", NAMES)
@quick
@given(value=json_values)
def test_no_json_value_crashes(name: str, value: Any) -> None:
    text = json.dumps(value).encode()
    parse_or_reject(name, text)
    if (row := as_rows(text)) is not None:
        parse_or_reject(name, row)


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data())
def test_no_change_of_a_good_record_crashes(
    name: str, example: Callable[[str], list[Any]], data: st.DataObject
) -> None:
    record = data.draw(st.sampled_from(example(name)))
    path = data.draw(st.sampled_from(list(places(record))))
    text = json.dumps(mutated(record, path, data.draw(json_values))).encode()
    parse_or_reject(name, text)
    if (row := as_rows(text)) is not None:
        parse_or_reject(name, row)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(get_format(name), DialogueFormat)])
def test_a_parsed_dialogue_is_valid(name: str, example: Callable[[str], list[Any]]) -> None:
    for record in example(name):
        for dialogue in parse(name, json.dumps(record).encode()):
            assert validate(copy.deepcopy(dialogue)) == dialogue
