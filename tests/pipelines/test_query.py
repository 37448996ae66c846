"""`faultline query`: answers as a table, as CSV and as JSON; mistakes; the prompt."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from pipelines.cli import main
from pipelines.errors import UserError
from pipelines.labelled import VIEWS, Labelled
from pipelines.query import Result, converse, execute, parse, run

SAID = "SELECT dialogue_id, turn_index, text FROM turns WHERE device = 'speaker' ORDER BY turn_index"
WRONG_LATE = "SELECT if(range = 50_000, 'a', '1')::int AS a, repeat('b', 200) AS b FROM range(60_000)"
"""The rows before the wrong one are more than DuckDB makes before they are asked for."""
ENDLESS = "FROM range(1_000_000_000_000) WHERE range < 100_000 OR hash(range) % 7 = 7"
"""Gives rows at once, and then none for ever."""


@pytest.fixture
def labels(labelled_output: Any) -> list[str]:
    return ["--labels", str(labelled_output.labels)]


def plain(sql: str) -> list[list[Any]]:
    with duckdb.connect() as connection:
        return [row for result in execute(connection, sql) for row in result.rows]


def test_csv_is_what_the_labels_and_the_logs_say(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run([SAID, "--format", "csv", *labels])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["dialogue_id", "turn_index", "text"],
        ["x", "0", "play jazz"],
        ["x", "1", "stop"],
    ]


def test_json_keeps_types_and_what_is_nested(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run([SAID.replace("text", "started_at, barge_in, asr"), "--format", "json", *labels])
    first, second = json.loads(capsys.readouterr().out)
    assert first == {
        "dialogue_id": "x",
        "turn_index": 0,
        "started_at": "2026-03-01T08:15:02Z",
        "barge_in": True,
        "asr": [{"text": "play jazz", "score": 0.6}, {"text": "pay jazz", "score": 0.3}],
    }
    assert (second["barge_in"], second["asr"]) == (None, [])


def test_no_rows_are_valid_json(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["FROM turns WHERE false", "--format", "json", *labels])
    assert json.loads(capsys.readouterr().out) == []


def test_a_table_says_where_it_stops(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["SELECT text FROM turns ORDER BY text", "--rows", "2", *labels])
    out = capsys.readouterr().out
    assert "and pop" in out
    assert "play jazz" not in out
    assert "first 2 rows" in out
    for rows in ("100", "9223372036854775807"):
        run(["SELECT text FROM turns", "--rows", rows, *labels])
        assert "rows" not in capsys.readouterr().out


def test_a_row_that_is_too_wide_for_a_table_is_shown_whole(
    labels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["FROM turns WHERE text = 'play jazz'", *labels])
    out = capsys.readouterr().out
    assert all(f" {field.name} " in out for field in VIEWS["turns"])
    assert "Here is jazz." in out


def test_markup_in_what_was_said_is_text(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["SELECT '[red]a[/nothing]' AS \"[b]\"", *labels])
    out = capsys.readouterr().out
    assert "[red]a[/nothing]" in out
    assert "[b]" in out


def test_without_the_logs_the_text_is_null(labels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(["SELECT count(text) AS a, count(*) AS b FROM turns", "--no-logs", "--format", "csv", *labels])
    assert capsys.readouterr().out == "a,b\n0,6\n"


def test_a_query_can_come_on_standard_input(
    labels: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("CREATE TABLE t AS SELECT 1 AS a;\nSELECT a FROM t;"))
    run(["--format", "csv", *labels])
    assert capsys.readouterr().out.endswith("a\n1\n")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_query_on_standard_input_that_is_not_utf_8_is_a_mistake(
    labels: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, errors: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"SELECT 'caf\xe9'"), "utf-8", errors))
    assert main(["query", "--no-logs", *labels]) == 2
    assert capsys.readouterr().err == "The query is not in UTF-8: convert it, as iconv -t UTF-8 does.\n"


def test_values_are_written_with_their_own_digits() -> None:
    assert plain("SELECT 0.83::float, [0.83::float], {'a': 0.1::float}, map {'k': 0.1::float}, 'nan'::float") == [
        [0.83, [0.83], {"a": 0.1}, {"k": 0.1}, None]
    ]
    assert plain("SELECT (2::hugeint ** 70)::hugeint, 1.50::decimal(3, 2)")[0][0] == 2**70


def test_columns_of_one_name_are_all_there() -> None:
    with duckdb.connect() as connection:
        [result] = execute(connection, "SELECT 1 AS a, 2 AS a, 3 AS a_1")
        assert (result.columns, list(result.rows)) == (["a", "a_2", "a_1"], [[1, 2, 3]])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM turns", 'Referenced column "nope" not found'),
        ("SELECT * FROM turn", 'Did you mean "turns"?'),
        ("SELECT sum('a')", "Could not choose a best candidate function"),
        ("SELECT 'a'::int", "Could not convert string 'a'"),
        ("COPY turns TO 'x.csv'", "--format csv > FILE"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    labels: list[str], capsys: pytest.CaptureFixture[str], query: str, said: str
) -> None:
    assert main(["query", query, "--no-logs", *labels]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_a_mistake_that_shows_in_a_late_row_is_one_sentence(
    labels: list[str], capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    assert main(["query", WRONG_LATE, "--format", format_, "--no-logs", *labels]) == 2
    captured = capsys.readouterr()
    assert "Could not convert string 'a'" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out


def test_a_folder_without_labels_is_a_mistake(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT 1", "--labels", str(tmp_path)]) == 2
    assert "There are no labels in" in capsys.readouterr().err


def test_a_query_that_is_not_in_quotes_is_a_mistake() -> None:
    with pytest.raises(UserError, match="unrecognized arguments: count"):
        parse(["select", "count(*)"])


@pytest.fixture
def opened(labelled_output: Any) -> Iterator[Labelled]:
    with Labelled.open(str(labelled_output.labels), logs=False) as labelled:
        yield labelled


def typed(
    labelled: Labelled, *lines: str | BaseException | type[BaseException], most: int | None = None
) -> list[list[list[Any]]]:
    """The rows of every answer to these lines, of each the first `most`."""
    answers: list[list[list[Any]]] = []
    left = iter(lines)

    def ask(prompt: str) -> str:
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    def answer(result: Result) -> None:
        answers.append(list(itertools.islice(result.rows, most)))

    converse(labelled, answer, ask)
    return answers


def test_the_prompt_takes_a_query_over_several_lines(opened: Labelled) -> None:
    assert typed(opened, "SELECT count(*)", "-- not yet;", "FROM turns", ";", "SELECT ';'", ";") == [[[6]], [[";"]]]


def test_the_prompt_goes_on_after_a_mistake(opened: Labelled, capsys: pytest.CaptureFixture[str]) -> None:
    latin = UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "unexpected end of data")
    assert typed(opened, "SELEC 1;", ".nothing", "", latin, "SELECT", KeyboardInterrupt, "SELECT 2;") == [[[2]]]
    out = capsys.readouterr().out
    assert "The query is not in UTF-8" in out
    assert "syntax error" in out
    assert "There is no .nothing" in out


@pytest.mark.parametrize(
    "endless", ["SELECT count(*) FROM range(1_000_000_000_000) WHERE hash(range) % 7 = 3", ENDLESS]
)
def test_ctrl_c_stops_a_query_and_not_the_prompt(opened: Labelled, endless: str) -> None:
    stopped = threading.Event()
    lines = iter([f"{endless};", "SELECT 2;"])
    answers = []

    def press() -> None:
        # Python drops a signal that comes while it destroys something: who sees that nothing stops presses again.
        while not stopped.wait(1):
            os.kill(os.getpid(), signal.SIGINT)

    def ask(prompt: str) -> str:
        line = next(lines, None)
        if line != f"{endless};":
            stopped.set()
        if line is None:
            raise EOFError
        return line

    # A shell that starts the tests in the background has them ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presses = threading.Thread(target=press)
    presses.start()
    try:
        converse(opened, lambda result: answers.append(list(result.rows)), ask)
    finally:
        stopped.set()
        presses.join()
        signal.signal(signal.SIGINT, before)
    assert answers == [[[2]]]


def test_the_prompt_goes_on_after_a_mistake_in_a_late_row(opened: Labelled, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(opened, f"{WRONG_LATE};", "SELECT 2;") == [[[2]]]
    assert "Could not convert string 'a'" in capsys.readouterr().out


def test_nothing_waits_for_an_answer_that_is_not_read_to_its_end(
    opened: Labelled, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = typed(opened, f"{ENDLESS}; SELECT 2;", f"{ENDLESS};", ".tables", ".schema goals", f"{ENDLESS};", most=1)
    assert answers == [[[0]], [[2]], [[0]], [[0]]]
    out = " ".join(capsys.readouterr().out.split())
    assert "│ turns │ 6 │" in out
    assert all(field.name in out for field in VIEWS["goals"])


@pytest.mark.parametrize("command", [".tables", ".schema", ".schema goals"])
@pytest.mark.parametrize("change", ["DROP TABLE goals;", "ALTER TABLE goals RENAME TO aims;"])
def test_a_table_that_is_gone_is_one_sentence(
    opened: Labelled, capsys: pytest.CaptureFixture[str], change: str, command: str
) -> None:
    assert typed(opened, change, command, "SELECT 2;")[1:] == [[[2]]]
    out = " ".join(capsys.readouterr().out.split())
    assert "The table goals is gone: start faultline query again to have it back." in out


def test_a_column_that_is_gone_is_not_shown(opened: Labelled, capsys: pytest.CaptureFixture[str]) -> None:
    typed(opened, "ALTER TABLE turns RENAME text TO t;", ".schema turns")
    out = capsys.readouterr().out
    assert "│ response " in out
    assert "│ text " not in out


def test_a_mistake_in_a_transaction_is_over_with_rollback(opened: Labelled, capsys: pytest.CaptureFixture[str]) -> None:
    typed(opened, "BEGIN;", "SELECT 'a'::int;", ".tables", ".schema", "ROLLBACK;", ".schema goals")
    out = capsys.readouterr().out
    assert out.count("Current transaction is aborted (please ROLLBACK).\n") == 2
    assert all(field.name in out for field in VIEWS["goals"])


def test_the_prompt_shows_what_can_be_asked(opened: Labelled, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(opened, ".tables", ".schema goals", ".help", ".exit", "SELECT 1;") == []
    out = " ".join(capsys.readouterr().out.split())
    assert "│ turns │ 6 │" in out
    assert all(field.name in out for field in VIEWS["goals"])
    assert ".schema [TABLE]" in out
