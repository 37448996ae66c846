"""The folder in which a run works until it is published: OUTPUT/_staging/<dataset>/<run>.

```
tables/<table>/part-<run>-<chunk>.parquet   the parts of the output tables, and of the profile of the logs
results/<chunk>.json                  written last: the chunk is finished
ids/<chunk>.parquet                   the dialogue ids of a chunk, by hash
excluded/<chunk>.json                 dialogue ids that an earlier chunk has
spool/<chunk>, events/<chunk>         records on their way to a later step
events/<chunk>.json                   where in it the events of each bucket are
tallies/<step>/<id>.json              what each step handed on, to prove that nothing was lost between steps
shares/<number>.json, findings/<number>.json   parts that one worker validates, and what it found
tmp/                                  files being written
```
Readers of OUTPUT/turns/**/*.parquet and the like see nothing of it.

No two runs have a part of the same name. Who has listed the parts of one run can therefore never open another's in
their place: once they are replaced they cannot be found, and listing again helps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.chunks import Spool
from pipelines.results import ChunkResult, Part

FOLDER = "_staging"
LOGS = "logs"
"""The profile of the incoming logs: staged beside the output tables, validated, not published."""

READERS = 16
"""Files read at a time: an object store takes a while to answer for each."""

NO_DATE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive calls the partition of rows without a value."""
PARTITIONED = ("turns", "goals", "dialogues")
"""The tables that can be partitioned by date."""

T = TypeVar("T")


@dataclass(frozen=True)
class Staging:
    """The files of one run in progress."""

    folder: str

    @property
    def temporary(self) -> str:
        return storage.join(self.folder, "tmp")

    @property
    def events(self) -> str:
        return storage.join(self.folder, "events")

    def table(self, name: str) -> str:
        return storage.join(self.folder, "tables", name)

    def part(self, part: Part) -> str:
        return storage.join(self.table(part.table), part.path)

    def ids(self, chunk_id: str) -> str:
        return storage.join(self.folder, "ids", f"{chunk_id}.parquet")

    def excluded(self, chunk_id: str) -> str:
        return storage.join(self.folder, "excluded", f"{chunk_id}.json")

    def result(self, chunk_id: str) -> str:
        return storage.join(self.folder, "results", f"{chunk_id}.json")

    @property
    def findings(self) -> str:
        return storage.join(self.folder, "findings")

    def share(self, number: int) -> str:
        return storage.join(self.folder, "shares", f"{number}.json")

    def found(self, number: int) -> str:
        return storage.join(self.findings, f"{number}.json")

    def write_part(self, name: str, table: str, date: str | None, rows: pa.Table) -> Part:
        """Writes one part of a table; `date` is its partition, None where the table has none."""
        content = to_parquet(rows)
        file = f"part-{PurePosixPath(self.folder).name}-{name}.parquet"
        part = Part(
            table=table,
            path=file if date is None else f"date={date}/{file}",
            rows=rows.num_rows,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        self.write_bytes(self.part(part), content)
        return part

    def is_finished(self, chunk_id: str) -> bool:
        return storage.exists(self.result(chunk_id))

    def finished(self) -> set[str]:
        """The ids of all finished chunks."""
        return {PurePosixPath(path).stem for path in storage.list_files(storage.join(self.folder, "results"))}

    def discard_damaged(self) -> set[str]:
        """Makes chunks unfinished of which something is damaged or missing, as a crash of the machine may leave it.

        Gives their ids.
        """
        sizes = {each.path: each.size_in_bytes for each in storage.match(storage.join(self.folder, "tables", "**"))}

        def is_sound(chunk_id: str) -> bool:
            try:
                result = storage.read_json(self.result(chunk_id), ChunkResult)
                with storage.open_file(self.ids(chunk_id)) as stream:
                    pq.read_metadata(stream)
                if storage.exists(self.excluded(chunk_id)):
                    storage.read_json(self.excluded(chunk_id), list[str])
            except (msgspec.DecodeError, UnicodeDecodeError, pa.ArrowException, FileNotFoundError):
                return False
            return all(sizes.get(self.part(part)) == part.bytes for part in result.parts)

        chunk_ids = sorted(self.finished())
        with ThreadPoolExecutor(READERS) as pool:
            damaged = {each for each, sound in zip(chunk_ids, pool.map(is_sound, chunk_ids), strict=True) if not sound}
        # The excluded ids are found again once all chunks are finished.
        storage.delete([self.excluded(each) for each in damaged])
        storage.delete([self.result(each) for each in damaged])
        return damaged

    def results(self, chunk_ids: Iterable[str]) -> Iterator[ChunkResult]:
        """The results of these chunks, in their order."""
        return read_all([self.result(chunk_id) for chunk_id in chunk_ids], ChunkResult)

    def spool(self, *, rewrite: bool = False) -> Spool:
        """Where spool files go. `rewrite`: also those of finished chunks."""
        is_finished = (lambda chunk_id: False) if rewrite else self.is_finished
        return Spool(storage.join(self.folder, "spool"), self.temporary, is_finished)

    def write_bytes(self, path: str, content: bytes) -> None:
        storage.write_bytes(path, content, temporary=self.temporary)

    def write_json(self, path: str, content: object) -> None:
        storage.write_json(path, content, temporary=self.temporary)

    def tally(self, step: str, name: str, **counts: int) -> None:
        """Notes what `step` handed on for `name`. Done again, it is written again."""
        self.write_json(storage.join(self.folder, "tallies", step, f"{name}.json"), counts)

    def tallied(self, step: str, count: str) -> int:
        """The sum of one count over all that a step noted."""
        paths = storage.list_files(storage.join(self.folder, "tallies", step))
        return sum(each[count] for each in read_all(paths, dict[str, int]))


def to_parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file, zstd."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read_all(paths: list[str], as_type: type[T]) -> Iterator[T]:
    """JSON files, several at a time, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(lambda path: storage.read_json(path, as_type), paths)
