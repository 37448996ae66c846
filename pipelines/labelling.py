"""One chunk, all the way: read, validate, label, write its part of each table, and leave one small result.

A finished chunk is skipped, so a run that was killed goes on where it was. Parts have names that follow from the
chunk; the result is written last.

Where labelling some dialogues together fails, each half is tried again, down to the one dialogue at fault, which
becomes a row of `rejected`.
"""

from __future__ import annotations

import datetime as dt
import functools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from encoders.memory import give_back
from labelers.model import Model
from pipelines import storage
from pipelines.chunks import Chunk, Container
from pipelines.errors import RunFailed, UserError
from pipelines.options import Device
from pipelines.plan import Work
from pipelines.records import Item, read_items, stable_hash
from pipelines.results import ChunkResult, count
from pipelines.sessions import read_sessions
from pipelines.staging import LOGS, NO_DATE, Staging, to_parquet
from pipelines.tracking import resolve_model
from schemas.formats import DialogueFormat, get_format
from schemas.labels import TABLES, DialogueLabels, to_tables
from schemas.profile import LOGS_SCHEMA, log_profile
from schemas.rejects import RecordError, Reject, RejectReason, Stage

IDS_SCHEMA = pa.schema([("hash", pa.uint64()), ("dialogue_id", pa.string())])


_MODELS: dict[tuple[str, str, Device], Model] = {}
_LOADING = threading.Lock()


@functools.cache
def model_folder(uri: str, tracking_uri: str) -> Path:
    """The model's local folder, fetched once a process. Raises `UserError` or `TrackingError`."""
    return resolve_model(uri, tracking_uri)


def load_model(uri: str, tracking_uri: str, device: Device = Device.CPU) -> Model:
    """The model, loaded once a process. Raises `UserError` or `ModelError`."""
    if device is Device.CUDA and not torch.cuda.is_available():
        raise UserError(
            f"--device {device}: PyTorch finds no GPU on this machine: install its CUDA build, or leave --device out."
        )
    with _LOADING:
        key = (uri, tracking_uri, device)
        if key not in _MODELS:
            _MODELS[key] = Model.load(model_folder(uri, tracking_uri), device)
        return _MODELS[key]


def label_chunk(chunk: Chunk, work: Work) -> None:
    """Does what is to do for a chunk; nothing if it is finished. Doing it twice gives the same files."""
    staging = work.staging
    if not staging.is_finished(chunk.id):
        result = _label_chunk(chunk, work)
        staging.write_json(staging.result(chunk.id), result)
        give_back()
    if chunk.spooled:
        storage.delete([chunk.path])


def _label_chunk(chunk: Chunk, work: Work) -> ChunkResult:
    staging = work.staging
    work.privacy.check_key()
    clock = [time.perf_counter()]
    rejects = list(chunk.rejects)
    records = len(rejects)
    items: list[Item] = []
    last: set[tuple[str, int]] = set()
    for item in _read(chunk, work.input_format):
        # The dialogues of a record follow each other.
        places = {(origin.source, origin.position) for origin in item.origins}
        records += len(places - last)
        last = places
        if item.reject is not None:
            rejects.append(item.reject)
        elif item.dialogue is not None:
            item.dialogue.dialogue_id = work.privacy.dialogue_id(item.dialogue.dialogue_id)
            items.append(item)
    items, duplicates = _without_duplicates(items, _excluded(staging, chunk.id))
    rejects += duplicates
    _write_ids(staging, chunk.id, items)
    clock.append(time.perf_counter())

    model = load_model(work.provenance.model_uri, work.tracking_uri, work.device)
    if model.version != work.provenance.model_version:
        raise RunFailed(
            f"The model {work.provenance.model_uri} has version {model.version} on this worker and "
            f"{work.provenance.model_version} where the run was started: give every worker the same model."
        )
    rows: dict[tuple[str, str | None], list[pa.Table]] = {}
    shortened = 0
    for labelled in label_items(model, items, work):
        if isinstance(labelled, _Labelled):
            shortened += labelled.shortened_turns
            for key, table in labelled.tables.items():
                rows.setdefault(key, []).append(table)
        else:
            rejects += labelled
    rejects.sort(key=lambda reject: (reject.source, reject.position))
    rejected = [_row(work.privacy.hide_reject(reject)) for reject in rejects]
    rows["rejected", None] = [pa.Table.from_pylist(rejected, schema=TABLES["rejected"])]
    clock.append(time.perf_counter())

    tables = {key: pa.concat_tables(some) for key, some in rows.items()}
    parts = [
        staging.write_part(chunk.id, table, date, rows_of)
        for (table, date), rows_of in tables.items()
        if rows_of.num_rows
    ]
    counts = count(
        {
            name: pa.concat_tables(
                [TABLES[name].empty_table(), *(some for key, some in tables.items() if key[0] == name)]
            )
            for name in TABLES
        }
    )
    clock.append(time.perf_counter())
    counts.records = records
    counts.shortened_turns = shortened
    counts.source_bytes = chunk.source_bytes
    steps = zip(("read", "label", "write"), pairwise(clock), strict=True)
    counts.seconds = {step: end - start for step, (start, end) in steps}
    return ChunkResult(chunk=chunk.id, order=chunk.order, counts=counts, parts=parts)


