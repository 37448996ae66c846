"""Cutting input files into chunks, and reading the records of a chunk.

A chunk is some thousand consecutive turns of whole records. Where it starts and ends follows from the file and
the `ChunkSize` alone, so that the same input always has the same chunks. What a file holds is told by its first
bytes, never by its name or by the log format:

- Plain lines: a byte range that ends at a line end. The cutter only counts line ends.
- Parquet: consecutive row groups.
- What cannot be entered in the middle (gzip; a whole JSON document; a row group much larger than a chunk): the one
  reader that goes through it leaves each chunk's records in a *spool* file, so that no records travel through the
  engine and memory stays flat. Whoever finishes the chunk deletes its spool.

The elements of a JSON array are told apart by its commas, brackets and quotes alone, block by block: a bad element
costs no other, unless its own brackets or quotes are not closed.

What the cutter itself finds wrong (a file that cannot be opened, a gzip stream that breaks off, a record that is
too large) goes along as the `rejects` of a chunk and is written with it. However few bytes a file has, what it
expands to is never held whole: a line or an element is at most `RECORD_LIMIT` bytes, and a Parquet row group that
would expand far beyond its bytes is not read.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import RunFailed
from schemas.rejects import RAW_LIMIT, RecordError, Reject, RejectReason, Stage

RECORD_LIMIT = 16 << 20
"""Bytes of one record at most; a larger one is rejected without being held in memory.

