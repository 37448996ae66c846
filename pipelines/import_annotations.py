"""`faultline import`: brings people's answers back as annotated logs, which train and evaluate read.

Each submitted answer of one person on one turn is a vote, question by question; the success is a question about the
dialogue, so the votes of all of its turns count. The answer with most votes is taken; where two lead alike, none is,
and the tie is counted. What is not taken over is counted with its reason, and the first of each is shown.

The output holds, as a dialogue a line in the canonical form, the dialogues of which something was answered. What the
log's own annotation says beside the answers stays.
"""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from pipelines import storage
from pipelines.annotation import argilla, label_studio
from pipelines.annotation.tasks import Answer, LeftOut, Question, Reason, shown
from pipelines.errors import UserError, unwritable
from pipelines.export import Tool
from pipelines.labelled import Labelled
from pipelines.options import OptionParser
from pipelines.privacy import Privacy
from schemas.log import Dialogue, DialogueAnnotation, Slot, Turn, TurnAnnotation, validate

T = TypeVar("T")
_READERS: dict[Tool, Callable[[Path], Iterator[Answer | LeftOut]]] = {
    Tool.LABEL_STUDIO: label_studio.read,
    Tool.ARGILLA: argilla.read,
}
_DialogueKey = tuple[str, str]
"""Dataset and dialogue id."""


@dataclass(frozen=True)
class ImportSettings:
    """What `faultline import` was asked to do."""

    tool: Tool
    input: Path
    labels: str
    output: str


@dataclass
class ImportSummary:
    """What came of the answers."""

    answers: int = 0
    """submitted, by anybody"""
    dialogues: int = 0
    """annotated"""
    turns: int = 0
    """annotated"""
    annotated: Counter[Question] = field(default_factory=Counter)
    """turns by question; of the success, dialogues"""
    left_out: Counter[Reason] = field(default_factory=Counter)
    first: dict[Reason, str] = field(default_factory=dict)
    """the first that was left out for each reason, in words"""

    def leave_out(self, left_out: LeftOut) -> None:
        """Counts it."""
        self.left_out[left_out.reason] += 1
        self.first.setdefault(left_out.reason, left_out.message)


