"""An output of `faultline label` as four tables that can be asked: the labels, with what the logs say beside them.

`Labelled.open` reads every published dataset of the folder into a temporary DuckDB database, which is gone
afterwards. The tables are `turns`, `goals`, `dialogues` and `rejected`, with the columns of `VIEWS`: those of the
label tables as they are, and behind them what the log says, read again from where the run read it, with the run's
own reader. A row of labels has its row here whatever became of the logs: what cannot be read is null, and `notes`
says why. What the run hid of its ids and texts (`pipelines.privacy`) is hidden here, too; pseudonyms take the key that
the run had.

Two datasets may have dialogues of the same id: join on `dataset` and `dialogue_id`.

The database reads no file, writes no file and reaches no network once it is open, so no query can harm the labels.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import publish, storage
from pipelines.chunks import Chunk, ChunkSize, SourceFile, cut, first_records
from pipelines.errors import RunFailed, UserError
from pipelines.privacy import Privacy
from pipelines.publish import Manifest
from pipelines.records import Item, Origin, read_items
from pipelines.sessions import Frame, bucket_count, partition, read_sessions, sessionise
from pipelines.staging import Staging
from schemas.formats import DialogueFormat, EventFormat, UnknownFormatError, get_format
from schemas.labels import LABEL_SCHEMA_VERSION, TABLES
from schemas.log import ARROW_SCHEMA, Dialogue

BATCH_TURNS = 4_000
"""Turns of the logs that are held in memory at a time, about."""
_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds before labels are opened again that were not whole: a run takes less to put its tables in their place."""

_TURN = ARROW_SCHEMA.field("turns").type.value_type
_NOT_LOGGED = "not logged, or the log cannot be read"


def _column(name: str, kind: pa.DataType, description: str, null: str = _NOT_LOGGED) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description, "null": null})


_TEXT = _column("text", pa.string(), "what the assistant acted on: the typed text, or the first ASR hypothesis")
_DOMAIN = _column("domain", pa.string(), "of the first NLU hypothesis")
_OF_THE_TURN = [
    _TEXT,
    _column("response", pa.string(), "what the assistant said"),
    _column("action", pa.string(), "what the assistant did, as it names it"),
    _column("status", pa.string(), "how the action ended"),
    _DOMAIN,
    _column("asr", _TURN.field("asr").type, "the recogniser's n-best list, best first; empty: typed", "no log"),
    _column("nlu", _TURN.field("nlu").type, "the NLU's n-best list, best first; empty: none", "no log"),
    _column("entities", _TURN.field("entities").type, "what entity resolution found; empty: nothing", "no log"),
    _column("wake_score", pa.float64(), "the wake word detector's score, in its own unit"),
    _column("barge_in", pa.bool_(), "the user spoke over the response"),
]
_OF_THE_DIALOGUE = [
    _column("locale", pa.string(), "BCP 47 tag of the dialogue"),
    _column("device", pa.string(), "kind of device or channel"),
    _column("user_id", pa.string(), "the user's pseudonym"),
]
_TIME = pa.timestamp("us", tz="UTC")
_DATASET = pa.field("dataset", pa.string(), nullable=False, metadata={"description": "the input it is from"})
_ADDED: dict[str, list[pa.Field]] = {
    "turns": [
        *_OF_THE_TURN,
        _column("started_at", _TIME, "start of the turn, UTC; where it has no time, that of the dialogue"),
        *_OF_THE_DIALOGUE,
    ],
    "goals": [
        _column("text", pa.string(), "what the user said in the goal's first turn"),
        _column("domain", pa.string(), "of the first NLU hypothesis of that turn"),
        _column("started_at", _TIME, "start of that turn, as in turns"),
        *_OF_THE_DIALOGUE,
    ],
    "dialogues": [_column("started_at", _TIME, "start of the dialogue, UTC"), *_OF_THE_DIALOGUE],
    "rejected": [],
}

VIEWS: dict[str, pa.Schema] = {name: pa.schema([*TABLES[name], *_ADDED[name], _DATASET]) for name in TABLES}
"""The tables and their columns; a field's metadata has its description, its unit and the meaning of null."""

