"""Dialogue ids that occur in several chunks: the first in the order of the input stays, later ones are rejected.

Every chunk leaves the hashes of its ids, sorted. They are read once, put into temporary files, one for each range of
hashes, and compared range by range, so memory does not grow with the input. An id that several chunks have is noted as
excluded for all but the first of them, and those chunks are no longer finished. Labelling them again rejects the ids.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.staging import READERS, Staging

RANGE_IDS = 8_000_000
"""Ids that are compared at a time, about."""
_ENTRY = np.dtype([("hash", np.uint64), ("chunk", np.uint32)])
"""An id's hash, and which of the chunks has it."""


def exclude_repeated(staging: Staging, chunk_ids: Sequence[str], id_count: int) -> set[str]:
    """Notes the excluded ids of these finished chunks, given in the order of the input.

    Returns the chunks that must be labelled again; none once every id is in one chunk only.
    """
    ranges = 1 + id_count // RANGE_IDS
    redo: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="faultline-ids-") as folder:
        files = [Path(folder) / str(number) for number in range(ranges)]
        _sort_out(staging, chunk_ids, files)
        for file in files:
            for chunk_id, ids in _repeated(staging, chunk_ids, np.fromfile(file, _ENTRY)).items():
                path = staging.excluded(chunk_id)
                before = set(storage.read_json(path, list[str])) if storage.exists(path) else set()
                staging.write_json(path, sorted(before | ids))
                redo.add(chunk_id)
    # Only now: a run that is killed before this line finds the same ids again.
    storage.delete(staging.result(chunk_id) for chunk_id in redo)
    return redo


def _sort_out(staging: Staging, chunk_ids: Sequence[str], files: Sequence[Path]) -> None:
    """Puts the hashes of all ids into these files, into each those of its range."""
    edges = np.array([(2**64 * edge) // len(files) for edge in range(1, len(files))], np.uint64)

    def entries(number: int) -> npt.NDArray[np.void]:
        with storage.open_file(staging.ids(chunk_ids[number])) as stream:
            hashes = pq.read_table(stream, columns=["hash"])["hash"].to_numpy()
        of_chunk = np.empty(len(hashes), _ENTRY)
        of_chunk["hash"], of_chunk["chunk"] = hashes, number
        return of_chunk

    with ExitStack() as stack, ThreadPoolExecutor(READERS) as pool:
        streams = [stack.enter_context(file.open("wb")) for file in files]
        for of_chunk in pool.map(entries, range(len(chunk_ids))):
            parts = np.split(of_chunk, np.searchsorted(of_chunk["hash"], edges))
            for stream, part in zip(streams, parts, strict=True):
                stream.write(part.tobytes())


def _repeated(staging: Staging, chunk_ids: Sequence[str], entries: npt.NDArray[np.void]) -> dict[str, set[str]]:
    """By chunk: its ids among these that an earlier chunk has."""
    values, counts = np.unique(entries["hash"], return_counts=True)
    repeated = values[counts > 1]
    seen: set[str] = set()
    later: dict[str, set[str]] = {}
    for number in np.unique(entries["chunk"][np.isin(entries["hash"], repeated)]):
        # Two ids can have one hash: the ids themselves decide.
        for dialogue_id in _ids(staging, chunk_ids[number], repeated):
            if dialogue_id in seen:
                later.setdefault(chunk_ids[number], set()).add(dialogue_id)
            seen.add(dialogue_id)
    return later


def _ids(staging: Staging, chunk_id: str, hashes: npt.NDArray[np.uint64]) -> Iterable[str]:
    with storage.open_file(staging.ids(chunk_id)) as stream:
        table: pa.Table = pq.read_table(stream)
    yield from table.filter(np.isin(table["hash"].to_numpy(), hashes))["dialogue_id"].to_pylist()
