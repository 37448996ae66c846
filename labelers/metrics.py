"""How good labels are: scores with bootstrap intervals by dialogue.

- The turns of a dialogue are not independent, so dialogues are resampled, never turns (percentile bootstrap;
  Efron and Tibshirani 1993, chapter 13).
- A statistic is a function of the dialogues' weights: all ones give the score itself, the number of times that
  each dialogue was drawn gives a resample's. So a thousand resamples are a few products of matrices.
- Every resample of the same dialogues is the same for all who are scored on them.
- What is not defined (no question with that answer, nothing found) is NaN, never 0.

Dimensions: N questions, G dialogues that have one, K answers, B resamples at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Statistic = Callable[[Floats], dict[str, Floats]]
"""(B, G) weights of the dialogues → the scores by name, each (B,)."""

BINS = 15
"""Bins of equal width of the calibration error and of reliability diagrams (Guo et al. 2017)."""
COVERAGE_PRECISION = 0.95
_SEED = 1
_BLOCK = 50
"""Resamples that are held in memory together."""


class Estimate(NamedTuple):
    """A score with its 95 % interval; all NaN where it is not defined."""

    value: float
    low: float
    high: float


class Sample:
    """N questions of G dialogues. Raises `ValueError` where there is none."""

    def __init__(self, dialogues: Sequence[int], resamples: int) -> None:
        """`dialogues` (N,) says which dialogue each question is of, by any number."""
        if not len(dialogues):
            raise ValueError("a sample needs at least one question")
        self.group: Integers = np.unique(np.asarray(dialogues, dtype=np.int64), return_inverse=True)[1]
        self.dialogues = int(self.group.max()) + 1
        self.questions = len(self.group)
        self.resamples = resamples

    def totals(self, values: npt.ArrayLike) -> Floats:
        """(N, …) values of the questions → (G, …) sums over each dialogue's."""
        rows = np.asarray(values, dtype=np.float64)
        shape = (self.dialogues, *rows.shape[1:])
        sums: Floats = np.zeros(shape, dtype=np.float64)
        np.add.at(sums, self.group, rows)
        return sums

    def estimate(self, *statistics: Statistic) -> dict[str, Estimate]:
        """The scores by name."""
        rng = np.random.default_rng(_SEED)
        values: dict[str, Floats] = {}
        drawn: dict[str, list[Floats]] = {}
        for statistic in statistics:
            values |= statistic(np.ones((1, self.dialogues)))
        for start in range(0, self.resamples, _BLOCK):
            picks = rng.integers(0, self.dialogues, (min(_BLOCK, self.resamples - start), self.dialogues))
            weights = np.stack([np.bincount(row, minlength=self.dialogues) for row in picks]).astype(np.float64)
            for statistic in statistics:
                for name, scores in statistic(weights).items():
                    drawn.setdefault(name, []).append(scores)
        return {name: _interval(float(value[0]), np.concatenate(drawn[name])) for name, value in values.items()}


def _interval(value: float, drawn: Floats) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _ratio(part: Floats, whole: Floats) -> Floats:
    undefined: Floats = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=undefined, where=whole != 0)


# Shares and counts


def shares(sample: Sample, **parts: tuple[npt.ArrayLike, npt.ArrayLike]) -> Statistic:
    """Each name: the first of its two (N,) values, summed, by the second: accuracy is `(right, asked)`."""
    totals = {name: (sample.totals(part), sample.totals(whole)) for name, (part, whole) in parts.items()}

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {name: _ratio(weights @ part, weights @ whole) for name, (part, whole) in totals.items()}

    return statistic


def found(sample: Sample, right: npt.ArrayLike, wrong: npt.ArrayLike, missed: npt.ArrayLike) -> Statistic:
    """`precision`, `recall` and `f1` over all questions together (micro); each (N,): how many at each question."""
    totals = [sample.totals(each) for each in (right, wrong, missed)]

    def statistic(weights: Floats) -> dict[str, Floats]:
        return _precision_recall_f1(*(weights @ each for each in totals))

    return statistic


