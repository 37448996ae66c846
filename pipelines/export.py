"""`faultline export`: writes the turns whose labels most need a person, for Label Studio or Argilla.

Which turns, and why, is said in `pipelines.annotation.selection`; why a turn and not a dialogue is the unit, in
`pipelines.annotation`. The model's labels stand there as first answers. `faultline import` brings the answers back.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
from rich.console import Console
from rich.table import Table

from pipelines import storage
from pipelines.annotation import argilla, label_studio
from pipelines.annotation.selection import SHARES, Chosen, choose
from pipelines.annotation.tasks import Form, Line, Strategy, Suggested, Task, shown
from pipelines.errors import UserError, unwritable
from pipelines.labelled import Labelled
from pipelines.options import OptionParser, whole_number
from schemas.labels import SlotLabel
from schemas.log import FailurePoint

HYPOTHESES = 5
"""Entries of an n-best list that are shown."""
CHOICES = 250
"""Intents, and slots, that can be chosen, the most frequent of the output; others can be written down."""


class Tool(StrEnum):
    """The tools that people annotate in."""

    LABEL_STUDIO = "label-studio"
    ARGILLA = "argilla"


_WRITERS = {Tool.LABEL_STUDIO: label_studio.write, Tool.ARGILLA: argilla.write}
_NEXT = {
    Tool.LABEL_STUDIO: "make a project with config.xml as its labelling interface, and import tasks.json into it",
    Tool.ARGILLA: "load the folder with rg.Dataset.from_disk(folder, workspace=…)",
}


@dataclass(frozen=True)
class ExportSettings:
    """What `faultline export` was asked to do."""

    labels: str
    tool: Tool
    output: str
    number: int
    shares: Mapping[Strategy, float]


class ExportSummary(NamedTuple):
    """What was written."""

    files: list[Path]
    tasks: list[Task]
    asked: dict[Strategy, int]
    """turns that each strategy was asked for"""
    notes: tuple[str, ...]
    """what of the logs could not be read"""


def run(argv: Sequence[str] | None = None) -> ExportSummary:
    """Exports by command line and prints the mix. Raises `UserError` and `RunFailed`."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    summary = export(settings)
    console = Console(markup=False)
    for note in summary.notes:
        console.print(note, style="yellow", highlight=False)
    console.print(_shown_mix(summary))
    files = ", ".join(str(path) for path in summary.files)
    console.print(f"Written: {files}. Next: {_NEXT[settings.tool]}.", highlight=False, soft_wrap=True)
    return summary


def parse(argv: Sequence[str]) -> ExportSettings:
    """The settings that the command line asks for. Raises `UserError`."""
    options = _parser().parse_args(argv)
    output = storage.absolute(options.output)
    if "://" in output:
        raise UserError(f"--output {options.output} must be a local folder: name one, and copy it afterwards.")
    return ExportSettings(
        labels=options.labels,
        tool=Tool(options.to),
        output=output,
        number=options.number,
        shares=SHARES if options.strategy is None else _shares(options.strategy),
    )


def export(settings: ExportSettings) -> ExportSummary:
    """Chooses the turns and writes the tool's files. Raises `UserError` and `RunFailed`."""
    folder = Path(settings.output)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--output {settings.output} is there already: name a new folder, or empty this one.")
        storage.writable_folder(settings.output)
    except OSError as error:
        raise unwritable(f"--output {settings.output}", error) from error
    with Labelled.open(settings.labels) as labelled:
        choice = choose(labelled.connection, settings.number, settings.shares)
        if not choice.turns:
            raise UserError(
                f"There is no turn to annotate in {settings.labels}: "
                + (labelled.notes[0] if labelled.notes else "ask for more strategies with --strategy.")
            )
        tasks = _tasks(labelled.connection, choice.turns)
        form = _form(labelled.connection, tasks)
        notes = labelled.notes
    try:
        with storage.replaced(settings.output) as draft:
            files = [folder / each.name for each in _WRITERS[settings.tool](tasks, form, draft)]
    except OSError as error:
        raise unwritable(f"--output {settings.output}", error) from error
    return ExportSummary(files, tasks, choice.asked, notes)


_TURNS = """
SELECT turns.*, dialogues.success, dialogues.success_confidence
FROM turns JOIN dialogues USING (dataset, dialogue_id)
WHERE dialogue_id IN (SELECT unnest($ids)) ORDER BY turn_index"""


def _tasks(connection: duckdb.DuckDBPyConnection, chosen: Sequence[Chosen]) -> list[Task]:
    """The dialogues in the order in which they were first chosen; the turns of each in theirs."""
    answer = connection.execute(_TURNS, {"ids": [turn.dialogue_id for turn, _ in chosen]})
    names = [column[0] for column in answer.description or ()]
    dialogues: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for values in answer.fetchall():
        row = dict(zip(names, values, strict=True))
        dialogues.setdefault((row["dataset"], row["dialogue_id"]), []).append(row)
    by_dialogue: dict[tuple[str, str], list[Chosen]] = {}
    for each in chosen:
        by_dialogue.setdefault(each.turn[:2], []).append(each)
    return [
        _task(dialogues[key], turn.turn_index, strategy, turn.why)
        for key, turns in by_dialogue.items()
        for turn, strategy in sorted(turns, key=lambda each: each.turn.turn_index)
    ]


