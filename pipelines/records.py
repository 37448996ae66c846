"""From the records of a chunk to validated dialogues, each with the place in the input that it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from pipelines.chunks import Chunk, read_records
from schemas.formats import DialogueFormat, LogFormat
from schemas.formats.base import RawRecord
from schemas.log import Dialogue
from schemas.rejects import RecordError, Reject, RejectReason, Stage, shown

T = TypeVar("T")


class Origin(Struct, array_like=True):
    """One record of the input, and what its row in `rejected` shows if it ends there."""

    source: str
    source_index: int
    position: int
    raw: str | None

    def reject(self, error: RecordError) -> Reject:
        return Reject.of(error, self.source, self.position, self.raw)


class Item(Struct, array_like=True):
    """A dialogue with the records it was made of; or what was wrong with one record."""

    origins: list[Origin]
    dialogue: Dialogue | None = None
    reject: Reject | None = None


def read_items(chunk: Chunk, log_format: DialogueFormat) -> Iterator[Item]:
    """The dialogues and rejects of a chunk, in the order of the input."""
    for origin, record, error in originals(chunk):
        try:
            if error is not None:
                raise error
            for dialogue in parse(log_format, log_format.parse, record):
                yield Item([origin], dialogue)
        except RecordError as bad:
            yield Item([origin], reject=origin.reject(bad))


def originals(chunk: Chunk) -> Iterator[tuple[Origin, RawRecord, RecordError | None]]:
    """The records of a chunk with their origins, as `pipelines.chunks.read_records` gives them."""
    for position, record, error in read_records(chunk):
        yield Origin(chunk.source, chunk.order[0], position, _raw(record)), record, error


def parse(log_format: LogFormat, parser: Callable[[RawRecord], T], record: RawRecord) -> T:
    """`parser(record)`; what a format raises that is no `RecordError` is made one, for no record stops a run."""
    try:
        return parser(record)
    except RecordError:
        raise
    except Exception as error:
        message = f"the reader of {log_format.name} failed on it: {type(error).__name__}: {error}"
        raise RecordError(Stage.PARSE, RejectReason.INVALID_VALUE, message) from error


def stable_hash(key: str) -> int:
    """64 bits that are the same in every process."""
    content = key.encode("utf-8", errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _raw(record: RawRecord) -> str:
    if isinstance(record, Mapping):
        # A row of a Parquet file has no text of its own: it is shown as JSON.
        return shown(msgspec.json.encode(record, enc_hook=str))
    return shown(record)
