"""From a finished run in staging to the tables that readers see: whole, or not at all.

```
OUTPUT/<table>/<dataset>/[date=…/]part-<run>-<chunk>.parquet
OUTPUT/runs/<dataset>.json    the manifest: input, settings, parts with checksums, summary
OUTPUT/run.json               the same of the last run
OUTPUT/validation.json        what the suites said of the last run
OUTPUT/README.md              the dataset card of the whole output (`pipelines.dataset_card`)
```
A dataset is one set of input patterns in one format: labelling it again replaces its own rows, and another
dataset's rows lie beside them.

A journal is written first, then the parts come into place, and then the manifest names them. A run that is killed in
between is completed by the next run on that output, whichever it is.

- On a disk each table's folder changes places with the former one in one step. As no two runs have a part of the same
  name, a reader that lists a table and then opens what it has listed gets the former rows, the new ones, or, if it was
  overtaken, the error that a file is not there (that there is none, if the folder went while it was listed), and lists
  again.
- On an object store the new parts arrive one by one, and the former ones go once the manifest names the new: there a
  reader that wants all of one run opens the parts that the manifest names.

On a disk one run at a time works on a dataset, and one at a time publishes (`only_run`, `only_publisher`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pipelines import storage
from pipelines.chunks import SourceFile
from pipelines.errors import UserError
from pipelines.results import Part, RunSummary
from pipelines.staging import FOLDER, NO_DATE, PARTITIONED, Staging
from schemas.labels import TABLES

RUN_JSON = "run.json"
VALIDATION_JSON = "validation.json"
_JOURNAL = "publishing.json"


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What a model's own files say of it, by label: empty or None where they say nothing."""

    thresholds: dict[str, float] = {}
    """The confidence, 0 to 1, under which it abstains."""
    calibration: dict[str, dict[str, float]] = {}
    """Measured by its training on the validation part: `coverage` and `precision` (0 to 1) over `questions`."""
    quality: str | None = None
    """Of its MODEL_CARD.md the section Quality, in Markdown."""
    limits: str | None = None
    """Of its MODEL_CARD.md the section Where it is poor, in Markdown."""


class Manifest(Struct, frozen=True, kw_only=True):
    """One published dataset."""

    run_id: str
    dataset: str
    inputs: tuple[str, ...]
    sources: tuple[SourceFile, ...]
    settings: dict[str, Any]
    summary: RunSummary
    parts: tuple[Part, ...]
    model: ModelFacts | None = None
    """None: the run is older than this field."""


class _Journal(Struct, frozen=True):
    """What is being published: everything needed to complete it."""

    staging: str
    manifest: Manifest
    documents: dict[str, str]
    """Text of the documents beside the tables, by path below the output."""


