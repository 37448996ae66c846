"""Dialogue ids that occur in several chunks: the first in the order of the input stays, later ones are rejected.

Every chunk leaves the hashes of its ids, sorted. They are compared range by range, so memory does not grow with
the input; an id that several chunks have is noted as excluded for all but the first of them, and those chunks
are no longer finished. Labelling them again rejects the ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.staging import READERS, Staging

RANGE_IDS = 8_000_000
"""Ids that are compared at a time, about."""


def exclude_repeated(staging: Staging, chunk_ids: Sequence[str], id_count: int) -> set[str]:
    """Notes the excluded ids of these finished chunks, given in the order of the input.

    Returns the chunks that must be labelled again; none once every id is in one chunk only.
    """
    ranges = 1 + id_count // RANGE_IDS
    redo: set[str] = set()
    for number in range(ranges):
        first, last = ((2**64 * edge) // ranges for edge in (number, number + 1))
        for chunk_id, ids in _repeated(staging, chunk_ids, first, last - 1).items():
            path = staging.excluded(chunk_id)
            before = set(storage.read_json(path, list[str])) if storage.exists(path) else set()
            staging.write_json(path, sorted(before | ids))
            redo.add(chunk_id)
    # Only now: a run that is killed before this line finds the same ids again.
    storage.delete(staging.result(chunk_id) for chunk_id in redo)
    return redo


def _repeated(staging: Staging, chunk_ids: Sequence[str], first: int, last: int) -> dict[str, set[str]]:
    """By chunk: its ids with a hash from `first` to `last` that an earlier chunk has."""

    def hashes(chunk_id: str) -> npt.NDArray[np.uint64]:
        with storage.open_file(staging.ids(chunk_id)) as stream:
            column = pq.read_table(stream, columns=["hash"])["hash"].to_numpy()
        inside: npt.NDArray[np.uint64] = column[(column >= np.uint64(first)) & (column <= np.uint64(last))]
        return inside

    with ThreadPoolExecutor(READERS) as pool:
        by_chunk = list(pool.map(hashes, chunk_ids))
    values, counts = np.unique(np.concatenate([*by_chunk, np.array([], np.uint64)]), return_counts=True)
    repeated = values[counts > 1]
    seen: set[str] = set()
    later: dict[str, set[str]] = {}
    for chunk_id, mine in zip(chunk_ids, by_chunk, strict=True):
        if not np.isin(mine, repeated).any():
            continue
        # Two ids can have one hash: the ids themselves decide.
        for dialogue_id in _ids(staging, chunk_id, repeated):
            if dialogue_id in seen:
                later.setdefault(chunk_id, set()).add(dialogue_id)
            seen.add(dialogue_id)
    return later


def _ids(staging: Staging, chunk_id: str, hashes: npt.NDArray[np.uint64]) -> Iterable[str]:
    with storage.open_file(staging.ids(chunk_id)) as stream:
        table: pa.Table = pq.read_table(stream)
    yield from table.filter(np.isin(table["hash"].to_numpy(), hashes))["dialogue_id"].to_pylist()
