"""Turn events into dialogues: the one step that needs a shuffle.

The payload of the shuffle stays on storage. `partition` reads a chunk of events and leaves one file in which the
events of each bucket of sessions lie together, one zstd frame a bucket; only the frames' places go through the
engine. `sessionise` takes all frames of one bucket, so it sees every event of each of its sessions wherever in
the input it was, and leaves dialogues as chunks for the same labelling step as any other format's.

- A session's events are ordered by `started_at`, then by place in the input.
- An event whose `event_id` (or, without one, whose whole content) came earlier in the input is a duplicate.
- A gap of more than the inactivity gap between the starts of two events ends a dialogue. The first dialogue of a
  session has the session's id, the following ones `<session_id>#2`, `#3`, ….

Every event comes out once: as a turn of a dialogue or as a reject.

A bucket that turns out large (a gzip file can hold a thousand times its size) is gone through in several passes, each
of which takes some of its sessions, so that memory stays flat. What a session has over `SESSION_LIMIT` is rejected.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import msgspec
from msgspec import Struct

from pipelines import storage
from pipelines.chunks import Chunk, ChunkSize, Container, SourceFile, Spool, compress, decompress
from pipelines.records import Item, Origin, originals, parse, stable_hash
from pipelines.staging import Staging
from schemas.formats import EventFormat
from schemas.log import Dialogue, Turn, TurnEvent, validate
from schemas.rejects import RecordError, Reject, RejectReason, Stage

PARTITION_FACTOR = 8
"""A chunk of events to partition is this many times a chunk to label: fewer, longer frames."""
SESSION_LIMIT = 64 << 20
"""Bytes of a session's events at most, as they are staged: they are held in memory together."""
_BUCKET_BYTES = 8 << 20
"""Input of a bucket, as it lies on storage."""
_PASS_BYTES = 64 << 20
"""Bytes of the events that one pass over a bucket takes, as they are staged."""
_MOST_BUCKETS = 4_096


class _Entry(Struct, array_like=True):
    """What `partition` leaves of one record: an event, or why there is none."""

    origin: Origin
    event: TurnEvent | None = None
    reject: Reject | None = None


class Frame(Struct, frozen=True, array_like=True):
    """Where the entries of one bucket lie in a partitioned chunk."""

    order: tuple[int, int]
    """Place of the chunk in the input."""
    path: str
    start: int
    size: int
    """Bytes, compressed."""
    expanded: int
    """Bytes, decompressed."""
    entries: int
    source_bytes: int


_Frames = list[tuple[int, Frame]]
"""Of a partitioned chunk: bucket, and where its entries lie."""

_ENTRIES = msgspec.json.Decoder(_Entry)
_ITEMS = msgspec.json.Decoder(Item)