What a record decodes to can have a hundred times its bytes: a list of `{}` has."""
EXPANDED_LIMIT = 256 << 20
"""Bytes that the rows of a Parquet chunk expand to at most, each repeated value counted each time."""

_BLOCK = 1 << 20
_RAW_BYTES = 4 * RAW_LIMIT  # enough for RAW_LIMIT characters of UTF-8
_GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"
_BOM = b"\xef\xbb\xbf"
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NESTING = np.zeros(256, np.int8)
_NESTING[[ord("["), ord("{")]] = 1
_NESTING[[ord("]"), ord("}")]] = -1
_EXPANSION = 50
"""A row group may expand to so many times its compressed bytes, beside 64 MiB: text is seldom compressed to a tenth."""

_Sizes = npt.NDArray[np.int64]


class _Document(StrEnum):
    """What a file that is one JSON document holds."""

    ARRAY = "array"
    OBJECT = "object"


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
        # What fails here is not to be taken for a fault of the input file, which is being read around this call.
        try:
            finished = self.is_finished(chunk.id)
        except OSError as error:
            raise RunFailed(f"Cannot look into {self.folder} ({error}): try again.") from error
        if not finished:
            try:
                storage.write_bytes(path, content, temporary=self.temporary)
            except OSError as error:
                raise RunFailed(f"Cannot write to {self.folder} ({error}): make room there and try again.") from error
        return replace(chunk, path=path, spooled=True)


def cut(source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    """The chunks of a file, in order; none for an empty file. Never raises for what the file holds.

    Raises `RunFailed` where the storage fails in a way that may pass: the rest of the file would be lost for good.
    """
    count = 0
    try:
        for chunk in _cut(source, spool, size):
            count += 1
            yield chunk
    except OSError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if _may_pass(error):
            raise RunFailed(f"Cannot read {source.path} now ({reason}): try again.") from error
        yield _bad_file(source, RecordError(Stage.READ, RejectReason.UNREADABLE_FILE, reason), number=count)


def _may_pass(error: Exception) -> bool:
    """Whether the storage failed, and not the file itself, for good.

    An `OSError` of that very class is of the file if it has no number (what pyarrow raises for damage) or that of a
    damaged place on the disk. What else a system says (a timeout, a mount that is gone, too many open files) and all
    that the client of an object store does but that there is no such file may be over at the next try.
    """
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    if not isinstance(error, OSError) or isinstance(error, lasting):
        return False
    return type(error) is not OSError or error.errno not in (None, errno.EIO)


def _cut(source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    with storage.open_file(source.path) as stream:
        head = stream.read(4)
        stream.seek(0)
        if head == _PARQUET_MAGIC:
            yield from _cut_parquet(stream, source, spool, size)
            return
        open_blocks = _gunzip if head[:2] == _GZIP_MAGIC else _blocks

        def from_the_start() -> Iterator[bytes]:
            stream.seek(0)
            return open_blocks(stream)

        document = None
        if source.path.lower().endswith((".json", ".json.gz")):
            document = _document(from_the_start)
            stream.seek(0)
        if document is _Document.ARRAY:
            yield from _cut_spooled(_elements(open_blocks(stream)), stream, source, spool, size)
        elif document is _Document.OBJECT:
            # A line end inside of JSON is white space: without it the document is one line.
            one_line = (block.replace(b"\n", b"\r") for block in open_blocks(stream))
            yield from _cut_spooled(split_lines(one_line), stream, source, spool, size)
        elif open_blocks is _gunzip:
            yield from _cut_spooled(split_lines(_gunzip(stream)), stream, source, spool, size)
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


def _cut_spooled(
    records: Iterator[tuple[bytes, RecordError | None]],
    stream: BinaryIO,
    source: SourceFile,
    spool: Spool,
    size: ChunkSize,
) -> Iterator[Chunk]:
    """Chunks of records that are read out of `stream` one after the other, each on a line of a spool file."""
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

    for position, (line, error) in enumerate(records, start=1):
        if error is not None:
            rejects.append(Reject.of(error, source.path, position, line or None))
            line = b""  # keeps the numbers of the lines after it
        elif position == 1:
            line = line.removeprefix(_BOM)
        lines.append(line)
        filled += len(line) + 1
        if filled >= size.bytes or len(lines) == size.records:
            # Gigabytes of line ends compress to almost nothing: they must not make chunks by the million.
            if rejects or any(lines):
                yield chunk()
                number, consumed = number + 1, stream.tell()
            first_position += len(lines)
            filled, lines, rejects = 0, [], []
    if rejects or any(lines):
        yield chunk()


def _document(blocks: Callable[[], Iterator[bytes]]) -> _Document | None:
    """What the file's one JSON document is; None where it holds a record a line. `blocks` gives it from its start.

    An array is a document. An object is one if its first line is no JSON by itself, unless the next line opens an
    object, too: that is a log whose first lines are damaged, or, if all lines together are JSON, an object whose list
    begins on that line.
    """
    lines = split_lines(_at_most(RECORD_LIMIT, blocks()))
    filled = (line.lstrip() for line, _ in lines if line.removeprefix(_BOM).strip())
    first = next(filled, b"").removeprefix(_BOM).lstrip()
    if first.startswith(b"["):
        return _Document.ARRAY
    if not first.startswith(b"{") or _is_json(first):
        return None
    if not next(filled, b"{").startswith(b"{"):
        return _Document.OBJECT
    try:
        whole = b"".join(_at_most(RECORD_LIMIT, blocks()))
    except RecordError:
        return None
    return _Document.OBJECT if _is_json(whole.removeprefix(_BOM)) else None


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _at_most(size: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield block
        size -= len(block)
        if size < 0:
            return


def _elements(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, RecordError | None]]:
    """The elements of a JSON array, as `split_lines` gives lines; where the array breaks off, that comes last."""
    for element, error in split_lines(_a_line_an_element(blocks)):
        if error is None and not element.strip():
            error = RecordError(Stage.READ, RejectReason.INVALID_JSON, "the array has a comma without an element")
        yield element, error


def _a_line_an_element(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text with a line end after each element in place of the array's own brackets and commas.

    Raises `RecordError` where the array is not closed, or something follows it.
    """
    depth = 0
    in_string = opened = closed = filled = False
    held = b""
    for block in blocks:
        block = held + block
        # A backslash at the end waits for what it escapes.
        held = b"\\" if (len(block) - len(block.rstrip(b"\\"))) % 2 else b""
        block = block[: len(block) - len(held)]
        if not closed and block:
            codes = np.frombuffer(_ESCAPE.sub(b"..", block), np.uint8)
            in_strings = (np.cumsum(codes == ord('"')) + in_string) % 2 == 1
            nesting = np.where(in_strings, 0, _NESTING[codes])
            depths = depth + np.cumsum(nesting)
            depth, in_string = int(depths[-1]), bool(in_strings[-1])
            text = np.frombuffer(block, np.uint8).copy()
            # As white space as good as a line end, and as bad as one inside of a string.
            text[text == ord("\n")] = ord("\r")
            text[(codes == ord(",")) & ~in_strings & (depths == 1)] = ord("\n")
            start = 0
            if not opened:
                brackets = np.flatnonzero(depths == 1)
                opened, start = len(brackets) > 0, int(brackets[0]) + 1 if len(brackets) else len(text)
            ends = np.flatnonzero((depths == 0) & (nesting == -1))
            closed, end = len(ends) > 0, int(ends[0]) if len(ends) else len(text)
            inside = text[start:end].tobytes()
            filled = filled or bool(inside.replace(b"\n", b",").strip())
            if filled:
                yield inside + b"\n" if closed else inside
            block = block[end + 1 :]
        if closed and (block + held).strip():
            raise RecordError(Stage.READ, RejectReason.INVALID_JSON, "something follows the JSON array")
    yield held
    if not closed:
        raise RecordError(Stage.READ, RejectReason.TRUNCATED_FILE, "the JSON array is not closed")