def run(argv: Sequence[str] | None = None) -> ImportSummary:
    """Imports by command line and prints what came of it. Raises `UserError` and `RunFailed`."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    summary = import_annotations(settings)
    console = Console(markup=False)
    console.print(_shown(summary))
    console.print(f"Written: {settings.output}", highlight=False, soft_wrap=True)
    return summary


def parse(argv: Sequence[str]) -> ImportSettings:
    """The settings that the command line asks for. Raises `UserError`."""
    parser = OptionParser("faultline import", (__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    # `from` is no name of an attribute.
    add("--from", dest="tool", required=True, choices=list(Tool), help="the tool that people annotated in")
    add(
        "--input",
        required=True,
        metavar="FILE",
        help="their answers: of Label Studio an export in the format JSON, of Argilla "
        "json.dump(dataset.records.to_list(flatten=True), file)",
    )
    add("--labels", required=True, metavar="DIR", help="the output folder that faultline export was given")
    add(
        "--output",
        required=True,
        metavar="FILE",
        help="the annotated logs, in the canonical form: .jsonl, or .jsonl.gz for gzip",
    )
    options = parser.parse_args(argv)
    output = storage.absolute(options.output)
    if not output.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"--output {options.output} must end in .jsonl or .jsonl.gz.")
    if "://" in output:
        raise UserError(f"--output {options.output} must be a local file: name one, and copy it afterwards.")
    return ImportSettings(Tool(options.tool), Path(storage.absolute(options.input)), options.labels, output)


def import_annotations(settings: ImportSettings) -> ImportSummary:
    """Reads the answers, puts them into the logs, and writes these. Raises `UserError` and `RunFailed`."""
    summary = ImportSummary()
    answers: dict[_DialogueKey, dict[int, list[Answer]]] = {}
    for read in _READERS[settings.tool](settings.input):
        if isinstance(read, LeftOut):
            summary.leave_out(read)
            continue
        summary.answers += 1
        turns = answers.setdefault((read.dataset, read.dialogue_id), {})
        turns.setdefault(read.turn_index, []).append(read)
    if not answers:
        why = "; ".join(summary.first.values()) or "it is empty."
        raise UserError(f"--input {settings.input} has no submitted answer: {why}")
    annotated = []
    with Labelled.open(settings.labels, logs=False) as labelled:
        hidden = {manifest.dataset: Privacy.of_run(manifest.settings) for manifest in labelled.manifests}
        for key, logged in labelled.dialogues(list(answers)):
            # As it was shown to those who judged it.
            dialogue = hidden[key[0]].hide_texts(hidden[key[0]].hide_ids(logged))
            if _annotate(dialogue, answers.pop(key), summary):
                annotated.append(validate(dialogue))
    for (_, dialogue_id), turns in answers.items():
        for index, given in turns.items():
            for _ in given:
                message = f"Dialogue {dialogue_id}, of which turn {index} was judged, is not in the logs of --labels."
                summary.leave_out(LeftOut(Reason.UNKNOWN_TURN, message))
    if not annotated:
        raise UserError(
            f"Nothing of --input {settings.input} belongs to the logs of {settings.labels}: give the --labels that "
            f"faultline export was given. {' '.join(summary.first.values())}"
        )
    summary.dialogues = len(annotated)
    _write(settings.output, annotated)
    return summary


def _annotate(dialogue: Dialogue, answers: dict[int, list[Answer]], summary: ImportSummary) -> bool:
    """Puts the answers into the dialogue; whether it took any."""
    fitting: dict[int, list[Answer]] = {}
    for index, given in sorted(answers.items()):
        turn = dialogue.turns[index] if 0 <= index < len(dialogue.turns) else None
        for answer in given:
            named = f"turn {index} of dialogue {dialogue.dialogue_id}"
            if turn is None:
                summary.leave_out(LeftOut(Reason.UNKNOWN_TURN, f"There is no {named} in the logs of --labels."))
            elif answer.text != shown(turn.text):
                summary.leave_out(LeftOut(Reason.CHANGED_TEXT, f"The text of {named} is not what was judged."))
            else:
                fitting.setdefault(index, []).append(answer)
    for index, given in fitting.items():
        summary.turns += _annotate_turn(dialogue, index, given, summary)
    votes = [answer.success for given in fitting.values() for answer in given]
    success = _agreed(votes, Question.SUCCESS, f"Dialogue {dialogue.dialogue_id}", summary)
    if success is not None:
        dialogue.annotation = dialogue.annotation or DialogueAnnotation()
        dialogue.annotation.success = success
    return bool(fitting)


def _annotate_turn(dialogue: Dialogue, index: int, given: Sequence[Answer], summary: ImportSummary) -> bool:
    """Puts what is agreed of one turn into it; whether anything is."""
    turn = dialogue.turns[index]
    named = f"Turn {index} of dialogue {dialogue.dialogue_id}"

    def agreed(votes: Iterable[T | None], question: Question) -> T | None:
        return _agreed(votes, question, named, summary)

    annotation = turn.annotation or TurnAnnotation()
    found: dict[str, object] = {
        "failure_point": agreed((answer.failure_point for answer in given), Question.FAILURE_POINT),
        "intent": agreed((answer.intent for answer in given), Question.INTENT),
        "transcript": agreed((answer.transcript for answer in given), Question.TRANSCRIPT),
    }
    slots = agreed(((answer.marked, answer.written) for answer in given), Question.SLOTS)
    if slots is not None:
        found["slots"] = _slots(turn, *slots)
    known = {name: value for name, value in found.items() if value is not None}
    if known:
        turn.annotation = msgspec.structs.replace(annotation, **known)
    return bool(known)


def _agreed(votes: Iterable[T | None], question: Question, named: str, summary: ImportSummary) -> T | None:
    """The answer that most gave; None where two lead alike, or nobody answered."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return None
    (best, most), *others = counts.most_common(2)
    if any(count == most for _, count in others):
        summary.leave_out(LeftOut(Reason.TIE, f"{named}: as many say one {question} as another."))
        return None
    summary.annotated[question] += 1
    return best


def _slots(turn: Turn, marked: Iterable[tuple[str, int, int]], written: Iterable[tuple[str, str]]) -> list[Slot]:
    text = turn.text or ""
    return [
        *(
            Slot(name=name, value=text[start:end], start=start, end=end)
            for name, start, end in sorted(marked, key=lambda each: (each[1], each[2], each[0]))
        ),
        *(Slot.said_in(text, name, value) for name, value in sorted(written)),
    ]


def _write(path: str, dialogues: Iterable[Dialogue]) -> None:
    content = b"".join(msgspec.json.encode(dialogue) + b"\n" for dialogue in dialogues)
    if path.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(path, content, temporary=str(Path(path).parent))
    except OSError as error:
        raise unwritable(f"--output {path}", error) from error


def _shown(summary: ImportSummary) -> Table:
    table = Table(title=f"{summary.answers:,} answers", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_row("dialogues annotated", f"{summary.dialogues:,}", "")
    table.add_row("turns annotated", f"{summary.turns:,}", "")
    for question in Question:
        if summary.annotated[question]:
            table.add_row(f"annotated: {question.replace('_', ' ')}", f"{summary.annotated[question]:,}", "")
    if summary.left_out:
        table.add_section()
    for reason, count in sorted(summary.left_out.items()):
        table.add_row(f"left out: {reason.replace('_', ' ')}", f"{count:,}", f"the first: {summary.first[reason]}")
    return table


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["import", *sys.argv[1:]]))