def classification(
    sample: Sample, truth: Integers, predicted: Integers, names: Sequence[str], counted: Sequence[str]
) -> Statistic:
    """`accuracy`; `precision/…`, `recall/…` and `f1/…` of each class in `counted`; `macro_f1`, the mean of the latter.

    `truth` and `predicted` (N,) are positions in `names`. A class of `counted` that is neither annotated nor
    predicted has no F1 and is left out of the mean.
    """
    answers = len(names)
    totals = sample.totals(np.eye(answers * answers)[truth * answers + predicted])  # (G, K * K)

    def statistic(weights: Floats) -> dict[str, Floats]:
        table = (weights @ totals).reshape(-1, answers, answers)  # (B, K, K): truth, predicted
        right = np.diagonal(table, axis1=1, axis2=2)
        by_class = _precision_recall_f1(right, table.sum(axis=1) - right, table.sum(axis=2) - right)
        columns = {name: names.index(name) for name in counted}
        scores = {f"{kind}/{name}": by_class[kind][:, k] for kind in by_class for name, k in columns.items()}
        f1 = by_class["f1"][:, list(columns.values())]
        scores["macro_f1"] = _ratio(np.nansum(f1, axis=1), (~np.isnan(f1)).sum(axis=1).astype(np.float64))
        return {"accuracy": _ratio(right.sum(axis=1), table.sum(axis=(1, 2))), **scores}

    return statistic


def confusion(truth: Integers, predicted: Integers, answers: int) -> Integers:
    """(K, K) questions by annotated answer (row) and predicted answer (column)."""
    table = np.zeros((answers, answers), dtype=np.int64)
    np.add.at(table, (truth, predicted), 1)
    return table


def _precision_recall_f1(right: Floats, wrong: Floats, missed: Floats) -> dict[str, Floats]:
    return {
        "precision": _ratio(right, right + wrong),
        "recall": _ratio(right, right + missed),
        "f1": _ratio(2 * right, 2 * right + wrong + missed),
    }


# Calibration


class Bin(NamedTuple):
    """One bin of a reliability diagram; the means are NaN where it is empty."""

    questions: int
    confidence: float
    """mean"""
    accuracy: float


def _bins(confidence: Floats) -> Integers:
    # Closed above, as Guo et al. have it: 1 belongs to the last bin.
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def calibration(sample: Sample, confidence: Floats, right: Booleans) -> Statistic:
    """`calibration_error`: the expected calibration error (arXiv:1706.04599); `confidence` (N,) in 0 to 1."""
    off = np.eye(BINS)[_bins(confidence)] * (confidence - right)[:, None]
    totals, asked = sample.totals(off), sample.totals(np.ones(sample.questions))

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"calibration_error": _ratio(np.abs(weights @ totals).sum(axis=1), weights @ asked)}

    return statistic


def reliability(confidence: Floats, right: Booleans) -> list[Bin]:
    """All bins, from the least sure."""
    bins = _bins(confidence)
    inside = [bins == number for number in range(BINS)]
    return [
        Bin(int(each.sum()), float(confidence[each].mean()), float(right[each].mean()))
        if each.any()
        else Bin(0, np.nan, np.nan)
        for each in inside
    ]


# Rankings


class Curve(NamedTuple):
    """What is kept at each threshold, from the strictest; equal scores are kept together. Each (thresholds,)."""

    threshold: Floats
    kept: Floats
    """share of the questions whose score is at least the threshold"""
    precision: Floats
    """share of the positive among the kept"""
    recall: Floats
    """share of the positive that are kept; NaN where nothing is positive"""

    def at_precision(self, precision: float) -> int | None:
        """Where most is kept at that precision or a higher one; None where no threshold reaches it."""
        reached = np.flatnonzero(self.precision >= precision)
        return int(reached[-1]) if len(reached) else None


def curve(score: Floats, positive: Booleans) -> Curve:
    """Over (N,) questions, the highest score first."""
    order, ends = _ranked(score)
    kept = ends + 1.0
    right = np.cumsum(positive[order])[ends].astype(np.float64)
    return Curve(score[order][ends], kept / len(score), right / kept, _ratio(right, right[-1:]))


