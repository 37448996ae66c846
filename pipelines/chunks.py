"""Cutting input files into chunks, and reading the records of a chunk.

A chunk is some thousand consecutive turns of whole records. Where it starts and ends follows from the file and
the `ChunkSize` alone, so that the same input always has the same chunks. What a file holds is told by its first
bytes, never by its name or by the log format:

- Plain lines: a byte range that ends at a line end. The cutter only counts line ends.
- Parquet: consecutive row groups.
- What cannot be entered in the middle (gzip; a whole JSON document; a row group much larger than a chunk): the one
  reader that goes through it leaves each chunk's records in a *spool* file, so that no records travel through the
  engine and memory stays flat. Whoever finishes the chunk deletes its spool.

What the cutter itself finds wrong (a file that cannot be opened, a gzip stream that breaks off, a record that is
too large) goes along as the `rejects` of a chunk and is written with it.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import RunFailed
from schemas.rejects import RAW_LIMIT, RecordError, Reject, RejectReason, Stage

RECORD_LIMIT = 64 << 20
"""Bytes of one record at most; a larger one is rejected without being held in memory."""
DOCUMENT_LIMIT = 512 << 20
"""Bytes of a whole JSON document at most, uncompressed: it is decoded in one piece."""

_BLOCK = 1 << 20
_RAW_BYTES = 4 * RAW_LIMIT  # enough for RAW_LIMIT characters of UTF-8
_GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"
_BOM = b"\xef\xbb\xbf"


class ChunkSize(NamedTuple):
    """How much a chunk holds: it ends with the record that reaches either."""

    bytes: int = 4 << 20
    """Uncompressed records: three or four thousand turns of the usual log."""
    records: int = 4_000
    """So that chunks of tiny records stay small, too."""

    def times(self, factor: int) -> ChunkSize:
        return ChunkSize(factor * self.bytes, factor * self.records)


class Container(StrEnum):
    """How the records of a chunk lie in its file."""

    LINES = "lines"
    PARQUET = "parquet"
    SESSIONS = "sessions"
    """Dialogues put together from events: `pipelines.sessions` writes and reads them."""


@dataclass(frozen=True)
class SourceFile:
    """One file of the input."""

    index: int
    path: str
    size: int
    """Bytes, as it lies there."""
    modified: float
    """Seconds since 1970, as the file system says."""

    @property
    def key(self) -> str:
        return hashlib.sha256(self.path.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Chunk:
    """One unit of work."""

    id: str
    order: tuple[int, int]
    """Place in the input: the source's, then the chunk's in it."""
    source: str
    """The input file, as rejects name it."""
    container: Container
    path: str
    """Where the records lie: the source itself or a spool file."""
    spooled: bool = False
    start: int = 0
    """First byte; lines in place only."""
    end: int = 0
    """One past the last byte; lines in place only."""
    row_groups: tuple[int, ...] = ()
    first_position: int = 1
    """Line or row number of the first record, from 1."""
    limit: int | None = None
    """Take no more than this many records."""
    source_bytes: int = 0
    """This chunk's share of the source's size, for progress."""
    rejects: tuple[Reject, ...] = field(default=())
    """What was already found wrong with records of this chunk."""


@dataclass(frozen=True)
class Spool:
    """Where spool files go, and which are not needed because their chunk is finished."""

    folder: str
    temporary: str
    is_finished: Callable[[str], bool]

    def write(self, chunk: Chunk, content: bytes) -> Chunk:
        path = storage.join(self.folder, chunk.id)
        if not self.is_finished(chunk.id):
            try:
                storage.write_bytes(path, content, temporary=self.temporary)
            except OSError as error:
                # Not to be taken for a fault of the input file, which is being read around this call.
                raise RunFailed(f"Cannot write to {self.folder} ({error}): make room there and try again.") from error
        return replace(chunk, path=path, spooled=True)


def cut(source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    """The chunks of a file, in order; none for an empty file. Never raises for what the file holds."""
    count = 0
    try:
        for chunk in _cut(source, spool, size):
            count += 1
            yield chunk
    except OSError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        yield _bad_file(source, RecordError(Stage.READ, RejectReason.UNREADABLE_FILE, reason), number=count)


def _cut(source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    with storage.open_file(source.path) as stream:
        head = stream.read(4)
        stream.seek(0)
        if head == _PARQUET_MAGIC:
            yield from _cut_parquet(stream, source, spool, size)
            return
        open_blocks = _gunzip if head[:2] == _GZIP_MAGIC else _blocks
        if source.path.lower().endswith((".json", ".json.gz")):
            is_document = _is_document(open_blocks(stream))
            stream.seek(0)
            if is_document:
                yield from _cut_document(open_blocks(stream), source, spool, size)
                return
        if open_blocks is _gunzip:
            yield from _cut_gzip(stream, source, spool, size)
        else:
            yield from _cut_lines(stream, source, size)


def first_records(chunks: Iterator[Chunk], limit: int) -> Iterator[Chunk]:
    """Chunks that hold the first `limit` records of these."""
    left = limit
    for chunk in chunks:
        count = sum(1 for _ in read_records(chunk)) + len(chunk.rejects)
        if count > left:
            # Rejects that the cutter found are dropped last: `limit` is about records to label.
            kept = max(left - len(chunk.rejects), 0)
            chunk = replace(chunk, limit=kept, rejects=chunk.rejects[: left - kept])
        left -= min(count, left)
        yield chunk
        if left == 0:
            return


def read_records(chunk: Chunk) -> Iterator[tuple[int, bytes | Mapping[str, Any], RecordError | None]]:
    """Position, record and, where the record cannot be parsed for what it is, the error.

    Blank lines are no records. Raises `OSError` where the file is no longer there.
    """
    records = _read_parquet(chunk) if chunk.container is Container.PARQUET else _read_lines(chunk)
    return itertools.islice(records, chunk.limit)


def compress(content: bytes) -> bytes:
    """One zstd frame: what spool files are made of."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def decompress(content: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        return bytes(stream.read())