def _task(rows: Sequence[Mapping[str, Any]], index: int, strategy: Strategy, why: str) -> Task:
    row = rows[index]
    return Task(
        dataset=row["dataset"],
        dialogue_id=row["dialogue_id"],
        turn_index=index,
        text=shown(row["text"]),
        spoken=bool(row["asr"]),
        lines=list(_lines(rows, index)),
        system=list(_system(row)),
        strategy=strategy,
        why=why,
        suggested=Suggested(
            failure_point=FailurePoint(row["failure_point"]),
            failure_point_confidence=row["failure_point_confidence"],
            success=row["success"],
            success_confidence=row["success_confidence"],
            intent=row["intent"],
            intent_confidence=row["intent_confidence"],
            slots=[SlotLabel(**slot) for slot in row["slots"]],
        ),
        model_version=row["model_version"],
    )


def _lines(rows: Sequence[Mapping[str, Any]], asked: int) -> Iterator[Line]:
    for index, row in enumerate(rows):
        yield Line("user", shown(row["text"]), index == asked)
        if row["response"] is not None:
            yield Line("assistant", shown(row["response"]), False)


def _system(row: Mapping[str, Any]) -> Iterator[str]:
    """What each component made of a turn, a line each, as far as it is logged."""
    if row["asr"]:
        heard = [f"“{each['text']}”{_score(each)}" for each in row["asr"][:HYPOTHESES]]
        yield f"heard: {', '.join(heard)}"
    for hypothesis in row["nlu"][:HYPOTHESES] if row["nlu"] else []:
        slots = ", ".join(f"{slot['name']} = {slot['value']}" for slot in hypothesis["slots"] or [])
        name = " / ".join(filter(None, (hypothesis["domain"], hypothesis["intent"]))) or "nothing"
        yield f"understood: {name} ({slots}){_score(hypothesis)}"
    for entity in row["entities"][:HYPOTHESES] if row["entities"] else []:
        yield f"resolved: {entity['slot']} {entity['value'] or ''} → {entity['name'] or 'nothing'}{_score(entity)}"
    if row["action"] is not None or row["status"] is not None:
        yield f"did: {row['action'] or 'nothing'} ({row['status'] or 'it is not logged how it ended'})"
    if row["barge_in"]:
        yield "the user spoke over the response"
    labels = [row["failure_point"], *(f"abstains: {name}" for name in row["abstained"])]
    yield f"labelled: {', '.join(labels)}"


def _score(entry: Mapping[str, Any]) -> str:
    return "" if entry["score"] is None else f" {entry['score']:.2f}"


_INTENTS = """
SELECT intent FROM (
  SELECT intent FROM turns UNION ALL SELECT unnest(nlu).intent FROM turns
) WHERE intent IS NOT NULL GROUP BY intent ORDER BY count(*) DESC, intent LIMIT $limit"""
_SLOTS = """
SELECT name FROM (
  SELECT unnest(slots).name AS name FROM turns UNION ALL SELECT unnest(nlu[1].slots).name FROM turns
) WHERE name IS NOT NULL GROUP BY name ORDER BY count(*) DESC, name LIMIT $limit"""


def _form(connection: duckdb.DuckDBPyConnection, tasks: Sequence[Task]) -> Form:
    """What can be chosen from: the names in the output and in the logs' own NLU hypotheses."""

    def names(query: str, suggested: Iterator[str]) -> list[str]:
        found = (name for (name,) in connection.execute(query, {"limit": CHOICES}).fetchall())
        return sorted({*found, *suggested})

    return Form(
        intents=names(_INTENTS, (task.suggested.intent for task in tasks if task.suggested.intent is not None)),
        slots=names(_SLOTS, (slot.name for task in tasks for slot in task.suggested.slots)),
        spoken=any(task.spoken for task in tasks),
    )


def _shares(text: str) -> dict[Strategy, float]:
    """The mix that `--strategy` asks for: `uncertain`, or `uncertain=3,random=1`."""
    shares: dict[Strategy, float] = {}
    for entry in text.split(","):
        name, _, share = (part.strip() for part in entry.partition("="))
        if name not in tuple(Strategy):
            raise UserError(f"--strategy has {name!r}: choose from {', '.join(Strategy)}, joined by commas.")
        if not (share or "1").isdecimal() or int(share or 1) < 1:
            raise UserError(f"--strategy has {entry.strip()!r}: a share is a whole number of at least 1.")
        shares[Strategy(name)] = int(share or 1)
    return shares


def _shown_mix(summary: ExportSummary) -> Table:
    dialogues = {(task.dataset, task.dialogue_id) for task in summary.tasks}
    title = f"{len(summary.tasks):,} turns of {len(dialogues):,} dialogues"
    table = Table("strategy", "asked for", "chosen", title=title, title_justify="left")
    chosen = Counter(task.strategy for task in summary.tasks)
    for strategy, asked in summary.asked.items():
        table.add_row(strategy, f"{asked:,}", f"{chosen[strategy]:,}")
    return table


def _parser() -> OptionParser:
    parser = OptionParser("faultline export", (__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--labels", required=True, metavar="DIR", help="an output folder of faultline label")
    add("--to", required=True, choices=list(Tool), help="the tool that people annotate in")
    add("--output", required=True, metavar="DIR", help="a new folder for the tool's files")
    add(
        "--number",
        type=whole_number,
        default=200,
        metavar="N",
        help="turns to choose (default: %(default)s)",
    )
    mix = ",".join(f"{strategy}={share:g}" for strategy, share in SHARES.items())
    add(
        "--strategy",
        metavar="MIX",
        help=f"why turns are chosen, and in which shares: {', '.join(Strategy)}, joined by commas, each with =SHARE "
        f"or 1 (default: {mix})",
    )
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["export", *sys.argv[1:]]))