def _cut_parquet(stream: BinaryIO, source: SourceFile, spool: Spool, size: ChunkSize) -> Iterator[Chunk]:
    try:
        file = _open_parquet(stream)
    except _UNREADABLE as error:
        if _may_pass(error):
            raise
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

    def bad_rows(rows: int, reason: RejectReason, what: str) -> Chunk:
        message = f"rows {first_position} to {first_position + rows - 1}: {what}"
        reject = Reject.of(RecordError(Stage.READ, reason, message), source.path, first_position, None)
        return replace(chunk(rows, rejects=(reject,)), container=Container.LINES)

    for index in range(file.num_row_groups):
        metadata = file.metadata.row_group(index)
        fault = _fault(file, index)
        in_place = metadata.total_byte_size <= 2 * size.bytes and metadata.num_rows <= size.records and not fault
        fits = filled + metadata.total_byte_size <= 2 * size.bytes and rows + metadata.num_rows <= size.records
        if group and not (in_place and fits):
            yield chunk(rows, row_groups=tuple(group))
            number, first_position, group, rows, filled = number + 1, first_position + rows, [], 0, 0
        if in_place:
            group.append(index)
            rows += metadata.num_rows
            filled += metadata.total_byte_size
            continue
        if fault:
            yield bad_rows(metadata.num_rows, *fault)
            number, first_position = number + 1, first_position + metadata.num_rows
            continue
        slice_rows = max(1, min(size.records, metadata.num_rows * size.bytes // max(metadata.total_byte_size, 1)))
        read = 0
        try:
            for batch in file.iter_batches(batch_size=slice_rows, row_groups=[index]):
                sink = pa.BufferOutputStream()
                pq.write_table(pa.Table.from_batches([batch]), sink, compression="zstd")
                yield spool.write(chunk(batch.num_rows, row_groups=(0,)), bytes(sink.getvalue()))
                number, first_position, read = number + 1, first_position + batch.num_rows, read + batch.num_rows
        except _UNREADABLE as error:
            if _may_pass(error):
                raise
            yield bad_rows(metadata.num_rows - read, RejectReason.CORRUPT_FILE, str(error))
            number, first_position = number + 1, first_position + metadata.num_rows - read
    if group:
        yield chunk(rows, row_groups=tuple(group))


_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, RuntimeError)
"""What pyarrow raises for a file that is damaged; an `OSError` of the storage among these is told by `_may_pass`."""


def _open_parquet(stream: BinaryIO) -> pq.ParquetFile:
    """The file, its strings to be read as numbers into a list of the distinct ones: what repeats is held once."""
    metadata = pq.ParquetFile(stream).metadata
    columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    stream.seek(0)
    strings = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(stream, metadata=metadata, read_dictionary=strings)


def _fault(file: pq.ParquetFile, index: int) -> tuple[RejectReason, str] | None:
    """Why a row group must not be read: its metadata are damaged, or it expands far beyond its compressed bytes."""
    metadata = file.metadata.row_group(index)
    if not metadata.num_columns:
        return None
    try:
        # Reads nothing. Where a column's metadata contradict themselves this raises; asked for them as below, pyarrow
        # ends the process.
        list(file.reader.iter_batches(0, row_groups=[index], column_indices=None, use_threads=False))
    except _UNREADABLE as error:
        return RejectReason.CORRUPT_FILE, str(error)
    columns = [metadata.column(index) for index in range(metadata.num_columns)]
    compressed = sum(column.total_compressed_size for column in columns)
    expanded = sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in columns)
    if expanded <= (64 << 20) + _EXPANSION * compressed:
        return None
    return RejectReason.RECORD_TOO_LARGE, f"{compressed:,} bytes expand to {expanded:,}"


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
    position = start = chunk.first_position
    expanded = 0
    with storage.open_file(chunk.path) as stream:
        try:
            file = _open_parquet(stream)
        except _UNREADABLE as error:
            yield position, {}, _corrupt("the rows from here to the end of the unit of work", error)
            return
        # One at a time: pyarrow cannot put nested values out of several row groups into one batch.
        for index in chunk.row_groups:
            position = start
            start += file.metadata.row_group(index).num_rows
            try:
                for batch in file.iter_batches(batch_size=1_000, row_groups=[index]):
                    for rows, size in _runs(batch):
                        expanded += size
                        for row, fault in _rows(rows, size, expanded):
                            yield position, row, fault
                            position += 1
                if position < start:
                    raise ValueError("its pages have fewer rows than the file's footer says")
            # Each has bytes of its own: the damage of one says nothing of the next.
            except _UNREADABLE as error:
                yield position, {}, _corrupt("the rows from here to the end of the row group", error)


