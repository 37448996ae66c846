"""What an evaluation says: the records of `evaluation.json`, and the tables that a person reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labelers.failure_point import POINTS
from labelers.metrics import Booleans, Curve, Floats, curve, reliability
from pipelines.scoring import Scored

MODEL = "model"
PEOPLE = "people"
"""Who judged a log, each scored against the others."""
DEFECT = "defect"
PRECISIONS = (0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""Rows of the table of coverage against precision."""

NOTHING = "-"
"""In a cell: not defined here."""
_SLICES = {
    "Defects, by what the log says of the turn": {
        ("failure_point", "defect_f1"): "defect_f1",
        ("failure_point", "defect_average_precision"): "defect_average_precision",
        ("failure_point", "defect_coverage_at_95"): "defect_coverage_at_95",
    },
    "Intents and slots, by whether the model knows their service": {
        ("intent", "accuracy"): "intent accuracy",
        ("slot_spans", "precision"): "slot precision",
        ("slot_spans", "recall"): "slot recall",
        ("slot_spans", "f1"): "slot F1",
    },
}
"""Tables of slices: (label, metric) of each column, and its heading."""


class Score(Struct):
    """One number: how well `predictor` gives `label`, by `metric`. Null: not defined on these logs."""

    label: str
    metric: str
    predictor: str
    """`model`, `people`, or a baseline's name"""
    value: float | None
    low: float | None
    """of the 95 % interval, by bootstrap over dialogues"""
    high: float | None
    questions: int
    """annotated or rated turns (goals, dialogues) that it rests on"""
    dialogues: int
    slice_by: str | None = None
    """device, locale or domain, where it is of some of the turns only"""
    slice: str | None = None


class Coverage(Struct):
    """How much a threshold on a label's confidence keeps at a precision; null where none reaches it."""

    label: str
    """`failure_point`, `success`: the label is right; `defect`: the turn is one"""
    precision: float
    threshold: float | None
    coverage: float | None
    """of all questions; for `defect`, of all defects"""


class ReliabilityBin(Struct):
    """One bin of a reliability diagram; the means are null where it is empty."""

    label: str
    questions: int
    confidence: float | None
    accuracy: float | None
    """how many of the questions the confidence was justified for"""


class Evaluation(Struct):
    """All of `evaluation.json`."""

    inputs: tuple[str, ...]
    input_format: str
    part: str
    model_uri: str
    model_version: str
    dialogues: int
    turns: int
    rejected: dict[str, int]
    failure_points: list[str]
    """classes of the macro-F1"""
    resamples: int
    scores: list[Score]
    confusion: list[list[int]]
    """turns by annotated and by labelled failure point, in the order of `FailurePoint`"""
    coverage: list[Coverage]
    reliability: list[ReliabilityBin]


class Graded(NamedTuple):
    """N answers: how sure each was, and whether it was right (for `defect`: whether the turn is one)."""

    confidence: Floats
    right: Booleans


def scores(
    label: str, predictor: str, scored: Scored | None, slice_by: str | None = None, of: str | None = None
) -> Iterable[Score]:
    """A record a score; none where nothing is annotated."""
    if scored is not None:
        for metric, estimate in scored.estimates.items():
            value, low, high = map(_or_none, estimate)
            yield Score(label, metric, predictor, value, low, high, scored.questions, scored.dialogues, slice_by, of)


def covered(label: str, of: Curve) -> Floats:
    """(thresholds,) what `Coverage.coverage` says at each."""
    return of.recall if label == DEFECT else of.kept


def coverages(label: str, graded: Graded) -> list[Coverage]:
    """One a row of `PRECISIONS`."""
    whole = curve(*graded)
    places = [(precision, whole.at_precision(precision)) for precision in PRECISIONS]
    return [
        Coverage(label, precision, None, None)
        if place is None
        else Coverage(label, precision, float(whole.threshold[place]), _or_none(covered(label, whole)[place]))
        for precision, place in places
    ]


def reliability_bins(label: str, graded: Graded) -> list[ReliabilityBin]:
    """All bins, from the least sure."""
    return [
        ReliabilityBin(label, each.questions, _or_none(each.confidence), _or_none(each.accuracy))
        for each in reliability(*graded)
    ]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


# Tables


