"""What changed against the baseline, in the page's words (`pipelines.comparison` says how it is told from noise)."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.comparison import DEFECT, MEASURES, REJECTED, SUCCESS, Comparison, Difference, compare
from pipelines.distributions import LARGE, MODERATE, Cell, Drift, drifts
from pipelines.labelled import Labelled

SHOWN = 15
"""Segments with a change that are shown, the surest first."""
CELLS = 2
"""Bins of a distribution that are shown, those that moved most."""

_BETTER_IF_MORE = frozenset({SUCCESS})
_WORDS = {DEFECT: "turns that failed", SUCCESS: "goals reached", REJECTED: "records rejected"}


@dataclass(frozen=True)
class Change:
    """One rate on both sides."""

    of: Difference

    @property
    def what(self) -> str:
        """The rate in words."""
        kind, _, which = self.of.measure.partition("/")
        if kind == "abstained":
            return f"turns with {which.replace('_', ' ')} unsure"
        return f"turns that failed at {which}" if which else _WORDS[kind]

    @property
    def verdict(self) -> str:
        """`worse`, `better` or `noise`."""
        if not self.of.is_change:
            return "noise"
        return "better" if (self.of.difference > 0) == (self.of.measure in _BETTER_IF_MORE) else "worse"


@dataclass(frozen=True)
class Shift:
    """One distribution on both sides."""

    of: Drift

    @property
    def name(self) -> str:
        """What it is a distribution of, in words."""
        return self.of.quantity.replace("_", " ")

    @property
    def verdict(self) -> str:
        """`large`, `moderate` or `stable`."""
        return "large" if self.of.exceeds(LARGE) else "moderate" if self.of.exceeds(MODERATE) else "stable"

    @property
    def cells(self) -> list[Cell]:
        """The bins that moved most."""
        return sorted(self.of.cells, key=lambda cell: -abs(cell.share - cell.reference_share))[:CELLS]


@dataclass(frozen=True)
class Changes:
    """An output against its baseline."""

    baseline: str
    """The folder."""
    turns: int
    """of the baseline"""
    headline: tuple[Change, ...]
    segments: tuple[Change, ...]
    """Those with a change, the surest first."""
    more_segments: int
    """Segments with a change that are not shown."""
    compared: int
    """Rates of segments that were compared."""
    left_out: int
    """Segments with too few turns on one side or both."""
    shifts: tuple[Shift, ...]
    """The largest first."""
    other_models: tuple[str, ...]
    """Versions of the models that labelled the baseline, where they are not the same; empty: they are."""
    notes: tuple[str, ...]

    def headline_of(self, measure: str) -> Change | None:
        """The change of a rate of the whole; None where it has none on one side."""
        return next((each for each in self.headline if each.of.measure == measure), None)

    @property
    def widest(self) -> float:
        """The farthest end of an interval that is shown."""
        return max((max(abs(each.of.low), abs(each.of.high)) for each in (*self.headline, *self.segments)), default=1)


def changes(labelled: Labelled, baseline: Labelled) -> Changes:
    """What the page says of `labelled` against `baseline`."""
    comparison: Comparison = compare(labelled, baseline)
    changed = [Change(each) for each in comparison.segments if each.is_change]
    versions, before = (
        {manifest.summary.model_version for manifest in each.manifests} for each in (labelled, baseline)
    )
    order = list(MEASURES)
    return Changes(
        baseline=baseline.folder,
        turns=sum(manifest.summary.turns for manifest in baseline.manifests),
        headline=tuple(
            Change(each) for each in sorted(comparison.headline, key=lambda each: order.index(each.measure))
        ),
        segments=tuple(changed[:SHOWN]),
        more_segments=max(0, len(changed) - SHOWN),
        compared=len(comparison.segments),
        left_out=sum(len(each.segments) for each in comparison.left_out),
        shifts=tuple(sorted(map(Shift, drifts(labelled, baseline).drifts), key=lambda each: -each.of.psi)),
        other_models=tuple(sorted(before)) if versions != before else (),
        notes=baseline.notes,
    )