def _corrupt(what: str, error: Exception) -> RecordError:
    """Raises `error` itself where it may not be of the file."""
    if _may_pass(error):
        raise error
    return RecordError(Stage.READ, RejectReason.CORRUPT_FILE, f"{what} cannot be read: {error}")


def _runs(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Consecutive rows that expand to `RECORD_LIMIT` bytes at most, or one row, with what they expand to."""
    ends = np.cumsum(_total(batch.columns, batch.num_rows))
    start = done = 0
    while start < batch.num_rows:
        end = max(int(np.searchsorted(ends, done + RECORD_LIMIT, side="right")), start + 1)
        # A slice keeps all values of the lists it is cut from, and they would be converted with it.
        rows = batch if end - start == batch.num_rows else batch.take(pa.array(range(start, end)))
        yield rows, int(ends[end - 1]) - done
        start, done = end, int(ends[end - 1])


def _total(columns: Iterable[pa.Array], rows: int) -> _Sizes:
    total: _Sizes = np.full(rows, 8, np.int64)
    for column in columns:
        total += _expanded(column)
    return total


def _expanded(array: pa.Array) -> _Sizes:
    """Bytes of each element, about: eight, and of strings their text each time they occur."""
    kind = array.type
    if pa.types.is_struct(kind):
        return _total(array.flatten(), len(array))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        inner = _expanded(array.keys) + _expanded(array.items) if pa.types.is_map(kind) else _expanded(array.values)
        ends: _Sizes = np.append(0, np.cumsum(inner))
        return 8 + np.asarray(np.diff(ends[array.offsets.to_numpy()]), np.int64)
    if pa.types.is_dictionary(kind):
        # A null is counted as the first of them; a dictionary of nothing has nulls only.
        lengths: _Sizes = np.append(_expanded(array.dictionary), 8)
        # pyarrow does not look where an index points, and would hand out memory that is not the dictionary's.
        bounds = pc.min_max(array.indices).as_py()
        if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(array.dictionary):
            raise pa.ArrowInvalid(f"a column refers to values beyond the {len(array.dictionary)} of its dictionary")
        return np.asarray(lengths[array.indices.fill_null(0).to_numpy(zero_copy_only=False)], np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return 8 + np.asarray(pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    return np.full(len(array), 8, np.int64)


def _rows(rows: pa.RecordBatch, size: int, expanded: int) -> Iterator[tuple[Mapping[str, Any], RecordError | None]]:
    """These rows, or what is wrong with each. `size`: what they expand to; `expanded`: with all before them."""
    too_large = f"the row expands to {size:,} bytes; the limit is {RECORD_LIMIT:,}" if size > RECORD_LIMIT else None
    if expanded > EXPANDED_LIMIT:
        too_large = f"rows that are read together expand to {expanded:,} bytes; the limit is {EXPANDED_LIMIT:,}"
    if too_large:
        yield from [({}, RecordError(Stage.READ, RejectReason.RECORD_TOO_LARGE, too_large))] * rows.num_rows
        return
    try:
        schema = pa.schema([each.with_type(_plain(each.type)) for each in rows.schema])
        # Unsafe only in that nanoseconds are cut: Python's times have none.
        values = pa.Table.from_batches([rows]).cast(schema, safe=False).to_pylist()
    # Text that is not UTF-8, a time beyond the calendar, a time zone that does not exist: pyarrow has no one class
    # of error for what is no value of Python.
    except Exception as error:
        if rows.num_rows > 1:
            for index in range(rows.num_rows):
                yield from _rows(rows.take(pa.array([index])), 0, 0)
            return
        reason = RejectReason.INVALID_UTF8 if isinstance(error, UnicodeDecodeError) else RejectReason.INVALID_VALUE
        yield {}, RecordError(Stage.READ, reason, f"{type(error).__name__}: {error}")
        return
    yield from ((row, None) for row in values)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type with plain strings for those read as a dictionary, and microseconds for nanoseconds."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_plain(each.type)) for each in kind])
    return kind
