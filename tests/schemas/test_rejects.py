"""Rows of the rejected table: the record as it came, in a form that can be stored."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest

from schemas.rejects import RAW_LIMIT, REJECTED_SCHEMA, RecordError, Reject, RejectReason, Stage

ERROR = RecordError(Stage.PARSE, RejectReason.INVALID_JSON, "no \ud800 JSON")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"a": 1', '{"a": 1'),
        (b"caf\xe9", "caf\ufffd"),
        ("\ud800", "?"),
        ("é" * 5_000, "é" * RAW_LIMIT),
        ("é".encode() * 5_000, "é" * RAW_LIMIT),
        (b"", ""),
        (None, None),
    ],
)
def test_a_row_shows_the_record_as_it_came(raw: bytes | str | None, shown: str | None) -> None:
    assert Reject.of(ERROR, "a.jsonl", 7, raw).raw == shown


def test_a_row_says_where_and_why() -> None:
    reject = Reject.of(ERROR, "a.jsonl", 7, b"{")
    assert (reject.source, reject.position) == ("a.jsonl", 7)
    assert (reject.stage, reject.reason) == (Stage.PARSE, RejectReason.INVALID_JSON)


def test_a_row_can_be_stored() -> None:
    row = msgspec.to_builtins(Reject.of(ERROR, "a.jsonl", 7, "\ud800"))
    assert pa.Table.from_pylist([row], schema=REJECTED_SCHEMA).to_pylist() == [
        {
            "source": "a.jsonl",
            "position": 7,
            "stage": "parse",
            "reason": "invalid_json",
            "message": "no ? JSON",
            "raw": "?",
        }
    ]
