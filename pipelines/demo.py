"""What `make demo` shows of a labelled output: where the tables are, one failing dialogue, and a query.

It reads what any user can read: the Parquet tables, with DuckDB, and the log that they are the labels of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.errors import UserError
from pipelines.logs import read_logs
from schemas.labels import TABLES
from schemas.log import Dialogue, FailurePoint

_PIPED_WIDTH = 120

QUERY = """\
SELECT intent, failure_point, count(*) AS turns, round(avg(failure_point_confidence), 2) AS confidence
FROM '{output}/turns/**/*.parquet'
WHERE failure_point <> 'correct' AND NOT list_contains(abstained, 'failure_point')
GROUP BY ALL ORDER BY turns DESC, confidence DESC, intent, failure_point LIMIT 8"""

_FAILING = """\
SELECT dialogue_id FROM '{output}/turns/**/*.parquet'
WHERE failure_point <> 'correct'
GROUP BY dialogue_id ORDER BY max(failure_point_confidence) DESC, dialogue_id LIMIT 1"""

_LABELS = """\
SELECT * FROM '{output}/turns/**/*.parquet' WHERE dialogue_id = $dialogue_id ORDER BY turn_index"""


def show(output: str, logs: str, console: Console) -> None:
    """Prints the demo of the folder `output`, which holds the labels of the canonical log `logs`.

    Raises `UserError` where `output` holds no labels.
    """
    if not any(Path(output, "turns").rglob("*.parquet")):
        raise UserError(f"There are no labels in {output}: run faultline label --output {output} first.")
    console.print("\nThese logs are [bold]synthetic[/]: faultline simulate made them up, truth included.\n")
    console.print(_tables(output))
    failing = _ask(_FAILING.format(output=output))
    if failing:
        console.print()
        console.print(_dialogue(output, _find(logs, failing[0]["dialogue_id"])))
    else:
        console.print("\nNo turn failed.\n")
    query = QUERY.format(output=output)
    console.print(f"\nWhat fails most, and where? Ask DuckDB:\n\n[bold]{escape(query)}[/]\n")
    console.print(_result(_ask(query)))


def _tables(output: str) -> Table:
    shown = Table("table", "rows", "files", title="The tables", title_justify="left")
    for name in TABLES:
        pattern = f"{output}/{name}/**/*.parquet"
        # DuckDB takes a pattern that matches nothing for a mistake; here it is a table without rows.
        written = any(Path(output, name).rglob("*.parquet"))
        rows = _ask(f"SELECT count(*) AS rows FROM '{pattern}'")[0]["rows"] if written else 0
        shown.add_row(name, f"{rows:,}", pattern)
    return shown


def _find(logs: str, dialogue_id: str) -> Dialogue:
    return next(found for found in read_logs([logs], "jsonl").dialogues if found.dialogue_id == dialogue_id)


def _dialogue(output: str, dialogue: Dialogue) -> Table:
    columns = ["", "user", "assistant", "goal", "intent", "slots", "failure point", "annotated"]
    shown = Table(
        *columns,
        title=f"One dialogue that failed: {dialogue.dialogue_id}",
        caption="0.87: the label's confidence. ?: the model abstains. annotated: the failure point in truth.",
        title_justify="left",
        caption_justify="left",
        show_lines=True,
    )
    for row in _ask(_LABELS.format(output=output), {"dialogue_id": dialogue.dialogue_id}):
        turn = dialogue.turns[row["turn_index"]]
        failed = row["failure_point"] != FailurePoint.CORRECT
        shown.add_row(
            str(row["turn_index"]),
            escape(turn.text or ""),
            escape((turn.response and turn.response.text) or "") + (" (interrupted)" if turn.barge_in else ""),
            escape(row["goal_id"].removeprefix(dialogue.dialogue_id)),
            _sure(row, "intent"),
            escape("\n".join(f"{slot['name']}={slot['value']}" for slot in row["slots"])),
            f"[bold red]{_sure(row, 'failure_point')}[/]" if failed else _sure(row, "failure_point"),
            str((turn.annotation and turn.annotation.failure_point) or ""),
        )
    return shown


def _sure(row: dict[str, Any], label: str) -> str:
    """The label with its confidence, and a question mark where the model abstains."""
    if row[label] is None:
        return ""
    return escape(f"{row[label]}{'?' if label in row['abstained'] else ''} {row[f'{label}_confidence']:.2f}")


def _ask(query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    with duckdb.connect() as database:
        answer = database.execute(query, parameters)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, values, strict=True)) for values in answer.fetchall()]


def _result(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(*(rows[0] if rows else ("nothing",)))
    for row in rows:
        shown.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the demo; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=show.__doc__)
    parser.add_argument("logs", help="canonical dialogue logs")
    parser.add_argument("output", help="the --output folder of faultline label on these logs")
    options = parser.parse_args(argv)
    try:
        show(options.output, options.logs, Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