def bucket_count(sources: Sequence[SourceFile]) -> int:
    """Buckets for this input; it follows from the input alone, so a resumed run has the same."""
    return min(_MOST_BUCKETS, 1 + sum(source.size for source in sources) // _BUCKET_BYTES)


def partition(chunk: Chunk, log_format: EventFormat, buckets: int, staging: Staging) -> _Frames:
    """Leaves the chunk's events by bucket in one file in staging, and says where each bucket's are.

    Done again when it has deleted the chunk's spool, it says what it said then.
    """
    path = storage.join(staging.events, chunk.id)
    said = f"{path}.json"
    # While there is a spool the events are left anew: a crash of the machine may have damaged those of an earlier run.
    if chunk.spooled and not storage.exists(chunk.path) and storage.exists(said):
        return storage.read_json(said, _Frames)
    entries: dict[int, list[bytes]] = {}
    for reject in chunk.rejects:
        origin = Origin(reject.source, chunk.order[0], reject.position, reject.raw)
        _add(entries, _Entry(origin, reject=reject), chunk.id, buckets)
    for origin, record, error in originals(chunk):
        try:
            if error is not None:
                raise error
            event = parse(log_format, log_format.parse_event, record)
            _add(entries, _Entry(origin, event), event.session_id, buckets)
        except RecordError as bad:
            _add(entries, _Entry(origin, reject=origin.reject(bad)), chunk.id, buckets)
    content = bytearray()
    frames: _Frames = []
    for bucket, lines in sorted(entries.items()):
        text = b"\n".join(lines)
        frame = compress(text)
        share = chunk.source_bytes * len(lines) // sum(map(len, entries.values()))
        frames.append((bucket, Frame(chunk.order, path, len(content), len(frame), len(text), len(lines), share)))
        content += frame
    staging.write_bytes(path, bytes(content))
    if chunk.spooled:
        staging.write_json(said, frames)
        storage.delete([chunk.path])
    return frames


def sessionise(
    bucket: int, frames: Iterable[Frame], gap: dt.timedelta, spool: Spool, size: ChunkSize
) -> Iterator[Chunk]:
    """The dialogues and rejects of a bucket, as chunks whose spool `read_sessions` reads."""
    ordered = sorted(frames, key=lambda frame: frame.order)
    count = sum(frame.entries for frame in ordered)
    source_bytes = sum(frame.source_bytes for frame in ordered)
    passes = 1 + sum(frame.expanded for frame in ordered) // _PASS_BYTES
    lines: list[bytes] = []
    filled = turns = number = 0

    def chunk() -> Chunk:
        name = f"sessions-{bucket:05d}-{number:05d}"
        share = source_bytes * turns // count
        made = Chunk(name, (bucket, number), name, Container.SESSIONS, path=name, source_bytes=share)
        return spool.write(made, compress(b"\n".join(lines)))

    for item in (item for part in range(passes) for item in _items(_entries(ordered, part, passes), gap)):
        line = msgspec.json.encode(item)
        lines.append(line)
        filled += len(line)
        turns += len(item.origins)
        if filled >= size.bytes or turns >= size.records:
            yield chunk()
            lines, filled, turns, number = [], 0, 0, number + 1
    if lines:
        yield chunk()


def read_sessions(chunk: Chunk) -> Iterator[Item]:
    """What `sessionise` left for a chunk."""
    for line in decompress(storage.read_bytes(chunk.path)).split(b"\n"):
        yield _ITEMS.decode(line)


def _add(entries: dict[int, list[bytes]], entry: _Entry, key: str, buckets: int) -> None:
    entries.setdefault(stable_hash(key) % buckets, []).append(msgspec.json.encode(entry))


def _entries(frames: Iterable[Frame], part: int, passes: int) -> Iterator[tuple[_Entry, int]]:
    """The entries of one pass with their bytes, in the order of the input."""
    for frame in frames:
        with storage.open_file(frame.path) as stream:
            stream.seek(frame.start)
            content = stream.read(frame.size)
        entries = [(_ENTRIES.decode(line), len(line)) for line in decompress(content).split(b"\n")]
        entries.sort(key=lambda each: each[0].origin.position)
        for entry, size in entries:
            # Not the hash itself: all of a bucket have the same remainder of it.
            key = entry.event.session_id if entry.event is not None else ""
            if stable_hash(f"pass {key}") % passes == part:
                yield entry, size


def _items(entries: Iterable[tuple[_Entry, int]], gap: dt.timedelta) -> Iterator[Item]:
    """`entries` come in the order of the input."""
    events: list[tuple[TurnEvent, Origin]] = []
    seen: set[tuple[str, str | bytes]] = set()
    sizes: Counter[str] = Counter()
    for entry, size in entries:
        if entry.event is None:
            yield Item([entry.origin], reject=entry.reject)
            continue
        event = entry.event
        identity = event.event_id if event.event_id is not None else msgspec.json.encode(event)
        if (event.session_id, identity) in seen:
            what = "an event with this id" if event.event_id is not None else "the same event"
            error = RecordError(
                Stage.SESSIONISE, RejectReason.DUPLICATE_EVENT, f"{what} of the session came earlier in the input"
            )
            yield Item([entry.origin], reject=entry.origin.reject(error))
            continue
        sizes[event.session_id] += size
        if sizes[event.session_id] > SESSION_LIMIT:
            message = f"the session has more than {SESSION_LIMIT:,} bytes of events before this one"
            error = RecordError(Stage.SESSIONISE, RejectReason.RECORD_TOO_LARGE, message)
            yield Item([entry.origin], reject=entry.origin.reject(error))
            continue
        seen.add((event.session_id, identity))
        events.append((event, entry.origin))
    # Stable: events of one time stay in the order of the input.
    events.sort(key=lambda each: (each[0].session_id, each[0].started_at))
    for _, session in groupby(events, key=lambda each: each[0].session_id):
        for number, part in enumerate(_split(list(session), gap), start=1):
            yield from _dialogue(part, number)


def _split(session: list[tuple[TurnEvent, Origin]], gap: dt.timedelta) -> Iterator[list[tuple[TurnEvent, Origin]]]:
    ends = [
        index
        for index, (before, after) in enumerate(pairwise(session), start=1)
        if after[0].started_at - before[0].started_at > gap
    ]
    for start, end in pairwise([0, *ends, len(session)]):
        yield session[start:end]


def _dialogue(part: list[tuple[TurnEvent, Origin]], number: int) -> Iterator[Item]:
    events = [event for event, _ in part]
    origins = [origin for _, origin in part]
    session_id = events[0].session_id
    dialogue = Dialogue(
        dialogue_id=session_id if number == 1 else f"{session_id}#{number}",
        turns=[Turn(**{name: getattr(event, name) for name in Turn.__struct_fields__}) for event in events],
        locale=next((event.locale for event in events if event.locale is not None), None),
        device=next((event.device for event in events if event.device is not None), None),
        user_id=next((event.user_id for event in events if event.user_id is not None), None),
    )
    try:
        yield Item(origins, dialogue=validate(dialogue))
    except RecordError as error:
        for origin in origins:
            yield Item([origin], reject=origin.reject(error))