def detection(sample: Sample, score: Floats, positive: Booleans) -> Statistic:
    """`average_precision` (as scikit-learn defines it) and `coverage_at_95`.

    The latter is the largest share of the positive that a threshold finds at 95 % precision, the threshold being
    chosen on these very questions; 0 where none has that precision.
    """
    order, ends = _ranked(score)

    def statistic(weights: Floats) -> dict[str, Floats]:
        right, kept = _kept(weights[:, sample.group[order]], positive[order], ends)
        precision = np.nan_to_num(_ratio(right, kept))
        recall = _ratio(right, right[:, -1:])
        gained = np.diff(recall, axis=1, prepend=0)
        covered = (recall * (precision >= COVERAGE_PRECISION)).max(axis=1)
        return {"average_precision": (gained * precision).sum(axis=1), "coverage_at_95": covered}

    return statistic


def roc_auc(sample: Sample, score: Floats, positive: Booleans) -> Statistic:
    """`roc_auc`: how often a positive question scores higher than another; equal scores count half."""
    order, ends = _ranked(score)

    def statistic(weights: Floats) -> dict[str, Floats]:
        right, kept = _kept(weights[:, sample.group[order]], positive[order], ends)
        sensitivity = np.pad(_ratio(right, right[:, -1:]), ((0, 0), (1, 0)))
        fallout = np.pad(_ratio(kept - right, (kept - right)[:, -1:]), ((0, 0), (1, 0)))
        return {"roc_auc": (np.diff(fallout, axis=1) * (sensitivity[:, 1:] + sensitivity[:, :-1]) / 2).sum(axis=1)}

    return statistic


def rank_correlation(sample: Sample, **compared: Iterable[tuple[Floats, Floats]]) -> Statistic:
    """Each name: the mean of Spearman's rank correlations of its pairs, each of two (N,) values.

    NaN in either of a pair: a question that is not in it. A pair counts in the mean as often as it has questions, and
    not where it has no correlation: all its questions have the same value on one side.
    """
    pairs = {name: [_correlation(sample, *pair) for pair in some] for name, some in compared.items()}

    def statistic(weights: Floats) -> dict[str, Floats]:
        scores = {}
        for name, some in pairs.items():
            asked, found = (np.stack(each) for each in zip(*(pair(weights) for pair in some), strict=True))
            defined = ~np.isnan(found)
            scores[name] = _ratio((asked * np.nan_to_num(found)).sum(axis=0), (asked * defined).sum(axis=0))
        return scores

    return statistic


def _correlation(sample: Sample, one: Floats, other: Floats) -> Callable[[Floats], tuple[Floats, Floats]]:
    """(B, G) weights → how many questions have both values, and Spearman's rank correlation of these; each (B,)."""
    both = ~(np.isnan(one) | np.isnan(other))
    group = sample.group[both]
    rankings = [_ranking(values[both]) for values in (one, other)]

    def statistic(weights: Floats) -> tuple[Floats, Floats]:
        counts = weights[:, group]
        asked = counts.sum(axis=1)
        # As Pearson's correlation of the ranks, with which Spearman's is defined where values are equal.
        ranks = [ranking(counts) for ranking in rankings]
        x, y = (each - _ratio((counts * each).sum(axis=1), asked)[:, None] for each in ranks)
        spread = np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))
        return asked, _ratio((counts * x * y).sum(axis=1), spread)

    return statistic


def _ranking(values: Floats) -> Callable[[Floats], Floats]:
    """(B, N) how often each of the (N,) values is there → their ranks, the highest first; equal ones share the mean."""
    order, ends = _ranked(values)
    runs = np.empty(len(values), dtype=np.int64)
    runs[order] = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))

    def ranks(counts: Floats) -> Floats:
        upto = np.cumsum(counts[:, order], axis=1)[:, ends]
        middle: Floats = (upto + np.pad(upto[:, :-1], ((0, 0), (1, 0))) + 1) / 2
        return middle[:, runs]

    return ranks


def _ranked(score: Floats) -> tuple[Integers, Integers]:
    """Positions by falling score, and among these the last of each run of equal scores."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    return order, np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(score) - 1)


def _kept(weights: Floats, positive: Booleans, ends: Integers) -> tuple[Floats, Floats]:
    """(B, thresholds) positive and all questions that are kept; `weights` (B, N), by falling score."""
    return np.cumsum(weights * positive, axis=1)[:, ends], np.cumsum(weights, axis=1)[:, ends]