def manifest_text(manifest: Manifest) -> str:
    """What `run.json` holds."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2).decode() + "\n"


def dataset_folder(output: str, dataset: str) -> str:
    """Where the runs of a dataset work."""
    return storage.join(output, FOLDER, dataset)


def published(output: str) -> Iterator[Manifest]:
    """The manifests of all datasets in an output. Raises `UserError` where one is of another version."""
    for path in (each.path for each in storage.match(storage.join(output, "runs", "*.json"))):
        try:
            yield storage.read_json(path, Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} is not a manifest that this version of Faultline reads ({error}): "
                "label the logs into another --output, or remove the old one."
            ) from None


def is_whole(output: str, manifest: Manifest) -> bool:
    """Whether all parts of a published dataset are still there."""
    return all(_is_in_place(output, manifest, table) for table in TABLES)


@contextmanager
def only_run(output: str, dataset: str) -> Iterator[None]:
    """Keeps other runs from working on this dataset.

    Raises `BlockingIOError` where one does, `OSError` or `ValueError` where nothing can be written.
    """
    folder = storage.join(output, FOLDER)
    with storage.locked(storage.join(folder, f"{dataset}.lock"), wait=False):
        probe = storage.join(folder, f"{dataset}.probe")
        storage.write_bytes(probe, b"probe", temporary=folder)
        storage.delete([probe])
        yield


def only_publisher(output: str) -> AbstractContextManager[None]:
    """Waits until nobody else publishes in this output, and keeps others from it.

    Whoever decides by what is published (`published`, `publish`, `complete_interrupted`) holds this.
    """
    return storage.locked(storage.join(output, FOLDER, "publishing.lock"), wait=True)


def prepare(output: str, manifest: Manifest) -> None:
    """Makes the folders of dates that are new in a published dataset, still empty, a while before their rows come.

    A reader that goes through the folders of dates one after the other, while the rows are replaced, would otherwise
    miss the new ones and not know it.
    """
    if not storage.has_folders(output):
        return
    for part in manifest.parts:
        table = Path(_final(output, manifest, part.table))
        if part.table in TABLES and table.is_dir():
            (table / part.path).parent.mkdir(exist_ok=True)


def with_every_table(staging: Staging, manifest: Manifest, *, by_date: bool) -> Manifest:
    """The manifest with a part of each table: of one without rows an empty part, so that a reader finds its columns."""
    parts = list(manifest.parts)
    for table in TABLES.keys() - {part.table for part in parts}:
        date = NO_DATE if by_date and table in PARTITIONED else None
        parts.append(staging.write_part("empty", table, date, TABLES[table].empty_table()))
    return msgspec.structs.replace(manifest, parts=tuple(parts))


def publish(output: str, staging: Staging, manifest: Manifest, documents: Mapping[str, str]) -> None:
    """Moves a finished run's parts to where readers see them, in place of the dataset's former ones.

    `documents` are texts to come with them, by path below the output.
    """
    for table in TABLES:
        # Left by a try that was killed, or by a chunk that was done again with fewer dates.
        named = {staging.part(part) for part in manifest.parts if part.table == table}
        storage.delete(set(storage.list_files(staging.table(table))) - named)
    text = manifest_text(manifest)
    journal = _Journal(
        staging.folder,
        manifest,
        {f"runs/{manifest.dataset}.json": text, RUN_JSON: text, **documents},
    )
    staging.write_json(_journal_path(output, manifest.dataset), journal)
    _complete(output, journal)


def complete_interrupted(output: str) -> list[str]:
    """Completes what killed runs were publishing in this output; says so, in a sentence for each of them."""
    said = []
    for path in storage.list_files(storage.join(output, FOLDER)):
        if not path.endswith(_JOURNAL):
            continue
        try:
            journal = storage.read_json(path, _Journal)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The next run of that input finds parts missing that it had finished, and does these again.
            storage.delete([path])
            said.append(
                f"{path} was damaged, so only a part of what an interrupted run was publishing is there: label that "
                "input again."
            )
            continue
        _complete(output, journal)
        inputs = " ".join(f"--input {pattern}" for pattern in journal.manifest.inputs)
        said.append(f"An earlier run of {inputs} was interrupted while it published; that is now complete.")
    return said


def _journal_path(output: str, dataset: str) -> str:
    return storage.join(dataset_folder(output, dataset), _JOURNAL)


def _final(output: str, manifest: Manifest, table: str) -> str:
    return storage.join(output, table, manifest.dataset)


def _paths(folder: str, manifest: Manifest, table: str) -> list[str]:
    return [storage.join(folder, part.path) for part in manifest.parts if part.table == table]


def _is_in_place(output: str, manifest: Manifest, table: str) -> bool:
    final = _final(output, manifest, table)
    return set(_paths(final, manifest, table)) <= set(storage.list_files(final))


def _complete(output: str, journal: _Journal) -> None:
    """Every step can be done again where it was interrupted."""
    manifest = journal.manifest
    staging = Staging(journal.staging)
    has_folders = storage.has_folders(output)
    for table in TABLES:
        if has_folders:
            _replace_folder(output, manifest, table, staging)
        else:
            _add_objects(output, manifest, table, staging)
    for name, text in journal.documents.items():
        staging.write_bytes(storage.join(output, *name.split("/")), text.encode())
    if not has_folders:
        for table in TABLES:
            final = _final(output, manifest, table)
            storage.delete(set(storage.list_files(final)) - set(_paths(final, manifest, table)))
    storage.delete_folder(staging.folder)
    storage.delete([_journal_path(output, manifest.dataset)])
    storage.delete_folder(dataset_folder(output, manifest.dataset))


def _replace_folder(output: str, manifest: Manifest, table: str, staging: Staging) -> None:
    new, final = staging.table(table), _final(output, manifest, table)
    if _is_in_place(output, manifest, table):
        return  # it was replaced before the interruption
    if storage.exists(final):
        storage.swap_folders(new, final, away=storage.join(staging.folder, "replaced", table))
    else:
        storage.rename(new, final)


def _add_objects(output: str, manifest: Manifest, table: str, staging: Staging) -> None:
    there = set(storage.list_files(staging.table(table)))
    new, final = (_paths(folder, manifest, table) for folder in (staging.table(table), _final(output, manifest, table)))
    moves = [(source, place) for source, place in zip(new, final, strict=True) if source in there]
    storage.move_objects([source for source, _ in moves], [place for _, place in moves])