def show(evaluation: Evaluation, console: Console) -> None:
    """Prints the scores, the failure points by class, coverage against precision, and the slices."""
    rejected = sum(evaluation.rejected.values())
    console.print(
        f"\n{evaluation.dialogues:,} dialogues, {evaluation.turns:,} turns ({evaluation.part}); {rejected:,} records "
        f"rejected; model {evaluation.model_uri}, version {evaluation.model_version}\n",
        highlight=False,
        markup=False,
    )
    console.print(_scores_table(evaluation))
    if any(each.label == "failure_point" for each in evaluation.scores):
        console.print(_classes_table(evaluation))
    if evaluation.coverage:
        console.print(_coverage_table(evaluation))
    for title, metrics in _SLICES.items():
        if any(each.slice_by and (each.label, each.metric) in metrics for each in evaluation.scores):
            console.print(_slices_table(evaluation, title, metrics))


def _scores_table(evaluation: Evaluation) -> Table:
    whole = [each for each in evaluation.scores if each.slice_by is None and _is_headline(each)]
    predictors = list(dict.fromkeys(each.predictor for each in whole))
    title = f"Scores, with 95 % intervals ({evaluation.resamples:,} resamples of the dialogues)"
    table = Table("label", "metric", title=title, title_justify="left")
    for header in ("asked", *predictors):
        table.add_column(header, justify="right")
    by_row: dict[tuple[str, str, int], dict[str, Score]] = {}
    for each in whole:
        by_row.setdefault((each.label, each.metric, each.questions), {})[each.predictor] = each
    last = None
    for (label, metric, questions), row in by_row.items():
        if last not in (None, label):
            table.add_section()
        if (label, metric) == ("failure_point", "macro_f1"):
            metric += f" ({', '.join(evaluation.failure_points)})"
        table.add_row(
            label if label != last else "", metric, f"{questions:,}", *(_cell(row.get(name)) for name in predictors)
        )
        last = label
    return table


def _is_headline(score: Score) -> bool:
    """Scores of single classes have tables of their own, or are in the record only."""
    return "/" not in score.metric or (score.label != "failure_point" and score.metric.startswith("f1/"))


def _classes_table(evaluation: Evaluation) -> Table:
    names = [str(point) for point in POINTS]
    table = Table("failure point", title="Failure points of the model", title_justify="left")
    for header in ("turns", "precision", "recall", "F1", *(f"as {name}" for name in names)):
        table.add_column(header, justify="right")
    by_metric = {
        each.metric: each
        for each in evaluation.scores
        if (each.label, each.predictor, each.slice_by) == ("failure_point", MODEL, None)
    }
    for name, counts in zip(names, evaluation.confusion, strict=True):
        kinds = [by_metric.get(f"{kind}/{name}") for kind in ("precision", "recall", "f1")]
        table.add_row(name, f"{sum(counts):,}", *(_cell(each) for each in kinds), *(f"{each:,}" for each in counts))
    return table


def _coverage_table(evaluation: Evaluation) -> Table:
    labels = list(dict.fromkeys(each.label for each in evaluation.coverage))
    title = "Coverage against precision: what a threshold on the confidence keeps (of defects: how many it finds)"
    table = Table("precision", title=title, title_justify="left")
    for label in labels:
        table.add_column(f"{label}: threshold", justify="right")
        table.add_column("coverage", justify="right")
    for precision in PRECISIONS:
        cells = []
        for each in evaluation.coverage:
            if each.precision == precision:
                cells += [_number(each.threshold), NOTHING if each.coverage is None else f"{each.coverage:.1%}"]
        table.add_row(f"{precision:.0%}", *cells)
    return table


def _slices_table(evaluation: Evaluation, title: str, metrics: Mapping[tuple[str, str], str]) -> Table:
    table = Table("by", "of", title=title, title_justify="left")
    for header in ("turns", *metrics.values()):
        table.add_column(header, justify="right")
    by_slice: dict[tuple[str, str], dict[tuple[str, str], Score]] = {}
    for each in evaluation.scores:
        if each.slice_by is not None and each.slice is not None and (each.label, each.metric) in metrics:
            by_slice.setdefault((each.slice_by, each.slice), {})[each.label, each.metric] = each
    for (by, of), row in by_slice.items():
        questions = next(iter(row.values())).questions
        table.add_row(by, escape(of), f"{questions:,}", *(_cell(row.get(metric)) for metric in metrics))
    return table


def _cell(score: Score | None) -> str:
    if score is None or score.value is None:
        return NOTHING
    interval = f" ({score.low:.2f}-{score.high:.2f})" if score.low is not None else ""
    return f"{_number(score.value)}{interval}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
