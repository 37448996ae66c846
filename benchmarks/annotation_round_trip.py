"""Does a round trip through people make a better model? Measured with simulated logs, whose truth plays the person.

    python benchmarks/annotation_round_trip.py --work DIR [--init MODEL] [--threads N]

1. A first model learns from a few annotated dialogues.
2. It labels a pool of dialogues without annotations; `faultline export` chooses turns for each tool.
3. The tool's own package loads the export, checks it, and writes answers in the tool's form: those of the truth.
4. `faultline import` makes annotated logs of them, and a second model learns from these as well.
5. `faultline evaluate` scores both models on dialogues of another seed.

Both models are trained for about as many steps, so that the second is no better for having learned longer. Where the
annotated logs of both tools are the same bytes, one training stands for both. Needs the extras `annotate` and, unless
`--init` names a checkpoint, `minilm`. Exit code 1: the second model is no better in macro-F1 of the failure points.
"""

from __future__ import annotations

import argparse
import gzip
import http.server
import json
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from pipelines import evaluate, export, import_annotations, label, simulate, train
from pipelines.annotation import argilla, label_studio
from pipelines.annotation.tasks import NO, YES, Question
from pipelines.cli import guarded
from pipelines.evaluation import MODEL, Evaluation, Score
from pipelines.export import Tool
from pipelines.logs import read_logs
from pipelines.training_run import MINILM
from schemas.log import Dialogue, Slot

FIRST, POOL, HELD_OUT = 400, 2_000, 400
"""Dialogues that the first model learns from, that are labelled, and that both models are scored on."""
ASKED = 1_000
"""Turns that people are asked about."""
PASSES = 8.0
SHOWN = {
    "failure_point": ("macro_f1", "defect_f1", "defect_average_precision"),
    "intent": ("accuracy",),
    "slots": ("f1",),
    "success": ("roc_auc",),
}

Truth = Mapping[str, Dialogue]
"""The annotated dialogues by id."""


# A person who knows the truth, in each tool


def answers(task: Mapping[str, Any], truth: Truth, intents: Sequence[str]) -> dict[Question, Any]:
    """The true answers about a turn, in the words of the form; what the truth does not say is not answered.

    `task` has `dialogue_id`, `turn_index` and `text`; slots that are words of the text are triples of name, start and
    end.
    """
    dialogue = truth[task["dialogue_id"]]
    known = dialogue.turns[task["turn_index"]].annotation
    given: dict[Question, Any] = {}
    if dialogue.annotation is not None and dialogue.annotation.success is not None:
        given[Question.SUCCESS] = YES if dialogue.annotation.success else NO
    if known is None:
        return given
    given[Question.FAILURE_POINT] = known.failure_point
    given[Question.INTENT if known.intent in intents else Question.OTHER_INTENT] = known.intent
    given[Question.TRANSCRIPT] = known.transcript or None
    slots = known.slots or []
    given[Question.SLOTS] = [(slot.name, slot.start, slot.end) for slot in slots if _is_marked(slot, task["text"])]
    others = [f"{slot.name} = {slot.value}" for slot in slots if not _is_marked(slot, task["text"])]
    given[Question.OTHER_SLOTS] = "\n".join(others) or None
    return {question: answer for question, answer in given.items() if answer}


def _is_marked(slot: Slot, text: str) -> bool:
    return slot.start is not None and text[slot.start : slot.end] == slot.value


def annotate_in_label_studio(folder: Path, truth: Truth, output: Path) -> None:
    """Answers the tasks of an export as Label Studio's package has them, and writes a JSON export."""
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import AnnotationValue

    interface = LabelInterface((folder / label_studio.CONFIG).read_text(encoding="utf-8"))
    interface.validate()
    intents = list(interface.get_control(Question.INTENT).labels) if Question.INTENT in interface._controls else []
    done = []
    for number, task in enumerate(json.loads((folder / label_studio.TASKS).read_bytes()), start=1):
        [prediction] = task["predictions"]
        if not interface.validate_task({"data": task["data"]}):
            raise ValueError(f"Label Studio refuses task {number}")
        if errors := interface.validate_prediction(prediction, return_errors=True):
            raise ValueError(f"Label Studio refuses the prediction of task {number}: {errors}")
        given = answers(task["data"], truth, intents)
        spans = given.pop(Question.SLOTS, [])
        regions = interface.create_regions(
            {
                **{
                    question: answer.split("\n") if _is_written(question) else answer
                    for question, answer in given.items()
                },
                Question.SLOTS: [{"label": name, "start": start, "end": end} for name, start, end in spans],
            }
        )
        annotation = AnnotationValue(completed_by=1, result=regions, result_count=len(regions)).model_dump()
        if not interface.validate_annotation(annotation):
            raise ValueError(f"Label Studio refuses the annotation of task {number}")
        done.append({"id": number, **task, "annotations": [{"id": number, **annotation}]})
    output.write_text(json.dumps(done), encoding="utf-8")


def _is_written(question: Question) -> bool:
    return question in (Question.OTHER_INTENT, Question.OTHER_SLOTS, Question.TRANSCRIPT)


