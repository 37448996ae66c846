"""What differs between two labelled outputs, and whether it is more than noise.

- Rates of the whole output, and of its segments: domain, intent, device, locale.
- The turns of a dialogue are not independent, so a rate counts for as many independent rows as its variance over
  dialogues says: rows and hits are divided by the design effect, that variance over the binomial one (at least 1),
  and then treated as independent (Rao and Scott 1992, *A simple method for the analysis of clustered binary data*).
- On these the interval of a difference is Newcombe's from two Wilson intervals (1998, method 10), and the test is
  that of two proportions with a common one, both by Student's t over the dialogues, as dialogues can be few.
- Of many segments some differ by chance: their p-values are adjusted together (Benjamini and Hochberg 1995), so
  that of the changes that are called so about one in twenty is noise. The headline's are adjusted apart from them.
- The two sides are taken as different dialogues. Where both are labels of the same logs, less is called a change
  than could be.

All sums over dialogues are made by DuckDB: the number of turns costs little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from scipy import stats

from pipelines.labelled import Labelled
from schemas.labels import Label
from schemas.log import FailurePoint

LEVEL = 0.05
"""What an adjusted p-value must be under to be called a change."""
MIN_ROWS = 50
"""Turns or goals that a segment must have on both sides to be compared."""
MIN_DIALOGUES = 10
"""Dialogues that these must be of."""
SEGMENTS = ("domain", "intent", "device", "locale")

DEFECT, SUCCESS, REJECTED = "defect", "success", "rejected"
_FAILED = {DEFECT: f"failure_point <> '{FailurePoint.CORRECT}'"} | {
    f"failure_point/{point}": f"failure_point = '{point}'" for point in FailurePoint if point != FailurePoint.CORRECT
}
_ABSTAINED = {f"abstained/{label}": f"list_contains(abstained, '{label}')" for label in Label}
_REACHED = {SUCCESS: "success"}
MEASURES: Mapping[str, str] = {
    **dict.fromkeys([*_FAILED, *_ABSTAINED], "turns"),
    SUCCESS: "goals",
    REJECTED: "records",
}
"""Every rate that is compared, and what it is a share of. Of segments: `defect`, `failure_point/…`, `success`."""


class Rate(Struct, frozen=True):
    """A share of one side's rows."""

    value: float
    rows: int
    """turns, goals or records"""
    dialogues: int
    effective_rows: float
    """independent rows that tell as much"""


class Difference(Struct, frozen=True):
    """One rate on both sides."""

    measure: str
    """one of `MEASURES`"""
    by: str | None
    """one of `SEGMENTS`; None: of the whole output"""
    segment: str | None
    rate: Rate
    reference: Rate
    difference: float
    """rate less reference"""
    low: float
    """of the 95 % interval of the difference"""
    high: float
    p_value: float
    adjusted_p_value: float

    @property
    def is_change(self) -> bool:
        """Whether the difference is more than noise."""
        return self.adjusted_p_value < LEVEL


class LeftOut(Struct, frozen=True):
    """The segments of one kind that have too few turns on one side, or on both."""

    by: str
    segments: tuple[str, ...]
    turns: int
    reference_turns: int


class Comparison(Struct, frozen=True):
    """What differs between an output and a reference."""

    headline: tuple[Difference, ...]
    segments: tuple[Difference, ...]
    """the smallest p-value first; a rate that is 0 on both sides is not there"""
    left_out: tuple[LeftOut, ...]


def compare(labelled: Labelled, reference: Labelled) -> Comparison:
    """The rates of `labelled` against those of `reference`. A rate that has no rows on one side is left out."""
    sides = (labelled, reference)
    headline: list[Difference] = []
    for table, measures in (("turns", {**_FAILED, **_ABSTAINED}), ("goals", _REACHED)):
        headline += _differences(None, *(_totals(each, table, None, measures) for each in sides))
    headline += _differences(None, *map(_rejects, sides))
    segments: list[Difference] = []
    left_out: list[LeftOut] = []
    for by in SEGMENTS:
        turns, reference_turns = (_totals(each, "turns", by, _FAILED) for each in sides)
        goals = [_totals(each, "goals", by, _REACHED) for each in sides]
        segments += _differences(by, *map(_enough, (turns, reference_turns)))
        segments += _differences(by, *map(_enough, goals))
        kept = _enough(turns).keys() & _enough(reference_turns).keys()
        few = sorted((turns.keys() | reference_turns.keys()) - kept)
        if few:
            left_out.append(LeftOut(by, tuple(few), _rows(turns, few), _rows(reference_turns, few)))
    segments = sorted(_adjusted(segments), key=lambda each: (each.p_value, each.by, each.segment, each.measure))
    return Comparison(tuple(_adjusted(headline)), tuple(segments), tuple(left_out))


class _Totals(Struct, frozen=True):
    """One segment's sums over its dialogues, n being a dialogue's rows and y those of them that a measure counts."""

    dialogues: int
    rows: int
    squared_rows: float
    """sum of n²"""
    measures: dict[str, tuple[float, float, float]]
    """sums of y, y² and ny"""


