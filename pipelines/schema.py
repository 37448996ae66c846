"""`faultline schema`: prints the JSON Schema of a log, or the columns of an output table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from pipelines.options import OptionParser
from schemas.labels import TABLES
from schemas.log import Dialogue, TurnEvent, json_schema

_LOGS: dict[str, type[Dialogue] | type[TurnEvent]] = {"jsonl": Dialogue, "turns": TurnEvent}


def run(argv: Sequence[str] | None = None) -> None:
    """Prints the schema that the options name. Raises `UserError`."""
    parser = OptionParser("faultline schema", "Prints the JSON Schema of a log, or the columns of an output table.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--log",
        choices=list(_LOGS),
        default="jsonl",
        help="the log: a dialogue a line, or a turn a line (default: %(default)s)",
    )
    what.add_argument("--table", choices=list(TABLES), help="the columns of this table of faultline label")
    options = parser.parse_args(argv)
    if options.table is None:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(json_schema(_LOGS[options.log])), indent=2).decode())
        sys.stdout.write("\n")
    else:
        _print_columns(options.table)


def _print_columns(table: str) -> None:
    shown = Table("column", "type", "what it is", "null", title=table, title_justify="left")
    for field in TABLES[table]:
        metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        about = [metadata.get("description", "")]
        about += [f"{key}: {metadata[key].replace('|', ', ')}" for key in ("unit", "enum") if key in metadata]
        null = metadata.get("null", "may be null") if field.nullable else "never"
        shown.add_row(field.name, str(field.type), "; ".join(each for each in about if each), null)
    Console().print(shown)


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["schema", *sys.argv[1:]]))
