"""Ids that several chunks have, found with little memory: range by range of their hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines import duplicates, storage
from pipelines.duplicates import exclude_repeated
from pipelines.labelling import IDS_SCHEMA
from pipelines.records import stable_hash
from pipelines.staging import Staging, to_parquet

CHUNKS = {
    "first": [f"d{index}" for index in range(100)],
    "second": [f"d{index}" for index in range(90, 160)],
    "third": [f"e{index}" for index in range(50)],
    "fourth": ["d95", "d150", "e7", "f"],
}


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """Four finished chunks."""
    staging = Staging(str(tmp_path))
    for chunk_id, ids in CHUNKS.items():
        hashes = np.array([stable_hash(each) for each in ids], np.uint64)
        order = np.argsort(hashes)
        table = pa.table([hashes[order], [ids[index] for index in order]], schema=IDS_SCHEMA)
        staging.write_bytes(staging.ids(chunk_id), to_parquet(table))
        staging.write_json(staging.result(chunk_id), {})
    return staging


@pytest.mark.parametrize("range_ids", [7, 100, 1000])
def test_the_first_chunk_in_the_order_of_the_input_keeps_an_id(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, range_ids: int
) -> None:
    monkeypatch.setattr(duplicates, "RANGE_IDS", range_ids)
    count = sum(len(ids) for ids in CHUNKS.values())
    assert exclude_repeated(staging, list(CHUNKS), count) == {"second", "fourth"}
    excluded = {each: storage.read_json(staging.excluded(each), list[str]) for each in ("second", "fourth")}
    assert excluded == {"second": sorted(f"d{index}" for index in range(90, 100)), "fourth": ["d150", "d95", "e7"]}
    assert staging.finished() == {"first", "third"}


def test_two_ids_of_one_hash_are_two(staging: Staging) -> None:
    for chunk_id, name in (("first", "one"), ("second", "another")):
        table = pa.table([np.array([2**64 - 1], np.uint64), [name]], schema=IDS_SCHEMA)
        staging.write_bytes(staging.ids(chunk_id), to_parquet(table))
    assert not exclude_repeated(staging, ["first", "second"], 2)
    assert {"first", "second"} <= staging.finished()