def split_lines(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, RecordError | None]]:
    """Lines without their line ends. A line over `RECORD_LIMIT` comes cut, with the error; where `blocks` raises
    `RecordError`, the line that breaks off there comes last, with that error."""
    pending: list[bytes] = []
    size = 0
    broken: RecordError | None = None
    while broken is None:
        try:
            block = next(blocks, None)
        except RecordError as error:
            block, broken = None, error
        if block is None:
            break
        *ended, rest = block.split(b"\n")
        for part in ended:
            yield _line(pending, part, size + len(part))
            pending, size = [], 0
        size += len(rest)
        if rest and size <= RECORD_LIMIT:
            pending.append(rest)
        elif pending:
            # The line will be rejected whatever follows: only its beginning is shown.
            pending = [b"".join(pending)[:_RAW_BYTES]]
    if broken is not None:
        yield b"".join(pending), broken
    elif size:
        yield _line(pending, b"", size)


def _line(pending: list[bytes], last: bytes, size: int) -> tuple[bytes, RecordError | None]:
    if size > RECORD_LIMIT:
        message = f"the record has {size:,} bytes; the limit is {RECORD_LIMIT:,}"
        return b"".join([*pending, last])[:_RAW_BYTES], RecordError(Stage.READ, RejectReason.RECORD_TOO_LARGE, message)
    return (b"".join([*pending, last]) if pending else last), None


def _chunk(source: SourceFile, number: int, container: Container, **more: Any) -> Chunk:
    return Chunk(
        id=f"{source.key}-{number:05d}",
        order=(source.index, number),
        source=source.path,
        container=container,
        path=source.path,
        **more,
    )


def _bad_file(source: SourceFile, error: RecordError, raw: bytes | None = None, number: int = 0) -> Chunk:
    reject = Reject.of(error, source.path, 0, raw)
    return _chunk(source, number, Container.LINES, source_bytes=0 if number else source.size, rejects=(reject,))


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block


def _gunzip(stream: BinaryIO) -> Iterator[bytes]:
    # read1 and not read: read would drop what was decompressed before the point where the stream breaks.
    with gzip.GzipFile(fileobj=stream) as unzipped:
        while True:
            try:
                block = unzipped.read1(_BLOCK)
            except EOFError:
                raise RecordError(
                    Stage.READ, RejectReason.TRUNCATED_FILE, "the gzip stream ends before its end mark"
                ) from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise RecordError(Stage.READ, RejectReason.CORRUPT_FILE, str(error)) from None
            if not block:
                return
            yield block