_LOGGED = pa.schema(
    [
        ("ordinal", pa.int64()),  # of the dialogue, in the order of the input
        ("source", pa.string()),
        ("position", pa.int64()),
        ("dialogue_id", pa.string()),
        ("turn_count", pa.int32()),
        ("dialogue_started_at", _TIME),
        *_OF_THE_DIALOGUE,
        ("turn_index", pa.int32()),
        ("started_at", _TIME),
        *_OF_THE_TURN,
    ]
)
# A dialogue that the run rejected because its id came earlier is not the labelled one, also where the file with the
# earlier one is gone. A log that has changed since can still have an id twice, or other turns under the same id.
_FIND_DIALOGUES = """
CREATE TABLE logged_dialogues AS
SELECT ordinal, dialogue_id, dialogue_started_at, locale, device, user_id
FROM logged SEMI JOIN read_parquet($files, hive_partitioning = false) USING (dialogue_id, turn_count)
WHERE turn_index = 0 AND NOT EXISTS (
  FROM rejected
  WHERE rejected.dataset = $dataset AND reason = 'duplicate_id' AND rejected.source = logged.source
    AND rejected.position = logged.position AND starts_with(message, 'dialogue ' || logged.dialogue_id || ' ')
)
QUALIFY row_number() OVER (PARTITION BY dialogue_id ORDER BY ordinal) = 1
"""
_FILL = {
    "rejected": "SELECT *, $dataset AS dataset FROM read_parquet($files, hive_partitioning = false)",
    "turns": f"""
SELECT labels.*,
  {", ".join(f"turn.{field.name}" for field in _OF_THE_TURN)},
  coalesce(turn.started_at, dialogue.dialogue_started_at) AS started_at,
  dialogue.locale, dialogue.device, dialogue.user_id, $dataset AS dataset
FROM read_parquet($files, hive_partitioning = false) AS labels
LEFT JOIN logged_dialogues AS dialogue USING (dialogue_id)
LEFT JOIN logged AS turn ON turn.ordinal = dialogue.ordinal AND turn.turn_index = labels.turn_index
ORDER BY dialogue_id, labels.turn_index""",
    "goals": """
SELECT labels.*, turn.text, turn.domain, coalesce(turn.started_at, dialogue.dialogue_started_at) AS started_at,
  dialogue.locale, dialogue.device, dialogue.user_id, $dataset AS dataset
FROM read_parquet($files, hive_partitioning = false) AS labels
LEFT JOIN logged_dialogues AS dialogue USING (dialogue_id)
LEFT JOIN logged AS turn ON turn.ordinal = dialogue.ordinal AND turn.turn_index = labels.turn_indexes[1]
ORDER BY dialogue_id, turn_indexes""",
    "dialogues": """
SELECT labels.*, dialogue_started_at AS started_at, dialogue.locale, dialogue.device, dialogue.user_id,
  $dataset AS dataset
FROM read_parquet($files, hive_partitioning = false) AS labels
LEFT JOIN logged_dialogues AS dialogue USING (dialogue_id)
ORDER BY dialogue_id""",
}


