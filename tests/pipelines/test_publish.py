"""What readers of an output find while runs are published in it."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines import publish
from schemas.labels import TABLES

OLD = ["old-1", "old-2", "old-3"]
NEW = ["new-1", "new-2"]


def read(output: Path, table: str, connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The first column, read as an analyst reads it; once more if a file has gone since it was listed, or the folder
    while it was."""
    while True:
        try:
            files = f"{output}/{table}/**/*.parquet"
            found = connection.execute(f"SELECT COLUMNS(*) FROM read_parquet('{files}') ORDER BY 1").fetchall()
        except duckdb.IOException as error:
            assert "No such file" in str(error) or "No files found" in str(error)
            continue
        return [row[0] for row in found]


def test_a_reader_always_finds_a_tables_old_rows_or_its_new_ones(tmp_path: Path, stage: Any) -> None:
    publish.publish(str(tmp_path), *stage(str(tmp_path), "first", OLD), {})
    stop = threading.Event()

    def read_on() -> list[tuple[str, list[str]]]:
        found = []
        with duckdb.connect() as connection:
            while not stop.is_set():
                found += [(table, read(tmp_path, table, connection)) for table in TABLES]
        return found

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        for number in range(100):
            run = stage(str(tmp_path), f"run-{number}", OLD if number % 2 else NEW)
            publish.publish(str(tmp_path), *run, {})
        stop.set()
        found = reading.result()
    assert [each for each in found if each[1] not in (OLD, NEW)] == []
    assert {(table, tuple(rows)) for table, rows in found} == {
        (table, tuple(rows)) for table in TABLES for rows in (OLD, NEW)
    }


def test_a_reader_that_goes_through_the_dates_does_not_miss_a_new_one(tmp_path: Path, stage: Any) -> None:
    output, folder = str(tmp_path), tmp_path / "turns" / "dataset"
    publish.publish(output, *stage(output, "first", ["old"], ["2024-05-01", "2024-05-02"]), {})
    staging, manifest = stage(output, "second", ["new"], ["2024-05-02", "2024-05-03"])
    publish.prepare(output, manifest)
    dates = sorted(each.name for each in folder.iterdir())
    publish.publish(output, staging, manifest, {})
    found = [part.parent.name for date in dates for part in (folder / date).glob("*.parquet")]
    assert found == ["date=2024-05-02", "date=2024-05-03"]


def test_the_rows_are_replaced_where_the_system_cannot_exchange_folders(
    tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    for run, names in (("first", OLD), ("second", NEW)):
        publish.publish(str(tmp_path), *stage(str(tmp_path), run, names), {})
    with duckdb.connect() as connection:
        assert all(read(tmp_path, table, connection) == NEW for table in TABLES)


def test_of_a_damaged_journal_the_next_run_says_what_to_do(tmp_path: Path, stage: Any) -> None:
    publish.publish(str(tmp_path), *stage(str(tmp_path), "first", OLD), {})
    journal = tmp_path / "_staging" / "dataset" / "publishing.json"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"staging": ')
    (said,) = publish.complete_interrupted(str(tmp_path))
    assert f"{journal} was damaged" in said
    assert "label that input again" in said
    assert publish.complete_interrupted(str(tmp_path)) == []