def _cut_lines(stream: BinaryIO, source: SourceFile, size: ChunkSize) -> Iterator[Chunk]:
    number = start = lines = seen = 0
    first_position = 1
    ends_in_line = False

    def chunk(end: int) -> Chunk:
        return _chunk(
            source,
            number,
            Container.LINES,
            start=start,
            end=end,
            first_position=first_position,
            source_bytes=end - start,
        )

    for block in _blocks(stream):
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + seen + 1
        seen += len(block)
        ends_in_line = not block.endswith(b"\n")
        done = 0
        while done < len(ends):
            by_size = int(np.searchsorted(ends, start + size.bytes))
            last = min(max(by_size, done), done + size.records - lines - 1)
            if last >= len(ends):
                lines += len(ends) - done
                break
            end = int(ends[last])
            yield chunk(end)
            first_position += lines + last + 1 - done
            number, start, lines, done = number + 1, end, 0, last + 1
    if lines or ends_in_line:
        yield chunk(seen)


def _cut_gzip(stream: BinaryIO, source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    lines: list[bytes] = []
    rejects: list[Reject] = []
    filled = number = consumed = 0
    first_position = 1

    def chunk() -> Chunk:
        return spool.write(
            _chunk(
                source,
                number,
                Container.LINES,
                first_position=first_position,
                source_bytes=stream.tell() - consumed,
                rejects=tuple(rejects),
            ),
            compress(b"\n".join(lines)),
        )

    for position, (line, error) in enumerate(split_lines(_gunzip(stream)), start=1):
        if error is not None:
            rejects.append(Reject.of(error, source.path, position, line or None))
            line = b""  # keeps the numbers of the lines after it
        elif position == 1:
            line = line.removeprefix(_BOM)
        lines.append(line)
        filled += len(line) + 1
        if filled >= size.bytes or len(lines) == size.records:
            yield chunk()
            first_position += len(lines)
            number, consumed, filled, lines, rejects = number + 1, stream.tell(), 0, [], []
    if lines:
        yield chunk()


def _is_document(blocks: Iterator[bytes]) -> bool:
    """Whether the file is one JSON document; otherwise it holds a record a line.

    An array is a document. An object is one if its first line is no JSON by itself and the next line does not
    open another object (that is a log whose first line is damaged).
    """
    lines = split_lines(_at_most(RECORD_LIMIT, blocks))
    filled = (line.lstrip() for line, _ in lines if line.removeprefix(_BOM).strip())
    first = next(filled, b"").removeprefix(_BOM).lstrip()
    if first.startswith(b"["):
        return True
    if not first.startswith(b"{"):
        return False
    try:
        msgspec.json.decode(first, type=msgspec.Raw)
        return False
    except msgspec.DecodeError:
        return not next(filled, b"{").startswith(b"{")


def _at_most(size: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield block
        size -= len(block)
        if size < 0:
            return


def _cut_document(blocks: Iterator[bytes], source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    content = bytearray()
    try:
        for block in blocks:
            content += block
            if len(content) > DOCUMENT_LIMIT:
                raise RecordError(
                    Stage.READ,
                    RejectReason.RECORD_TOO_LARGE,
                    f"the JSON document has more than {DOCUMENT_LIMIT:,} bytes: write it as JSON Lines",
                )
        text = bytes(content).removeprefix(_BOM)
        is_array = text.lstrip().startswith(b"[")
        try:
            records = msgspec.json.decode(text, type=list[msgspec.Raw]) if is_array else [text]
        except (msgspec.DecodeError, RecursionError) as error:
            raise RecordError(Stage.READ, RejectReason.INVALID_JSON, f"not a JSON document: {error}") from None
    except RecordError as error:
        yield _bad_file(source, error, bytes(content[:_RAW_BYTES]))
        return
    ends: list[int] = [0]
    filled = 0
    for index, record in enumerate(records, start=1):
        filled += len(bytes(record))
        if filled >= size.bytes or index - ends[-1] == size.records or index == len(records):
            ends.append(index)
            filled = 0
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        # A line end inside of JSON is white space, so an element fits on a line.
        lines = [bytes(record).replace(b"\n", b" ") for record in records[start:end]]
        yield spool.write(
            _chunk(
                source,
                number,
                Container.LINES,
                first_position=start + 1,
                source_bytes=source.size * (end - start) // len(records),
            ),
            compress(b"\n".join(lines)),
        )


def _cut_parquet(stream: BinaryIO, source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        stream.seek(-4, 2)
        whole = stream.read(4) == _PARQUET_MAGIC
        reason = RejectReason.CORRUPT_FILE if whole else RejectReason.TRUNCATED_FILE
        yield _bad_file(source, RecordError(Stage.READ, reason, str(error)))
        return
    number = 0
    first_position = 1
    group: list[int] = []
    rows = filled = 0
    total = max(file.metadata.num_rows, 1)

    def chunk(rows: int, **more: Any) -> Chunk:
        return _chunk(
            source,
            number,
            Container.PARQUET,
            first_position=first_position,
            source_bytes=source.size * rows // total,
            **more,
        )

    for index in range(file.num_row_groups):
        metadata = file.metadata.row_group(index)
        fits = filled + metadata.total_byte_size <= 2 * size.bytes and rows + metadata.num_rows <= size.records
        if group and not fits:
            yield chunk(rows, row_groups=tuple(group))
            number, first_position, group, rows, filled = number + 1, first_position + rows, [], 0, 0
        if metadata.total_byte_size <= 2 * size.bytes and metadata.num_rows <= size.records:
            group.append(index)
            rows += metadata.num_rows
            filled += metadata.total_byte_size
            continue
        slice_rows = max(1, min(size.records, metadata.num_rows * size.bytes // max(metadata.total_byte_size, 1)))
        read = 0
        try:
            for batch in file.iter_batches(batch_size=slice_rows, row_groups=[index]):
                sink = pa.BufferOutputStream()
                pq.write_table(pa.Table.from_batches([batch]), sink, compression="zstd")
                yield spool.write(chunk(batch.num_rows, row_groups=(0,)), bytes(sink.getvalue()))
                number, first_position, read = number + 1, first_position + batch.num_rows, read + batch.num_rows
        except (pa.ArrowException, OSError) as error:
            message = f"rows {first_position} to {first_position + metadata.num_rows - read - 1}: {error}"
            reject = Reject.of(
                RecordError(Stage.READ, RejectReason.CORRUPT_FILE, message), source.path, first_position, None
            )
            yield replace(chunk(0, rejects=(reject,)), container=Container.LINES)
            number, first_position = number + 1, first_position + metadata.num_rows - read
    if group:
        yield chunk(rows, row_groups=tuple(group))


def _read_lines(chunk: Chunk) -> Iterator[tuple[int, bytes, RecordError | None]]:
    if chunk.spooled:
        blocks = iter([decompress(storage.read_bytes(chunk.path))])
    elif chunk.end > chunk.start:
        blocks = _range(chunk)
    else:
        return
    for position, (line, error) in enumerate(split_lines(blocks), start=chunk.first_position):
        if position == 1:
            line = line.removeprefix(_BOM)
        if error is not None or (line and not line.isspace()):
            yield position, line, error


def _range(chunk: Chunk) -> Iterator[bytes]:
    with storage.open_file(chunk.path) as stream:
        stream.seek(chunk.start)
        left = chunk.end - chunk.start
        while left and (block := stream.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
    if left:
        raise OSError(f"{chunk.path} has become shorter while the run was reading it")


def _read_parquet(chunk: Chunk) -> Iterator[tuple[int, Mapping[str, Any], RecordError | None]]:
    position = chunk.first_position
    with storage.open_file(chunk.path) as stream:
        try:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=1_000, row_groups=list(chunk.row_groups)):
                schema = pa.schema([each.with_type(_microseconds(each.type)) for each in batch.schema])
                # Unsafe only in that nanoseconds are cut: Python's times have none.
                for row in pa.Table.from_batches([batch]).cast(schema, safe=False).to_pylist():
                    yield position, row, None
                    position += 1
        except (pa.ArrowException, OSError) as error:
            message = f"the rows from here to the end of the row group cannot be read: {error}"
            yield position, {}, RecordError(Stage.READ, RejectReason.CORRUPT_FILE, message)


def _microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_microseconds(each.type)) for each in kind])
    return kind
