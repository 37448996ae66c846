"""The job on a file system without folders, of which a file appears when it is closed: as `gs://` and `s3://` are."""

from __future__ import annotations

import gzip
import io
import json
import posixpath
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem

from pipelines import storage
from pipelines.errors import UserError
from pipelines.label import run
from pipelines.labelled import Labelled

OBJECTS: dict[str, tuple[bytes, float]] = {}


class _Upload(io.BytesIO):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def close(self) -> None:
        if not self.closed:
            OBJECTS[self.path] = (self.getvalue(), time.time())
        super().close()


class MemoryStore(FileSystem):  # type: ignore[misc]
    """`memory://…`: Beam finds it as it finds every subclass of FileSystem."""

    @classmethod
    def scheme(cls) -> str:
        return "memory"

    def join(self, basepath: str, *paths: str) -> str:
        return posixpath.join(basepath, *paths)

    def split(self, path: str) -> tuple[str, str]:
        return posixpath.split(path)

    def mkdirs(self, path: str) -> None:
        raise AssertionError("an object store has no folders")

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(OBJECTS):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path: str, mime_type: str = "", compression_type: str = "") -> io.BytesIO:
        return _Upload(path)

    def open(self, path: str, mime_type: str = "", compression_type: str = "") -> io.BytesIO:
        return io.BytesIO(self._found(path)[0])

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            OBJECTS[destination] = self._found(source)

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path: str) -> bool:
        return path in OBJECTS

    def size(self, path: str) -> int:
        return len(self._found(path)[0])

    def last_updated(self, path: str) -> float:
        return self._found(path)[1]

    def checksum(self, path: str) -> str:
        return str(hash(self._found(path)[0]))

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, self.size(path), self.last_updated(path))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            self._found(path)
            del OBJECTS[path]

    def _found(self, path: str) -> tuple[bytes, float]:
        if path not in OBJECTS:
            raise FileNotFoundError(path)
        return OBJECTS[path]


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    yield
    OBJECTS.clear()


def put(path: str, records: list[Any]) -> None:
    OBJECTS[path] = (gzip.compress("\n".join(map(json.dumps, records)).encode()), time.time())


def ids() -> list[str]:
    paths = [path for path in storage.list_files("memory://out/dialogues") if path.endswith(".parquet")]
    return sorted(name for path in paths for name in pq.read_table(storage.open_file(path))["dialogue_id"].to_pylist())


def test_input_output_and_staging_may_lie_on_an_object_store(tmp_path: Path, tiny_model_dir: Path) -> None:
    options = ["--model", str(tiny_model_dir), "--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command = ["--input", "memory://logs/*.gz", "--output", "memory://out", "--no-progress", *options]
    log = [{"dialogue_id": name, "turns": [{"text": "stop"}]} for name in "abcb"]
    put("memory://logs/1.gz", log)
    put("memory://logs/2.gz", [*log[:1], {"dialogue_id": "d"}])
    summary = run([*command, "--chunk-bytes", "100"])
    assert summary is not None
    assert summary.rejected == {"duplicate_id": 2, "missing_field": 1}
    assert ids() == ["a", "b", "c"]

    put("memory://logs/1.gz", log[2:])
    del OBJECTS["memory://logs/2.gz"]
    run(command)
    assert ids() == ["b", "c"]
    assert not [path for path in OBJECTS if "_staging" in path]
    with Labelled.open("memory://out") as labelled:
        said = labelled.connection.execute("SELECT dialogue_id, text FROM turns ORDER BY ALL").fetchall()
        assert said == [("b", "stop"), ("c", "stop")]


def test_an_output_there_needs_a_tracking_store_of_its_own(tiny_model_dir: Path) -> None:
    put("memory://logs/1.gz", [])
    with pytest.raises(UserError, match="--mlflow-tracking-uri"):
        run(["--input", "memory://logs/1.gz", "--output", "memory://out", "--model", str(tiny_model_dir)])
