"""From settings to a plan: which files, which run, where it works. Nothing is written here."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipelines import storage
from pipelines.chunks import ChunkSize, SourceFile
from pipelines.errors import UserError
from pipelines.options import Device, is_utf8
from pipelines.privacy import Privacy
from pipelines.publish import dataset_folder
from pipelines.settings import LabelSettings
from pipelines.staging import Staging
from pipelines.tracking import default_tracking_uri
from schemas.labels import LABEL_SCHEMA_VERSION, Provenance
from schemas.log import LOG_SCHEMA_VERSION
from schemas.ontology import Ontology


@dataclass(frozen=True)
class Work:
    """What a worker must know of the run."""

    staging: Staging
    input_format: str
    chunk_size: ChunkSize
    limit: int | None
    session_gap_minutes: float
    provenance: Provenance
    tracking_uri: str
    """Also where a model named `models:/…` is registered."""
    ontology: Ontology | None
    by_date: bool
    privacy: Privacy
    device: Device


@dataclass(frozen=True)
class Plan:
    """A run of `faultline label` that is ready to start."""

    settings: LabelSettings
    sources: tuple[SourceFile, ...]
    dataset: str
    """Digest of the input patterns and the format."""
    work: Work

    @property
    def source_bytes(self) -> int:
        return sum(source.size for source in self.sources)


def make_plan(
    settings: LabelSettings,
    sources: tuple[SourceFile, ...],
    tracking_uri: str,
    model_version: str,
    ontology: Ontology | None,
) -> Plan:
    """The plan of a run; without an ontology the model's own is used.

    Its run id is the same for the same files, model and options that bear on the rows.
    """
    dataset = _digest([settings.inputs, settings.input_format])
    run_id = _digest(
        [
            sources,
            settings.input_format,
            settings.model,
            model_version,
            ontology,
            settings.limit,
            settings.by_date,
            settings.session_gap_minutes,
            settings.chunk_bytes,
            settings.privacy,
            LOG_SCHEMA_VERSION,
            LABEL_SCHEMA_VERSION,
            importlib.metadata.version("faultline"),
        ]
    )
    work = Work(
        staging=Staging(storage.join(dataset_folder(settings.output, dataset), run_id)),
        input_format=settings.input_format,
        chunk_size=ChunkSize(bytes=settings.chunk_bytes),
        limit=settings.limit,
        session_gap_minutes=settings.session_gap_minutes,
        provenance=Provenance(run_id=run_id, model_uri=settings.model, model_version=model_version),
        tracking_uri=tracking_uri,
        ontology=ontology,
        by_date=settings.by_date,
        privacy=settings.privacy,
        device=settings.device,
    )
    return Plan(settings, sources, dataset, work)


def find_sources(patterns: Sequence[str]) -> tuple[SourceFile, ...]:
    """The input files: in the order of the patterns, those of a pattern by path, each once. Their paths are absolute.

    A pattern may be relative to the current folder, or to the home folder `~`.

    Raises `UserError` for a pattern that matches no file, a pipe, or one whose name is not UTF-8, and where something
    that may be or hold a match cannot be looked at.
    """
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        try:
            place = storage.absolute(pattern)
            matches = storage.find(place)
            if storage.has_folders(place) and Path(place).is_dir():
                raise UserError(f"--input {pattern} is a folder: name its files, e.g. '{pattern}/*.jsonl'.")
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot look for --input {pattern}: {error}.") from None
        if not matches:
            raise UserError(f"No file matches --input {pattern}: check the path, and quote a glob.")
        for each in matches:
            if Path(each.path).is_fifo():
                raise UserError(f"--input {each.path} is a pipe, which cannot be read twice: write it to a file first.")
            if not is_utf8(each.path):
                raise UserError(f"The name of {each.path!a} is not UTF-8, which the tables are in: rename the file.")
            if each.path not in found:
                found[each.path] = SourceFile(len(found), each.path, each.size_in_bytes, each.last_updated_in_seconds)
    return tuple(found.values())


def tracking_uri(settings: LabelSettings) -> str:
    """Where the run is logged. Raises `UserError` where there is no default for such an output."""
    return settings.tracking_uri or default_tracking_uri(settings.output)


def _digest(content: object) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:16]