def _totals(labelled: Labelled, table: str, by: str | None, measures: Mapping[str, str]) -> dict[str, _Totals]:
    """By segment; the key is empty where there is one. Rows of which the log does not say the segment are left out."""
    segment = by or "''"
    counted = ", ".join(f"count_if({where}) AS y{number}" for number, where in enumerate(measures.values()))
    summed = ", ".join(f"sum(y{k}), sum(y{k} * y{k}), sum(y{k} * n)" for k in range(len(measures)))
    found = labelled.connection.execute(
        f"""
        WITH clusters AS (
          SELECT {segment} AS segment, count(*)::DOUBLE AS n, {counted}
          FROM {table} WHERE {segment} IS NOT NULL GROUP BY {segment}, dataset, dialogue_id
        )
        SELECT segment, count(*), sum(n), sum(n * n), {summed} FROM clusters GROUP BY segment
        """
    ).fetchall()
    return {
        name: _Totals(
            dialogues,
            int(rows),
            squared_rows,
            {measure: (sums[3 * k], sums[3 * k + 1], sums[3 * k + 2]) for k, measure in enumerate(measures)},
        )
        for name, dialogues, rows, squared_rows, *sums in found
    }


def _rejects(labelled: Labelled) -> dict[str, _Totals]:
    """Records come one by one: each is a dialogue of its own here."""
    records = sum(manifest.summary.records for manifest in labelled.manifests)
    rejected = min(sum(manifest.summary.rejected_rows for manifest in labelled.manifests), records)
    return {"": _Totals(records, records, records, {REJECTED: (rejected,) * 3})} if records else {}


def _enough(totals: Mapping[str, _Totals]) -> dict[str, _Totals]:
    return {name: each for name, each in totals.items() if each.rows >= MIN_ROWS and each.dialogues >= MIN_DIALOGUES}


def _rows(totals: Mapping[str, _Totals], names: Sequence[str]) -> int:
    return sum(totals[name].rows for name in names if name in totals)


def _differences(by: str | None, totals: Mapping[str, _Totals], reference: Mapping[str, _Totals]) -> list[Difference]:
    """Of the segments that both sides have, with p-values that are not adjusted."""
    differences = []
    for name in sorted(totals.keys() & reference.keys()):
        ours, theirs = totals[name], reference[name]
        for measure in ours.measures:
            if by is None or ours.measures[measure][0] or theirs.measures[measure][0]:
                effects = _effect(ours, measure), _effect(theirs, measure)
                # A rate of 0 or 1 does not say how much dialogues differ; the other side's may.
                rate = _rate(ours, measure, effects[0] or effects[1] or 1.0)
                against = _rate(theirs, measure, effects[1] or effects[0] or 1.0)
                differences.append(_difference(measure, by, name if by else None, rate, against))
    return differences


def _rate(totals: _Totals, measure: str, effect: float) -> Rate:
    return Rate(totals.measures[measure][0] / totals.rows, totals.rows, totals.dialogues, totals.rows / effect)


def _effect(totals: _Totals, measure: str) -> float | None:
    return design_effect(totals.dialogues, totals.rows, totals.squared_rows, *totals.measures[measure])


def design_effect(
    dialogues: int, rows: float, squared_rows: float, hits: float, squared_hits: float, product: float
) -> float | None:
    """How many rows of a share tell as much as one independent row, at least 1; None where it cannot be told.

    Of the numbers of rows n and of hits y of each dialogue: the sums of n, n², y, y² and ny.
    """
    rate = hits / rows
    if dialogues < 2 or rate in (0.0, 1.0):
        return None
    between = squared_hits - 2 * rate * product + rate**2 * squared_rows  # sum of (y - rate n)²
    return max(between * dialogues / (dialogues - 1) / (rows * rate * (1 - rate)), 1.0)


def _difference(measure: str, by: str | None, segment: str | None, rate: Rate, reference: Rate) -> Difference:
    freedom = max(rate.dialogues + reference.dialogues - 2, 1)
    quantile = float(stats.t.ppf(0.975, freedom))
    low, high = _wilson(rate, quantile)
    reference_low, reference_high = _wilson(reference, quantile)
    difference = rate.value - reference.value
    n, m = rate.effective_rows, reference.effective_rows
    common = (rate.value * n + reference.value * m) / (n + m)
    error = math.sqrt(common * (1 - common) * (1 / n + 1 / m))
    p_value = float(2 * stats.t.sf(abs(difference) / error, freedom)) if error > 0 else 1.0
    return Difference(
        measure=measure,
        by=by,
        segment=segment,
        rate=rate,
        reference=reference,
        difference=difference,
        low=difference - math.hypot(rate.value - low, reference_high - reference.value),
        high=difference + math.hypot(high - rate.value, reference.value - reference_low),
        p_value=p_value,
        adjusted_p_value=p_value,
    )


def _wilson(rate: Rate, quantile: float) -> tuple[float, float]:
    # SciPy has this interval for whole numbers of rows only.
    n, p, z = rate.effective_rows, rate.value, quantile
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    if not differences:
        return []
    adjusted = stats.false_discovery_control([each.p_value for each in differences])
    return [
        msgspec.structs.replace(each, adjusted_p_value=float(p_value))
        for each, p_value in zip(differences, adjusted, strict=True)
    ]