@dataclass(frozen=True)
class _Labelled:
    """Rows of each table and date (None: not partitioned) of some dialogues."""

    tables: Mapping[tuple[str, str | None], pa.Table]
    shortened_turns: int


def label_items(model: Model, items: Sequence[Item], work: Work) -> Iterator[_Labelled | list[Reject]]:
    """The rows of these dialogues, in their order, or the rejects of one that cannot be labelled."""
    if not items:
        return
    try:
        yield _label_together(model, items, work)
        return
    except Exception as error:
        if len(items) == 1:
            failure = _failure(error)
            yield [origin.reject(failure) for origin in items[0].origins]
            return
    # Outside of the handler, so that what failed is freed before it is tried in halves.
    middle = len(items) // 2
    yield from label_items(model, items[:middle], work)
    yield from label_items(model, items[middle:], work)


def _label_together(model: Model, items: Sequence[Item], work: Work) -> _Labelled:
    dialogues = [item.dialogue for item in items if item.dialogue is not None]
    labels = model.label(dialogues, work.ontology)
    by_date: dict[str | None, list[DialogueLabels]] = {}
    profiles: dict[str | None, list[dict[str, object]]] = {None: []}
    for dialogue, labelled in zip(dialogues, labels, strict=True):
        if labelled.dialogue_id != dialogue.dialogue_id or len(labelled.turns) != len(dialogue.turns):
            raise ValueError(f"the model answered for {labelled.dialogue_id} instead of {dialogue.dialogue_id}")
        # Only now: the labels are decided on the texts as they are.
        work.privacy.hide_slots(dialogue, labelled)
        date = _date(dialogue.started_at) if work.by_date else None
        by_date.setdefault(date, []).append(labelled)
        profiles[None].append(log_profile(dialogue))
    # The conversion is part of the attempt: a label that does not fit into its column is this dialogue's fault.
    tables = {
        (table, date): rows
        for date, some in by_date.items()
        for table, rows in to_tables(some, work.provenance).items()
    }
    tables[LOGS, None] = pa.Table.from_pylist(profiles[None], schema=LOGS_SCHEMA)
    return _Labelled(tables, sum(each.shortened_turns for each in labels))


def _failure(error: Exception) -> RecordError:
    message = f"{type(error).__name__}: {error}"
    # PyTorch says so in its own ways: a class of its own on a GPU, a RuntimeError on a CPU.
    if isinstance(error, MemoryError) or "OutOfMemoryError" in message or "can't allocate memory" in message:
        return RecordError(Stage.LABEL, RejectReason.OUT_OF_MEMORY, message)
    return RecordError(Stage.LABEL, RejectReason.LABEL_FAILED, message)


def _read(chunk: Chunk, input_format: str) -> Iterable[Item]:
    if chunk.container is Container.SESSIONS:
        return read_sessions(chunk)
    log_format = get_format(input_format)
    assert isinstance(log_format, DialogueFormat)
    return read_items(chunk, log_format)


def _excluded(staging: Staging, chunk_id: str) -> set[str]:
    path = staging.excluded(chunk_id)
    return set(storage.read_json(path, list[str])) if storage.exists(path) else set()


def _without_duplicates(items: Iterable[Item], excluded: set[str]) -> tuple[list[Item], list[Reject]]:
    kept: list[Item] = []
    rejects: list[Reject] = []
    seen = set(excluded)
    for item in items:
        assert item.dialogue is not None
        dialogue_id = item.dialogue.dialogue_id
        if dialogue_id not in seen:
            seen.add(dialogue_id)
            kept.append(item)
            continue
        error = RecordError(
            Stage.VALIDATE, RejectReason.DUPLICATE_ID, f"dialogue {dialogue_id} came earlier in the input"
        )
        rejects += [origin.reject(error) for origin in item.origins]
    return kept, rejects


def _write_ids(staging: Staging, chunk_id: str, items: Iterable[Item]) -> None:
    ids = [item.dialogue.dialogue_id for item in items if item.dialogue is not None]
    hashes = np.array([stable_hash(each) for each in ids], np.uint64)
    order = np.argsort(hashes)
    table = pa.table([hashes[order], [ids[index] for index in order]], schema=IDS_SCHEMA)
    staging.write_bytes(staging.ids(chunk_id), to_parquet(table))


def _date(started_at: dt.datetime | None) -> str:
    return NO_DATE if started_at is None else started_at.date().isoformat()


def _row(reject: Reject) -> dict[str, object]:
    return {name: getattr(reject, name) for name in TABLES["rejected"].names}