def annotate_in_argilla(folder: Path, truth: Truth, output: Path) -> None:
    """Answers the records of an export as Argilla's package has them, and writes them as a list."""
    import argilla as rg
    from argilla.records._io import GenericIO, JsonIO

    with _argilla_client():
        settings = rg.Settings.from_json(folder / argilla.SETTINGS)
        settings.validate()
        questions = {question.name: question for question in settings.questions}
        intents = questions[Question.INTENT].labels if Question.INTENT in questions else []
        records = JsonIO._records_from_json(folder / argilla.RECORDS)
        person = uuid.uuid4()
        for record in records:
            unknown = {each.question_name for each in record.suggestions} - questions.keys()
            if unknown:
                raise ValueError(f"Argilla has no question for the suggestions {unknown}")
            for question, answer in answers({**record.metadata, **record.fields}, truth, intents).items():
                if question == Question.SLOTS:
                    answer = [{"label": name, "start": start, "end": end} for name, start, end in answer]
                record.responses.add(rg.Response(question, answer, user_id=person, status="submitted"))
        output.write_text(json.dumps(GenericIO.to_list(records, flatten=True)), encoding="utf-8")


@contextmanager
def _argilla_client() -> Iterator[None]:
    """Argilla's package makes no settings before it has logged in: a server that answers this one request."""
    import argilla as rg

    class Me(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            user = {"id": str(uuid.uuid4()), "username": "annotator", "role": "owner"}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(user).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Me) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rg.Argilla(api_url=f"http://127.0.0.1:{server.server_port}", api_key="any")
        yield
        server.shutdown()


ANNOTATORS = {Tool.LABEL_STUDIO: annotate_in_label_studio, Tool.ARGILLA: annotate_in_argilla}


def annotated_through(tool: Tool, labels: Path, truth: Truth, number: int, work: Path) -> Path:
    """The annotated logs that come back from a tool: exported, answered, imported."""
    exported, answered, output = work / tool, work / f"{tool}.json", work / f"{tool}.jsonl"
    export.run(["--labels", str(labels), "--to", tool, "--output", str(exported), "--number", str(number)])
    ANNOTATORS[tool](exported, truth, answered)
    options = ["--from", tool, "--input", str(answered), "--labels", str(labels), "--output", str(output)]
    import_annotations.run(options)
    return output


# The measurement


def main() -> int:
    """Measures by command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="a new folder for everything that is made")
    parser.add_argument("--init", default=MINILM, help="as for faultline train (default: %(default)s)")
    parser.add_argument("--threads", help="CPU threads (default: all cores)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all sizes, to try it (default: 1)")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True)
    threads = ["--threads", options.threads] if options.threads else []
    sizes = {"first": FIRST, "pool": POOL, "held-out": HELD_OUT}
    logs = {name: work / f"{name}.jsonl.gz" for name in sizes}
    for seed, (name, size) in enumerate(sizes.items()):
        simulate.run(
            ["--dialogues", str(round(size * options.scale)), "--seed", str(seed), "--output", str(logs[name])]
        )
    truth = {dialogue.dialogue_id: dialogue for dialogue in read_logs([str(logs["pool"])], "jsonl").dialogues}
    bare = work / "pool-bare.jsonl.gz"
    bare.write_bytes(gzip.compress(b"".join(msgspec.json.encode(_bare(each)) + b"\n" for each in truth.values())))

    def learn(name: str, inputs: Sequence[Path], passes: float) -> Path:
        given = [word for path in inputs for word in ("--input", str(path))]
        trained = train.run(
            [*given, "--passes", f"{passes:g}", "--init", options.init, "--output", str(work / name), *threads]
        )
        return trained.folder

    def score(name: str, model: Path) -> Evaluation:
        given = ["--input", str(logs["held-out"]), "--part", "all", "--model", str(model)]
        return evaluate.run([*given, "--output", str(work / f"evaluation-{name}"), *threads])

    # The second model sees so many more turns in a pass: about the pool's turns that people are asked about, whole
    # dialogues of them.
    longer = 1 + ASKED * 2.5 / (FIRST * 3.5)
    first = learn("first", [logs["first"]], PASSES * longer)
    labels = work / "labels"
    label.run(["--input", str(bare), "--model", str(first), "--output", str(labels), "--no-progress"])
    evaluations = {"before": score("before", first)}
    made: dict[bytes, tuple[Tool, Evaluation]] = {}
    for tool in Tool:
        annotated = annotated_through(tool, labels, truth, round(ASKED * options.scale), work)
        content = annotated.read_bytes()
        if content not in made:
            made[content] = (tool, score(tool, learn(f"after-{tool}", [logs["first"], annotated], PASSES)))
        evaluations[tool] = made[content][1]
        if made[content][0] is not tool:
            shutil.copytree(work / f"evaluation-{made[content][0]}", work / f"evaluation-{tool}")
    _show(evaluations)
    before = _scores(evaluations["before"])["failure_point", "macro_f1"].value or 0.0
    after = [_scores(evaluations[tool])["failure_point", "macro_f1"].value or 0.0 for tool in Tool]
    return 0 if min(after) > before else 1


def _bare(dialogue: Dialogue) -> Dialogue:
    """The dialogue without what is known of it."""
    turns = [msgspec.structs.replace(turn, annotation=None) for turn in dialogue.turns]
    return msgspec.structs.replace(dialogue, turns=turns, annotation=None)


def _scores(evaluation: Evaluation) -> dict[tuple[str, str], Score]:
    return {
        (each.label, each.metric): each
        for each in evaluation.scores
        if each.predictor == MODEL and each.slice_by is None
    }


def _show(evaluations: Mapping[str, Evaluation]) -> None:
    table = Table("label", "measure", *evaluations, title="On dialogues that no training saw", title_justify="left")
    for name, metrics in SHOWN.items():
        for metric in metrics:
            found = [_scores(each).get((name, metric)) for each in evaluations.values()]
            table.add_row(
                name,
                metric,
                *("" if each is None else f"{each.value:.3f} ({each.low:.2f}-{each.high:.2f})" for each in found),
            )
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(guarded(main))
