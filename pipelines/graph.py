"""The Beam graphs of `faultline label`: the second one is run where the launcher alone would validate for long.

```
files ─ Cut ──────────────────────────────────────────────── Spread ─ Label
           └ SpreadEvents ─ Partition ─ ByBucket ─ Sessionise ┘    (formats of single turns)

shares of what was labelled ─ SpreadShares ─ Examine
```
Elements are small descriptions: what they describe lies in staging. Nothing comes out: each step leaves what it
did in staging, from where the launcher reads it on any engine, also after a crash.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam

from pipelines import sessions, storage
from pipelines.chunks import Chunk, SourceFile, cut, first_records
from pipelines.labelling import label_chunk
from pipelines.plan import Plan, Work
from pipelines.sessions import PARTITION_FACTOR, Frame, bucket_count
from pipelines.staging import Staging
from pipelines.validation import examine
from schemas.formats import EventFormat, get_format


class CutFiles(beam.DoFn):  # type: ignore[misc]
    """Files → their chunks. With a limit, all files are one element: only one reader can count across them."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def process(self, files: Sequence[SourceFile]) -> Iterator[Chunk]:
        work = self.work
        is_events = isinstance(get_format(work.input_format), EventFormat)
        size = work.chunk_size.times(PARTITION_FACTOR) if is_events else work.chunk_size
        # Chunks that are read here or on the way to another step need their spool whether finished or not.
        spool = work.staging.spool(rewrite=is_events or work.limit is not None)
        chunks: Iterator[Chunk] = (chunk for source in files for chunk in cut(source, spool, size))
        if work.limit is not None:
            chunks = first_records(chunks, work.limit)
        count = 0
        for chunk in chunks:
            count += 1
            yield chunk
        work.staging.tally("cut", files[0].key, files=len(files), chunks=count)


class PartitionEvents(beam.DoFn):  # type: ignore[misc]
    """A chunk of events → (bucket, where its events lie)."""

    def __init__(self, work: Work, buckets: int) -> None:
        self.work = work
        self.buckets = buckets

    def process(self, chunk: Chunk) -> Iterator[tuple[int, Frame]]:
        log_format = get_format(self.work.input_format)
        assert isinstance(log_format, EventFormat)
        frames = sessions.partition(chunk, log_format, self.buckets, self.work.staging)
        self.work.staging.tally("partition", chunk.id, chunks=1, entries=sum(frame.entries for _, frame in frames))
        yield from frames


class Sessionise(beam.DoFn):  # type: ignore[misc]
    """(bucket, where its events lie) → chunks of dialogues."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def process(self, element: tuple[int, Iterable[Frame]]) -> Iterator[Chunk]:
        bucket, frames = element[0], list(element[1])
        work = self.work
        count = 0
        gap = dt.timedelta(minutes=work.session_gap_minutes)
        for chunk in sessions.sessionise(bucket, frames, gap, work.staging.spool(), work.chunk_size):
            count += 1
            yield chunk
        work.staging.tally("sessionise", f"{bucket:05d}", entries=sum(frame.entries for frame in frames), chunks=count)


class LabelChunk(beam.DoFn):  # type: ignore[misc]
    """A chunk → its id, once its parts and its result lie in staging."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def process(self, chunk: Chunk) -> Iterator[str]:
        label_chunk(chunk, self.work)
        yield chunk.id


class ExamineShare(beam.DoFn):  # type: ignore[misc]
    """The number of a share → the same, once what was found in its parts lies in staging."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging

    def process(self, number: int) -> Iterator[int]:
        parts = storage.read_json(self.staging.share(number), dict[str, list[str]])
        self.staging.write_json(self.staging.found(number), examine(parts))
        yield number


def build(pipeline: beam.Pipeline, plan: Plan) -> beam.PCollection:
    """Adds the graph to a pipeline; gives the ids of the chunks."""
    work = plan.work
    groups = [(source,) for source in plan.sources] if work.limit is None else [plan.sources]
    chunks = pipeline | "Files" >> beam.Create(groups) | "Cut" >> beam.ParDo(CutFiles(work))
    if isinstance(get_format(work.input_format), EventFormat):
        chunks = (
            chunks
            | "SpreadEvents" >> beam.Reshuffle()
            | "Partition" >> beam.ParDo(PartitionEvents(work, bucket_count(plan.sources)))
            | "ByBucket" >> beam.GroupByKey()
            | "Sessionise" >> beam.ParDo(Sessionise(work))
        )
    return chunks | "Spread" >> beam.Reshuffle() | "Label" >> beam.ParDo(LabelChunk(work))


def build_validation(pipeline: beam.Pipeline, staging: Staging, shares: int) -> beam.PCollection:
    """Adds the graph that validates so many shares to a pipeline; gives their numbers."""
    return (
        pipeline
        | "Shares" >> beam.Create(range(shares))
        | "SpreadShares" >> beam.Reshuffle()
        | "Examine" >> beam.ParDo(ExamineShare(staging))
    )