class Labelled:
    """A labelled output that is open. Use it as a context manager, or `close` it."""

    folder: str
    """The output, as an absolute path or address."""
    manifests: tuple[Manifest, ...]
    """Of every published dataset."""
    connection: duckdb.DuckDBPyConnection
    """The temporary database with the tables of `VIEWS`. Times are shown in UTC."""
    notes: tuple[str, ...]
    """What of the logs could not be read, each as a sentence."""

    def __init__(
        self,
        folder: str,
        manifests: tuple[Manifest, ...],
        connection: duckdb.DuckDBPyConnection,
        notes: tuple[str, ...],
        resources: ExitStack,
    ) -> None:
        self.folder = folder
        self.manifests = manifests
        self.connection = connection
        self.notes = notes
        self._resources = resources

    @classmethod
    def open(cls, folder: str, *, logs: bool = True) -> Labelled:
        """Opens the output in `folder`; without `logs` they are not read, and their columns are null.

        Where a run replaces the labels while they are opened, they are opened again, a few times.

        Raises `UserError` where there is no such folder, no published run in it, a run that is not whole or of
        another version, and `RunFailed` where a file is damaged, or there is no room for the temporary database.
        """
        folder = storage.absolute(folder)
        for pause in _PAUSES:
            try:
                return cls._open(folder, logs=logs)
            except _NotWhole:
                time.sleep(pause)
        return cls._open(folder, logs=logs)

    @classmethod
    def _open(cls, folder: str, *, logs: bool) -> Labelled:
        manifests = _manifests(folder)
        try:
            with ExitStack() as resources:
                _check_version(folder, manifests)
                temporary = resources.enter_context(tempfile.TemporaryDirectory(prefix="faultline-"))
                connection = _connect(temporary)
                resources.callback(connection.close)
                notes: list[str] = []
                for manifest in manifests:
                    notes += _load(connection, folder, manifest, temporary, logs=logs)
                connection.execute("SET enable_external_access = false")
                return cls(folder, manifests, connection, tuple(notes), resources.pop_all())
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            _check_whole(folder, manifests)
            raise RunFailed(f"Cannot open the labels in {folder}: {' '.join(str(error).split())}.") from error

    def dialogues(self, wanted: Collection[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Dialogue]]:
        """These dialogues, named by dataset and id, whole: read from the logs once more, in the order of the input.

        Their ids and texts are those of the log, whatever the run hid. One whose log cannot be read, or does not have
        it, is not among them. Raises `UserError` where the key of the run's pseudonyms is not there.
        """
        for manifest in self.manifests:
            missing = {dialogue_id for dataset, dialogue_id in wanted if dataset == manifest.dataset}
            sources, _ = _readable(manifest.sources)
            privacy = Privacy.of_run(manifest.settings)
            if missing:
                privacy.check_key()
            with tempfile.TemporaryDirectory(prefix="faultline-") as temporary:
                items = _items(manifest, sources, Staging(temporary)) if missing else iter(())
                while missing and (item := next(items, None)) is not None:
                    if item.dialogue is None:
                        continue
                    name = privacy.dialogue_id(item.dialogue.dialogue_id)
                    if name in missing:
                        missing.remove(name)
                        yield (manifest.dataset, name), item.dialogue

    def close(self) -> None:
        """Closes the connection and deletes the temporary database."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _NotWhole(UserError):  # noqa: N818 - it reads as what happened
    """Files that a manifest names are not there: they are lost, or a run is replacing them just now."""


def _manifests(folder: str) -> tuple[Manifest, ...]:
    try:
        if storage.has_folders(folder) and not Path(folder).is_dir():
            raise UserError(f"There is no folder {folder}: name the --output of faultline label.")
        manifests = tuple(publish.published(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the labels in {folder}: {error}.") from None
    if not manifests:
        raise UserError(f"There are no labels in {folder}: run faultline label --output {folder} first.")
    _check_whole(folder, manifests)
    return manifests


def _check_whole(folder: str, manifests: Iterable[Manifest]) -> None:
    try:
        torn = next((each for each in manifests if not publish.is_whole(folder, each)), None)
    except OSError as error:
        raise UserError(f"Cannot read the labels in {folder}: {error}.") from None
    if torn is not None:
        raise _NotWhole(
            f"Files of run {torn.run_id} are missing in {folder}: try again if a run is publishing there, else label "
            f"its input again, by {' '.join(f'--input {pattern}' for pattern in torn.inputs)} --input-format "
            f"{torn.summary.input_format}."
        )


def _check_version(folder: str, manifests: Iterable[Manifest]) -> None:
    for manifest in manifests:
        with storage.open_file(_files(folder, manifest, "turns")[0]) as stream:
            version = (pq.read_schema(stream).metadata or {}).get(b"faultline.label_schema_version", b"").decode()
        if version != LABEL_SCHEMA_VERSION:
            raise UserError(
                f"The tables in {folder} have schema version {version or 'unknown'}, and this version of Faultline "
                f"reads {LABEL_SCHEMA_VERSION}: label the logs again, into another folder."
            )


def _files(folder: str, manifest: Manifest, table: str) -> list[str]:
    parts = [part.path for part in manifest.parts if part.table == table]
    return [storage.join(folder, table, manifest.dataset, *path.split("/")) for path in parts]


def _connect(temporary: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(Path(temporary, "labelled.duckdb")))
    connection.execute(
        "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; SET TimeZone = 'UTC'"
    )
    # In a notebook without ipywidgets it is off, and DuckDB refuses to set it at all.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("SET enable_progress_bar = false")
    for name, schema in VIEWS.items():
        _create(connection, name, schema)
    return connection


def _create(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    connection.register("columns", schema.empty_table())
    connection.execute(f"CREATE TABLE {name} AS FROM columns")
    connection.unregister("columns")


def _load(
    connection: duckdb.DuckDBPyConnection, folder: str, manifest: Manifest, temporary: str, *, logs: bool
) -> list[str]:
    """Adds a dataset to the tables; gives the notes on its logs."""
    copies = Path(temporary, "labels")
    files = {table: [_local(path, copies) for path in _files(folder, manifest, table)] for table in TABLES}
    notes: list[str] = []
    _create(connection, "logged", _LOGGED)
    privacy = Privacy.of_run(manifest.settings)
    if logs:
        try:
            privacy.check_key()
        except UserError as error:
            notes.append(
                f"What the logs say is not shown, since the ids of run {manifest.run_id} are pseudonyms: {error}"
            )
            logs = False
    if logs:
        sources, unreadable = _readable(manifest.sources)
        notes += unreadable
        staging = Staging(str(Path(temporary, "staging")))
        try:
            _insert(connection, _items(manifest, sources, staging), privacy)
        except UnknownFormatError as error:
            notes.append(str(error))
        shutil.rmtree(staging.folder, ignore_errors=True)
    for table in _FILL:
        if table == "turns":
            connection.execute(_FIND_DIALOGUES, {"files": files["dialogues"], "dataset": manifest.dataset})
        parameters = {"files": files[table], "dataset": manifest.dataset}
        connection.execute(f"INSERT INTO {table} BY NAME {_FILL[table]}", parameters)
    found = connection.table("logged_dialogues").shape[0]
    connection.execute("DROP TABLE logged; DROP TABLE logged_dialogues")
    shutil.rmtree(copies, ignore_errors=True)
    missing = manifest.summary.dialogues - found
    if logs and missing:
        notes.append(
            f"Of {missing:,} of the {manifest.summary.dialogues:,} dialogues of {' '.join(manifest.inputs)} the log is "
            "not there as it was labelled: their text and what else the log says is null."
        )
    return notes


def _local(path: str, copies: Path) -> str:
    """The file as DuckDB names it: as a pattern that matches it alone; one on an object store is copied."""
    if not storage.has_folders(path):
        copies.mkdir(exist_ok=True)
        copy = copies / f"{len(list(copies.iterdir()))}.parquet"
        with storage.open_file(path) as stream, copy.open("wb") as target:
            shutil.copyfileobj(stream, target)
        path = str(copy)
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def _readable(sources: Sequence[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    """The files that are there as they were labelled, told by their size, and a note on the others."""
    there = []
    changed = []
    for source in sources:
        try:
            matches = storage.match(source.path)
        except (OSError, ValueError):
            matches = []
        if [each.size_in_bytes for each in matches] == [source.size]:
            there.append(source)
        else:
            changed.append(f"{source.path} {'has changed' if matches else 'cannot be found'}")
    if not changed:
        return there, []
    more = f", and {len(changed) - 1:,} more files" if len(changed) > 1 else ""
    return there, [f"Since the run {changed[0]}{more}: what was said there is not shown."]


def _items(manifest: Manifest, sources: Sequence[SourceFile], staging: Staging) -> Iterator[Item]:
    """The dialogues that the run labelled, in the order of the input, and rejects between them."""
    log_format = get_format(manifest.summary.input_format)
    spool = staging.spool(rewrite=True)
    chunks: Iterator[Chunk] = (chunk for source in sources for chunk in cut(source, spool, ChunkSize()))
    limit: int | None = manifest.settings["limit"]
    if limit is not None:
        chunks = first_records(chunks, limit)
    if isinstance(log_format, DialogueFormat):
        for chunk in chunks:
            yield from read_items(chunk, log_format)
            _drop(chunk)
    elif isinstance(log_format, EventFormat):
        buckets = bucket_count(manifest.sources)
        gap = dt.timedelta(minutes=manifest.settings["session_gap_minutes"])
        frames: dict[int, list[Frame]] = {}
        for chunk in chunks:
            for bucket, frame in partition(chunk, log_format, buckets, staging):
                frames.setdefault(bucket, []).append(frame)
        for bucket in sorted(frames):
            for chunk in sessionise(bucket, frames[bucket], gap, spool, ChunkSize()):
                yield from read_sessions(chunk)
                _drop(chunk)


def _drop(chunk: Chunk) -> None:
    if chunk.spooled:
        storage.delete([chunk.path])


def _insert(connection: duckdb.DuckDBPyConnection, items: Iterable[Item], privacy: Privacy) -> None:
    rows: list[dict[str, Any]] = []
    connection.begin()
    for ordinal, item in enumerate(items):
        if item.dialogue is not None:
            rows += _rows(ordinal, item.origins[0], privacy.hide_texts(privacy.hide_ids(item.dialogue)))
        if len(rows) >= BATCH_TURNS:
            _insert_rows(connection, rows)
            rows = []
    _insert_rows(connection, rows)
    connection.commit()


def _insert_rows(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    connection.register("batch", pa.Table.from_pylist(rows, schema=_LOGGED))
    connection.execute("INSERT INTO logged FROM batch")
    connection.unregister("batch")


def _rows(ordinal: int, origin: Origin, dialogue: Dialogue) -> Iterator[dict[str, Any]]:
    for index, turn in enumerate(dialogue.turns):
        said = turn.response
        nlu = [{"slots": [], **each} for each in msgspec.to_builtins(turn.nlu)]
        yield {
            "ordinal": ordinal,
            "source": origin.source,
            "position": origin.position,
            "dialogue_id": dialogue.dialogue_id,
            "turn_count": len(dialogue.turns),
            "dialogue_started_at": dialogue.started_at,
            "locale": dialogue.locale,
            "device": dialogue.device,
            "user_id": dialogue.user_id,
            "turn_index": index,
            "started_at": turn.started_at,
            "text": turn.text,
            "response": said and said.text,
            "action": said and said.action,
            "status": said and said.status,
            "domain": turn.nlu[0].domain if turn.nlu else None,
            "asr": msgspec.to_builtins(turn.asr),
            "nlu": nlu,
            "entities": msgspec.to_builtins(turn.entities),
            "wake_score": turn.wake_score,
            "barge_in": turn.barge_in,
        }
