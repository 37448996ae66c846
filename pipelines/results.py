"""What a run counts: one `ChunkResult` a chunk, added up to one `RunSummary` a run. Both are JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

HISTOGRAM_BINS = 20
"""Bins of equal width over the probabilities from 0 to 1; the last one includes 1."""
INTENTS_KEPT = 200
"""Intents that a chunk's result counts one by one, most frequent first; the rest is under `OTHER_INTENTS`."""
OTHER_INTENTS = "(other)"

_CONFIDENCES = {
    "turns": ("intent_confidence", "failure_point_confidence", "defect_probability"),
    "goals": ("success_confidence",),
}


class Part(Struct, frozen=True):
    """One Parquet file of a table."""

    table: str
    path: str
    """Below the table's folder, e.g. `date=2024-05-01/part-….parquet`."""
    rows: int
    bytes: int
    sha256: str


class Counts(Struct, kw_only=True):
    """What is counted of a chunk, and added up over a run."""

    records: int = 0
    """Records of the input: lines, rows, elements; a file that cannot be read counts as one."""
    dialogues: int = 0
    turns: int = 0
    goals: int = 0
    failure_points: dict[str, int] = {}
    """Turns by failure point."""
    unreached_goals: int = 0
    rejected: dict[str, int] = {}
    """Rows of the `rejected` table by reason."""
    abstained: dict[str, int] = {}
    """Turns by label that abstained."""
    shortened_turns: int = 0
    """Turns of which a text was too long to be read whole."""
    intents: dict[str, int] = {}
    """Turns by intent."""
    confidence: dict[str, list[int]] = {}
    """Rows by probability, in `HISTOGRAM_BINS` bins, for each `<table>.<column>`."""
    source_bytes: int = 0
    """Bytes of the input files, as they lie there."""
    seconds: dict[str, float] = {}
    """Seconds of work by step, added up over all workers."""

    @property
    def rejected_rows(self) -> int:
        return sum(self.rejected.values())


class ChunkResult(Struct, kw_only=True):
    """What came of one chunk. Its being there says that the chunk is finished."""

    chunk: str
    order: tuple[int, int]
    counts: Counts
    parts: list[Part]
    """Of the output tables and of the profile of the logs."""


class RunSummary(Counts, kw_only=True):
    """What came of a run."""

    run_id: str
    dataset: str
    """Digest of the input patterns and the format: the folder of this input's parts in each table."""
    output: str
    input_format: str
    model_uri: str
    model_version: str
    chunks: int
    wall_seconds: float
    """Of the last try; a resumed run had others before it."""
    turns_per_second: float
    """Turns that the last try labelled itself, by its seconds."""


def count(tables: Mapping[str, pa.Table]) -> Counts:
    """The counts that follow from a chunk's rows of each table."""
    turns, goals = tables["turns"], tables["goals"]
    intents = Counter(_values(turns["intent"].drop_null()))
    kept = dict(intents.most_common(INTENTS_KEPT))
    if len(intents) > len(kept):
        kept[OTHER_INTENTS] = sum(intents.values()) - sum(kept.values())
    return Counts(
        dialogues=tables["dialogues"].num_rows,
        turns=turns.num_rows,
        goals=goals.num_rows,
        failure_points=_values(turns["failure_point"]),
        unreached_goals=goals.num_rows - (pc.sum(goals["success"]).as_py() or 0),
        rejected=_values(tables["rejected"]["reason"]),
        abstained=_values(pc.list_flatten(turns["abstained"])),
        intents=kept,
        confidence={
            f"{table}.{column}": np.histogram(
                tables[table][column].drop_null().to_numpy(), bins=HISTOGRAM_BINS, range=(0, 1)
            )[0].tolist()
            for table, columns in _CONFIDENCES.items()
            for column in columns
        },
    )


def add(results: Iterable[Counts]) -> Counts:
    """The sum of these counts."""
    total = Counts()
    for each in results:
        for name in Counts.__struct_fields__:
            before, more = getattr(total, name), getattr(each, name)
            setattr(total, name, _merge(before, more) if isinstance(more, dict) else before + more)
    return total


def parts_by_table(results: Iterable[ChunkResult]) -> dict[str, list[Part]]:
    """Every part of a run, by table, in the order of the input."""
    parts: dict[str, list[Part]] = {}
    for result in sorted(results, key=lambda each: (each.order, each.chunk)):
        for part in result.parts:
            parts.setdefault(part.table, []).append(part)
    return parts


def shares(results: Iterable[ChunkResult], rows: int) -> Iterator[list[ChunkResult]]:
    """The same results, some that follow each other at a time: as few as have `rows` turns and rejects together."""
    share: list[ChunkResult] = []
    count = 0
    for result in results:
        share.append(result)
        count += result.counts.turns + result.counts.rejected_rows
        if count >= rows:
            yield share
            share, count = [], 0
    if share:
        yield share


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in pc.value_counts(column).to_pylist()}


def _merge(before: dict[str, object], more: dict[str, object]) -> dict[str, object]:
    merged = dict(before)
    for key, value in more.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, Sequence):
            merged[key] = [a + b for a, b in zip(merged[key], value, strict=True)]  # type: ignore[call-overload]
        else:
            merged[key] += value  # type: ignore[operator]
    return merged
