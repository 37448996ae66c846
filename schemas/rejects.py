"""What could not be read or labelled, and why: the closed list of reasons and the `rejected` table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

RAW_LIMIT = 2_000
"""Characters of a rejected record that are kept in `raw`."""


class Stage(StrEnum):
    """Where in the job a record was rejected."""

    READ = "read"
    PARSE = "parse"
    VALIDATE = "validate"
    SESSIONISE = "sessionise"
    LABEL = "label"


class RejectReason(StrEnum):
    """Why a record was rejected. Closed: a new reason is a new schema version."""

    UNREADABLE_FILE = "unreadable_file"
    TRUNCATED_FILE = "truncated_file"
    CORRUPT_FILE = "corrupt_file"
    RECORD_TOO_LARGE = "record_too_large"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    INVALID_VALUE = "invalid_value"
    NO_TURNS = "no_turns"
    MISSING_TEXT = "missing_text"
    DUPLICATE_ID = "duplicate_id"
    DUPLICATE_EVENT = "duplicate_event"
    LABEL_FAILED = "label_failed"
    OUT_OF_MEMORY = "out_of_memory"


class RecordError(ValueError):
    """One record is bad; the run goes on. Carries what the `rejected` table says of it.

    The message names no id of the log: the row says where the record is, and ids may have to be hidden.
    """

    def __init__(self, stage: Stage, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Reject:
    """One row of the `rejected` table."""

    source: str
    position: int
    stage: Stage
    reason: RejectReason
    message: str
    raw: str | None

    @classmethod
    def of(cls, error: RecordError, source: str, position: int, raw: bytes | str | None) -> Reject:
        """The row for `error`, with `raw` as `shown` makes it."""
        return cls(
            source,
            position,
            error.stage,
            error.reason,
            _storable(error.message[:RAW_LIMIT]),
            None if raw is None else shown(raw),
        )


def shown(raw: bytes | str) -> str:
    """A record as `raw` has it: cut at `RAW_LIMIT` characters, bad bytes as U+FFFD."""
    if isinstance(raw, bytes):
        # A character of UTF-8 is at most four bytes: no need to decode a huge record to cut it.
        raw = raw[: 4 * RAW_LIMIT].decode("utf-8", errors="replace")
    return _storable(raw[:RAW_LIMIT])


def _storable(text: str) -> str:
    """Lone surrogates cannot be stored as UTF-8: shown as `?`."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


REJECTED_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False, metadata={"description": "the input file"}),
        pa.field(
            "position",
            pa.int64(),
            nullable=False,
            metadata={"description": "line or row in the source, from 1; 0: the file as a whole"},
        ),
        pa.field("stage", pa.string(), nullable=False, metadata={"enum": "|".join(Stage)}),
        pa.field("reason", pa.string(), nullable=False, metadata={"enum": "|".join(RejectReason)}),
        pa.field("message", pa.string(), nullable=False, metadata={"description": "what was wrong, in words"}),
        pa.field(
            "raw",
            pa.string(),
            metadata={
                "description": f"the record as it came, cut at {RAW_LIMIT} characters",
                "null": "there is no record to show (a file that cannot be read)",
            },
        ),
    ]
)
