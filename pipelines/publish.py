"""From a finished run in staging to the tables that readers see: whole, or not at all.

```
OUTPUT/<table>/<dataset>/[date=…/]part-<chunk>.parquet
OUTPUT/runs/<dataset>.json    the manifest: input, settings, parts with checksums, summary
OUTPUT/run.json               the same of the last run
OUTPUT/validation.json        what the suites said of the last run
OUTPUT/README.md              the dataset card of the whole output (`pipelines.dataset_card`)
```
A dataset is one set of input patterns in one format: labelling it again replaces its own rows, and another
dataset's rows lie beside them.

A journal is written first, then the parts are moved: on a disk a whole folder at a time (the old one away, the new
one in), on an object store file by file. A run that is killed in between is completed by the next run on that
output, whichever it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    return all(
        {storage.join(_final(output, manifest, table), part.path) for part in manifest.parts if part.table == table}
        <= set(storage.list_files(_final(output, manifest, table)))
        for table in TABLES
    )


def publish(
    output: str, staging: Staging, manifest: Manifest, documents: Mapping[str, str], *, by_date: bool
) -> Manifest:
    """Moves a finished run's parts to where readers see them, in place of the dataset's former ones.

    Gives the manifest as it is published.
    """
    parts = list(manifest.parts)
    for table in TABLES.keys() - {part.table for part in parts}:
        # A table without rows has one part all the same, so that a reader finds its columns.
        date = NO_DATE if by_date and table in PARTITIONED else None
        parts.append(staging.write_part("empty", table, date, TABLES[table].empty_table()))
    for table in TABLES:
        # Left by a try that was killed, or by a chunk that was done again with fewer dates.
        named = {staging.part(part) for part in parts if part.table == table}
        storage.delete(set(storage.list_files(staging.table(table))) - named)
    manifest = msgspec.structs.replace(manifest, parts=tuple(parts))
    text = manifest_text(manifest)
    journal = _Journal(
        staging.folder,
        manifest,
        {**documents, RUN_JSON: text, f"runs/{manifest.dataset}.json": text},
    )
    staging.write_json(_journal_path(output, manifest.dataset), journal)
    _complete(output, journal)
    return manifest


def complete_interrupted(output: str) -> None:
    """Completes what a killed run was publishing in this output."""
    for path in storage.list_files(storage.join(output, FOLDER)):
        if path.endswith(_JOURNAL):
            _complete(output, storage.read_json(path, _Journal))


def _journal_path(output: str, dataset: str) -> str:
    return storage.join(dataset_folder(output, dataset), _JOURNAL)


def _final(output: str, manifest: Manifest, table: str) -> str:
    return storage.join(output, table, manifest.dataset)


def _complete(output: str, journal: _Journal) -> None:
    """Every step can be done again where it was interrupted."""
    manifest = journal.manifest
    staging = Staging(journal.staging)
    for table in TABLES:
        new, final = staging.table(table), _final(output, manifest, table)
        if storage.has_folders(output):
            _replace_folder(new, final, storage.join(staging.folder, "replaced", table))
        else:
            _replace_files(new, final, [part.path for part in manifest.parts if part.table == table])
    for name, text in journal.documents.items():
        staging.write_bytes(storage.join(output, *name.split("/")), text.encode())
    storage.delete_folder(staging.folder)
    storage.delete([_journal_path(output, manifest.dataset)])
    storage.delete_folder(dataset_folder(output, manifest.dataset))


def _replace_folder(new: str, final: str, away: str) -> None:
    if not storage.exists(new):
        return  # it was moved before the interruption
    if storage.exists(final):
        storage.rename(final, away)
    storage.rename(new, final)


def _replace_files(new: str, final: str, paths: Sequence[str]) -> None:
    for path in paths:
        if storage.exists(storage.join(new, path)):
            storage.rename(storage.join(new, path), storage.join(final, path))
    storage.delete(set(storage.list_files(final)) - {storage.join(final, path) for path in paths})
