"""What a model learns from the feedback in logs that nobody annotated.

    python benchmarks/feedback.py --init MODEL --input dstc2/train.jsonl.gz --input-format dstc2
        --annotations dstc2/train_failure_points.jsonl.gz --output feedback

Takes every annotation out of the logs' train and validation parts, lets the model go on learning from what is left
(`faultline train`), and scores it before and after on the annotated test part, which neither saw. Printed are the
scores, and what feedback changes in them, each with its 95 % interval by bootstrap over dialogues; macro-F1 is over the
failure points that enough test turns have. MODEL must not have been trained on these logs with their annotations. A
training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from labelers.failure_point import POINTS
from labelers.metrics import (
    Estimate,
    Floats,
    Sample,
    Statistic,
    calibration,
    classification,
    detection,
    found,
    roc_auc,
)
from labelers.model import Model
from pipelines import train
from pipelines.cli import guarded
from pipelines.logs import Part, annotate, part_of, read_logs
from pipelines.scoring import CORRECT, FailurePoints, annotated_success, success_probability
from pipelines.tracking import resolve_model
from schemas.labels import DialogueLabels
from schemas.log import Dialogue
from schemas.ontology import infer

_FEWEST = 20
"""Test turns with a failure point under which it does not count for macro-F1."""


def main() -> None:
    """Trains, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--init", required=True, metavar="MODEL", help="model folder, or builtin")
    parser.add_argument("--input", required=True, metavar="FILE", help="annotated logs with feedback")
    parser.add_argument("--input-format", default="jsonl", metavar="NAME", help="their format (default: jsonl)")
    parser.add_argument("--annotations", metavar="FILE", help="their failure points, as of faultline evaluate")
    parser.add_argument("--passes", type=float, default=3.0, metavar="N", help="default: %(default)s")
    parser.add_argument("--resamples", type=int, default=1_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the training goes there")
    options = parser.parse_args()
    dialogues = read_logs([options.input], options.input_format).dialogues
    if options.annotations:
        annotate(dialogues, options.annotations)
    test = [each for each in dialogues if part_of(each) is Part.TEST]
    bare = without_annotations(each for each in dialogues if part_of(each) is not Part.TEST)
    options.output.mkdir(parents=True, exist_ok=True)
    logs = options.output / "without-annotations.jsonl.gz"
    logs.write_bytes(gzip.compress(msgspec.json.Encoder().encode_lines(bare), mtime=0))
    command = ["--input", str(logs), "--init", options.init, "--passes", str(options.passes)]
    trained = train.run([*command, "--output", str(options.output / "training")])
    ontology = infer(test)
    labels = [
        Model.load(folder).label(test, ontology) for folder in (resolve_model(options.init, None), trained.folder)
    ]
    Console(width=140).print(_table(compare(test, labels[0], labels[1], options.resamples), len(test)))


def without_annotations(dialogues: Iterable[Dialogue]) -> list[Dialogue]:
    """Copies of the dialogues as they are where nobody annotated them."""
    return [
        msgspec.structs.replace(
            each, annotation=None, turns=[msgspec.structs.replace(turn, annotation=None) for turn in each.turns]
        )
        for each in dialogues
    ]


def compare(
    dialogues: Sequence[Dialogue], before: Sequence[DialogueLabels], after: Sequence[DialogueLabels], resamples: int
) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    """By measure: the score before, after, and the second less the first. What nothing annotates is absent."""
    compared: dict[str, tuple[Estimate, Estimate, Estimate]] = {}
    asked = FailurePoints.of(dialogues)
    if len(asked.truth):
        sample = Sample(asked.dialogues, resamples)
        compared |= _compare(sample, *(_of_turns(sample, asked, each) for each in (before, after)))
    numbers, success = annotated_success(dialogues)
    if numbers:
        sample = Sample(numbers, resamples)
        rankings = (
            roc_auc(sample, np.array([success_probability(labels[number]) for number in numbers]), success)
            for labels in (before, after)
        )
        compared["success ROC AUC"] = _compare(sample, *rankings)["roc_auc"]
    return compared


def _of_turns(sample: Sample, asked: FailurePoints, labels: Sequence[DialogueLabels]) -> Statistic:
    probabilities = asked.probabilities(labels)
    predicted = asked.decided(labels)
    counts = np.bincount(asked.truth, minlength=len(POINTS))
    counted = [str(point) for point, count in zip(POINTS, counts, strict=True) if count >= _FEWEST]
    flagged, defects = predicted != CORRECT, asked.defects
    probability = 1 - probabilities[:, CORRECT]
    ranked = detection(sample, probability, defects)
    calibrated = calibration(sample, probability, defects)
    decided = found(sample, defects & flagged, ~defects & flagged, defects & ~flagged)
    named = classification(sample, asked.truth, predicted, [str(point) for point in POINTS], counted)

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {
            "defect average precision": ranked(weights)["average_precision"],
            "defect F1": decided(weights)["f1"],
            "defect calibration error": calibrated(weights)["calibration_error"],
            f"macro-F1 ({', '.join(counted)})": named(weights)["macro_f1"],
        }

    return statistic


def _compare(sample: Sample, before: Statistic, after: Statistic) -> dict[str, tuple[Estimate, Estimate, Estimate]]:
    def difference(weights: Floats) -> dict[str, Floats]:
        old, new = before(weights), after(weights)
        return {name: new[name] - old[name] for name in old}

    estimates = [sample.estimate(each) for each in (before, after, difference)]
    return {name: (estimates[0][name], estimates[1][name], estimates[2][name]) for name in estimates[0]}


def _table(compared: Mapping[str, tuple[Estimate, Estimate, Estimate]], dialogues: int) -> Table:
    table = Table("measure", title=f"On {dialogues:,} test dialogues", title_justify="left")
    for header in ("as it was", "trained on feedback", "difference"):
        table.add_column(header, justify="right")
    for name, (before, after, difference) in compared.items():
        cells = [f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in (before, after)]
        changed = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        table.add_row(name, *cells, changed)
    return table


if __name__ == "__main__":
    sys.exit(guarded(main))
