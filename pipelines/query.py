"""`faultline query`: asks the labels in SQL, with what was said beside them.

The tables and their columns are those of `pipelines.labelled`: `turns`, `goals`, `dialogues` and `rejected`, in the SQL
of DuckDB. Without a query it is a prompt, or it runs what comes in on standard input. What a query makes is gone at
the end; it can write nothing to the labels.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.errors import UserError
from pipelines.labelled import VIEWS, Labelled
from pipelines.options import OptionParser, whole_number

PROG = "faultline query"
FORMATS = ("table", "csv", "json")
_PIPED_WIDTH = 120
_CELL_WIDTH = 9
"""Characters a column: a result with more columns than fit is shown a row at a time."""
_FETCH = 1_000
_HELP = """\
A query ends with ; and may go over several lines. The SQL is DuckDB's: duckdb.org/docs/sql.
.tables          the tables and their rows
.schema [TABLE]  the columns and what they mean
.help            this
.exit            ends, as ctrl-d does"""
_JSON = msgspec.json.Encoder(enc_hook=str, decimal_format="number")

Answer = Callable[["Result"], None]
_Given = TypeVar("_Given")


@dataclass(frozen=True)
class QuerySettings:
    """What `faultline query` was asked."""

    sql: str | None
    labels: str
    format: str
    rows: int
    logs: bool


class Result(NamedTuple):
    """What a statement gives: the names of its columns, each once, and its rows as plain values."""

    columns: list[str]
    rows: Iterator[list[Any]]


def parse(argv: Sequence[str]) -> QuerySettings:
    """The settings in a command line. Raises `UserError`; exits for `--help`."""
    options = _parser().parse_args(argv)
    return QuerySettings(options.sql, options.labels, options.format, options.rows, not options.no_logs)


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the job; `argv` are its options (default: those of the process).

    Raises `UserError` where they or the SQL are wrong, `RunFailed` where the labels cannot be opened.
    """
    settings = parse(sys.argv[1:] if argv is None else argv)
    console = Console(stderr=True)
    with console.status("Reading the labels and their logs …"):
        labelled = Labelled.open(settings.labels, logs=settings.logs)
    with labelled:
        for note in labelled.notes:
            console.print(escape(note), style="yellow", highlight=False, soft_wrap=True)
        answer = _answer(settings)
        try:
            if settings.sql is not None:
                _run_all(labelled.connection, settings.sql, answer)
            elif sys.stdin.isatty():
                with _history():
                    converse(labelled, answer, input)
            else:
                with _mistakes():
                    sql = sys.stdin.read()
                _run_all(labelled.connection, sql, answer)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read the answer has seen enough; Python would complain again when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def execute(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[Result]:
    """Runs each statement of `sql`; each result is to be read before the next.

    Raises `UserError` for a mistake, `KeyboardInterrupt` where ctrl-c stops a query; so do the rows of a result, as
    DuckDB works on while they are read.
    """
    # Not closed here: the last rows are read when no statement is left. It ends when nobody has it any more.
    worker = ThreadPoolExecutor(max_workers=1)
    with _mistakes():
        # What Python may have made of bytes that are not UTF-8 is no mistake to DuckDB's parser, but a TypeError.
        sql.encode()
        for statement in duckdb.extract_statements(sql):
            cursor = _apart(worker, connection, connection.execute, statement)
            described = cursor.description or []
            rows = _rows(worker, cursor, [kind for _, kind, *_ in described])
            yield Result(_unique([name for name, *_ in described]), rows)


@contextlib.contextmanager
def _mistakes() -> Iterator[None]:
    """Raises as `UserError` what DuckDB says of a query, and Python of its bytes."""
    try:
        yield
    except duckdb.PermissionException:
        raise UserError(
            "The query is about files, settings or extensions, which faultline query leaves alone: redirect its output "
            "(--format csv > FILE), or open the Parquet files in DuckDB itself."
        ) from None
    except duckdb.TransactionException as error:
        raise UserError(_sentence(error)) from None
    except duckdb.Error as error:
        raise UserError(f"{_sentence(error)} The tables and columns are shown by .schema at {PROG}'s prompt.") from None
    except UnicodeError:
        raise UserError("The query is not in UTF-8: convert it, as iconv -t UTF-8 does.") from None


def _apart(worker: Executor, connection: duckdb.DuckDBPyConnection, work: Callable[..., _Given], *asked: Any) -> _Given:
    """What `work`, a method of the connection, gives. It works on another thread: on this one DuckDB may not notice a
    ctrl-c, or stops reading rows and leaves the query running."""
    running = worker.submit(work, *asked)
    try:
        return running.result()
    except KeyboardInterrupt:
        # What interrupts a query that has not begun is lost.
        while not running.done():
            connection.interrupt()
            wait([running], timeout=0.1)
        raise


def converse(labelled: Labelled, answer: Answer, ask: Callable[[str], str]) -> None:
    """The prompt: `ask` gives a line for a prompt, and raises `EOFError` at the end. Mistakes are said, not raised."""
    out = Console(highlight=False)
    turns = sum(manifest.summary.turns for manifest in labelled.manifests)
    out.print(
        f"{escape(labelled.folder)}: {turns:,} turns. A query ends with ; · .help says more · ctrl-d ends",
        soft_wrap=True,
    )
    typed = ""
    while True:
        try:
            with _mistakes():
                line = ask("      ...> " if typed else "faultline> ")
            if not typed and line.strip().startswith("."):
                if line.strip() in (".exit", ".quit"):
                    return
                _command(labelled.connection, line.split(), out)
                continue
            typed += f"{line}\n"
            if not typed.strip():
                typed = ""
            elif sqlite3.complete_statement(typed):
                typed, sql = "", typed
                _run_all(labelled.connection, sql, answer)
        except EOFError:
            out.print()
            return
        except KeyboardInterrupt:
            typed = ""
            out.print()
        except UserError as error:
            out.print(escape(str(error)), style="red")


def _run_all(connection: duckdb.DuckDBPyConnection, sql: str, answer: Answer) -> None:
    for result in execute(connection, sql):
        try:
            answer(result)
        finally:
            # DuckDB may still look for rows that nobody reads, and the next statement, or the end, would wait for them.
            connection.interrupt()


def _rows(worker: Executor, cursor: duckdb.DuckDBPyConnection, kinds: list[Any]) -> Iterator[list[Any]]:
    with _mistakes():
        while rows := _apart(worker, cursor, cursor.fetchmany, _FETCH):
            for row in rows:
                yield [_plain(value, kind) for value, kind in zip(row, kinds, strict=True)]


def _plain(value: Any, kind: Any) -> Any:
    """The value as it is written: a float32 with its own digits, not those of the nearest double; NaN as null."""
    if value is None:
        return None
    match kind.id:
        case "float" | "double" if math.isnan(value):
            return None
        case "float":
            return float(str(np.float32(value)))
        case "list" | "array":
            return [_plain(each, kind.children[0][1]) for each in value]
        case "struct":
            return {name: _plain(value[name], child) for name, child in kind.children}
        case "map":
            return {_text(key): _plain(each, kind.children[1][1]) for key, each in value.items()}
    return value


def _text(value: Any) -> str:
    """A value in a cell: text as it is, everything else as JSON has it."""
    if isinstance(value, str):
        return value
    written = _JSON.encode(value)
    return msgspec.json.decode(written, type=str) if written.startswith(b'"') else written.decode()


def _unique(names: list[str]) -> list[str]:
    """The names, where one comes again with a number behind it, as in `intent_1`."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        unique.append(name if name not in unique else next(each for each in numbered if each not in {*unique, *names}))
    return unique


def _answer(settings: QuerySettings) -> Answer:
    if settings.format == "csv":
        return _write_csv
    if settings.format == "json":
        return _write_json
    out = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)
    return lambda result: _show(result, settings.rows, out)


def _write_csv(result: Result) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows(["" if value is None else _text(value) for value in row] for row in result.rows)


def _write_json(result: Result) -> None:
    before = "[\n"
    for row in result.rows:
        sys.stdout.write(before + _JSON.encode(dict(zip(result.columns, row, strict=True))).decode())
        before = ",\n"
    sys.stdout.write("[]\n" if before == "[\n" else "\n]\n")


def _show(result: Result, limit: int, out: Console) -> None:
    rows = list(itertools.islice(result.rows, min(limit + 1, sys.maxsize)))
    shown = [["[dim]null[/]" if value is None else escape(_text(value)) for value in row] for row in rows[:limit]]
    if len(result.columns) * _CELL_WIDTH <= out.width:
        table = Table()
        for index, column in enumerate(result.columns):
            is_number = any(isinstance(row[index], int | float) and row[index] is not True for row in rows)
            table.add_column(escape(column), justify="right" if is_number else "left", overflow="fold")
        for row in shown:
            table.add_row(*row)
        out.print(table)
    else:
        for number, row in enumerate(shown, start=1):
            table = Table(title=f"Row {number}", title_justify="left", show_header=False)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for column, value in zip(result.columns, row, strict=True):
                table.add_row(escape(column), value)
            out.print(table)
    if len(rows) > limit:
        out.print(f"These are the first {limit:,} rows: --rows N shows more, --format csv or json all.")
    elif not rows:
        out.print("No rows.")


def _command(connection: duckdb.DuckDBPyConnection, words: list[str], out: Console) -> None:
    match words:
        case [".help"]:
            out.print(escape(_HELP))
        case [".tables"]:
            table = Table("table", "rows")
            for name in VIEWS:
                [[count]] = _about(connection, "SELECT count(*) FROM", name)
                table.add_row(name, f"{count:,}")
            out.print(table)
        case [".schema", *names] if len(names) < 2 and all(name in VIEWS for name in names):
            for name in names or VIEWS:
                out.print(_columns(connection, name))
        case [".schema", *_]:
            raise UserError(f".schema takes one of {', '.join(VIEWS)}, or nothing.")
        case _:
            raise UserError(f"There is no {words[0]}: .help says what there is.")


def _columns(connection: duckdb.DuckDBPyConnection, name: str) -> Table:
    table = Table("column", "type", "what it is", title=name, title_justify="left")
    kinds = {column: kind for column, kind, *_ in _about(connection, "DESCRIBE", name)}
    for field in VIEWS[name]:
        if field.name in kinds:
            table.add_row(field.name, escape(kinds[field.name]), escape(described(field)))
    return table


def _about(connection: duckdb.DuckDBPyConnection, asked: str, name: str) -> list[list[Any]]:
    """What DuckDB answers about a table. Raises `UserError` where a query has dropped or renamed it."""
    answers = execute(connection, f"SHOW TABLES; {asked} {name}")
    if [name] not in list(next(answers).rows):
        raise UserError(f"The table {name} is gone: start {PROG} again to have it back.")
    return list(next(answers).rows)


def described(field: pa.Field) -> str:
    """What a column is, in words: its description, its closed list or unit, and the meaning of null."""
    about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    words = [about.get("description"), about.get("unit"), about.get("enum", "").replace("|", ", ")]
    return "; ".join([*filter(None, words), *([f"null: {about['null']}"] if "null" in about else [])])


def _sentence(error: duckdb.Error) -> str:
    """What DuckDB says, less the picture of the place and the list of every function of the name."""
    said = " ".join(str(error).partition("\n\nLINE")[0].partition("Candidate functions")[0].split())
    return said if said.endswith((".", "!", "?")) else f"{said}."


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing, with the lines of former sessions."""
    try:
        import readline
    except ImportError:  # not every Python has it
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state, "faultline", "query_history")
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1_000)
    try:
        yield
    finally:
        # A home that cannot be written to costs the history, not the session.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(PROG, "Asks the labels in SQL, with what was said beside them. Without SQL it is a prompt.")
    parser.add_argument("sql", nargs="?", metavar="SQL", help="a query, in quotes")
    add = parser.add_argument
    add("--labels", default=".", metavar="DIR", help="the --output of faultline label (default: the current folder)")
    add("--format", choices=FORMATS, default="table", help="how rows are written (default: %(default)s)")
    add(
        "--rows",
        type=whole_number,
        default=100,
        metavar="N",
        help="most rows that a table shows; csv and json have all (default: %(default)s)",
    )
    add("--no-logs", action="store_true", help="do not read the logs: faster, and what was said is null")
    add("--verbose", action="store_true", help="show the log lines of the libraries")
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["query", *sys.argv[1:]]))
