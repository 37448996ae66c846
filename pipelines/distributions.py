"""How far the distributions of a labelled output are from those of a reference: labels, confidences and inputs.

- Distance: the population stability index, PSI = Σ (p - q) ln(p / q) over bins (Siddiqi 2006, *Credit Risk
  Scorecards*; it is the symmetric divergence of Jeffreys 1946). The usual reading: under 0.1 stable, from 0.1 a
  moderate change, from 0.25 a large one.
- Bins: of numbers the deciles of the reference (fewer where values are equal), of names each name; names under 1 %
  on both sides are one bin. Half a row is added to every bin, so that an empty one is not infinitely far.
- PSI alone is large by chance where rows are few (Yurdakul 2018, *Statistical properties of population stability
  index*), and a test alone calls any difference significant where they are many. So a drift is both: a PSI over the
  threshold, and a test under `LEVEL`, adjusted over all distributions (Benjamini and Hochberg 1995).
- Tests: chi-squared for names, Kolmogorov-Smirnov with two samples for numbers. As the rows of a dialogue are not
  independent, both count rows divided by the mean design effect of the bins (Rao and Scott 1984, *On chi-squared
  tests for multiway contingency tables*).
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy import stats

from pipelines.comparison import design_effect
from pipelines.labelled import Labelled

Floats = npt.NDArray[np.float64]

MODERATE, LARGE = 0.1, 0.25
"""The usual readings of the PSI."""
LEVEL = 0.01
"""What an adjusted p-value must be under."""
BINS = 10
RARE = 0.01
"""Names with a smaller share on both sides are one bin."""
NONE, OTHER = "(none)", "(other)"
_HALF = 0.5


class Kind(StrEnum):
    """What a distribution is of."""

    LABEL = "label"
    CONFIDENCE = "confidence"
    ABSTENTION = "abstention"
    INPUT = "input"


class Quantity(NamedTuple):
    """What is looked at."""

    name: str
    kind: Kind
    table: str
    value: str
    """in SQL, a row a value; null: not looked at"""
    is_number: bool = False


def _each(names: str) -> str:
    """A row a name of the list; one row that says so where it is empty, none where it is null."""
    return f"unnest(CASE WHEN len({names}) = 0 THEN ['{NONE}'] ELSE {names} END)"


_LOGGED = {
    "asr": "len(asr) > 0",
    "asr_score": "asr[1].score IS NOT NULL",
    "nlu": "len(nlu) > 0",
    "nlu_score": "nlu[1].score IS NOT NULL",
    "entities": "len(entities) > 0",
    "wake_score": "wake_score IS NOT NULL",
    "response": "response IS NOT NULL",
    "action": "action IS NOT NULL",
    "status": "status IS NOT NULL",
    "barge_in": "barge_in IS NOT NULL",
    "started_at": "started_at IS NOT NULL",
    "device": "device IS NOT NULL",
    "locale": "locale IS NOT NULL",
}
_MISSING = "list_filter([{}], lambda name: name IS NOT NULL)".format(
    ", ".join(f"CASE WHEN NOT coalesce({there}, false) THEN '{name}' END" for name, there in _LOGGED.items())
)

QUANTITIES = (
    Quantity("failure_point", Kind.LABEL, "turns", "failure_point"),
    Quantity("intent", Kind.LABEL, "turns", f"coalesce(intent, '{NONE}')"),
    Quantity("slots", Kind.LABEL, "turns", _each("list_transform(slots, lambda slot: slot.name)")),
    Quantity("is_goal_start", Kind.LABEL, "turns", "is_goal_start::VARCHAR"),
    Quantity("rephrase", Kind.LABEL, "turns", "(rephrase_of IS NOT NULL)::VARCHAR"),
    Quantity("feedback_signals", Kind.LABEL, "turns", _each("feedback_signals")),
    Quantity("goal_success", Kind.LABEL, "goals", "success::VARCHAR"),
    Quantity("dialogue_success", Kind.LABEL, "dialogues", "success::VARCHAR"),
    Quantity("intent_confidence", Kind.CONFIDENCE, "turns", "intent_confidence", is_number=True),
    Quantity(
        "slot_confidence",
        Kind.CONFIDENCE,
        "turns",
        "unnest(list_transform(slots, lambda slot: slot.confidence))",
        is_number=True,
    ),
    Quantity("failure_point_confidence", Kind.CONFIDENCE, "turns", "failure_point_confidence", is_number=True),
    Quantity("defect_probability", Kind.CONFIDENCE, "turns", "defect_probability", is_number=True),
    Quantity("success_confidence", Kind.CONFIDENCE, "goals", "success_confidence", is_number=True),
    Quantity("abstained", Kind.ABSTENTION, "turns", _each("abstained")),
    Quantity("turns_per_dialogue", Kind.INPUT, "dialogues", "turn_count", is_number=True),
    Quantity("text_characters", Kind.INPUT, "turns", "length(text)", is_number=True),
    Quantity("response_characters", Kind.INPUT, "turns", "length(response)", is_number=True),
    Quantity("asr_hypotheses", Kind.INPUT, "turns", "nullif(len(asr), 0)", is_number=True),
    Quantity("asr_score", Kind.INPUT, "turns", "asr[1].score", is_number=True),
    Quantity("nlu_hypotheses", Kind.INPUT, "turns", "nullif(len(nlu), 0)", is_number=True),
    Quantity("nlu_score", Kind.INPUT, "turns", "nlu[1].score", is_number=True),
    Quantity("domain", Kind.INPUT, "turns", "domain"),
    Quantity("device", Kind.INPUT, "dialogues", "device"),
    Quantity("locale", Kind.INPUT, "dialogues", "locale"),
    # Where a log cannot be read its n-best lists are null, not empty.
    Quantity("missing_fields", Kind.INPUT, "turns", _each(f"CASE WHEN asr IS NOT NULL THEN {_MISSING} END")),
)
"""Everything that is compared. A list of names gives a row a name."""


class Cell(Struct, frozen=True):
    """One bin of a distribution."""

    name: str
    share: float
    reference_share: float


class Drift(Struct, frozen=True):
    """How far one distribution is from the reference's."""

    quantity: str
    kind: Kind
    rows: int
    reference_rows: int
    psi: float
    test: str
    statistic: float
    p_value: float
    adjusted_p_value: float
    cells: tuple[Cell, ...]
    """numbers from the smallest, names in alphabetical order"""

    def exceeds(self, threshold: float) -> bool:
        """Whether the PSI is at least `threshold`, and not by chance."""
        return self.psi >= threshold and self.adjusted_p_value < LEVEL


class Drifts(NamedTuple):
    """Every distribution against the reference's."""

    drifts: tuple[Drift, ...]
    """in the order of `QUANTITIES`"""
    not_compared: tuple[str, ...]
    """quantities that one side does not have, or both"""


def drifts(labelled: Labelled, reference: Labelled) -> Drifts:
    """All distributions of `labelled` against those of `reference`."""
    found: list[Drift] = []
    not_compared: list[str] = []
    for quantity in QUANTITIES:
        drift = _drift(quantity, labelled, reference)
        if drift is None:
            not_compared.append(quantity.name)
        else:
            found.append(drift)
    adjusted = stats.false_discovery_control([each.p_value for each in found]) if found else []
    return Drifts(
        tuple(
            msgspec.structs.replace(drift, adjusted_p_value=float(p_value))
            for drift, p_value in zip(found, adjusted, strict=True)
        ),
        tuple(not_compared),
    )


def psi(counts: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """The population stability index of rows by bin, (bins,) each."""
    p, q = np.asarray(counts, dtype=np.float64) + _HALF, np.asarray(reference, dtype=np.float64) + _HALF
    return float(stats.entropy(p, q) + stats.entropy(q, p))


class _Side(NamedTuple):
    """One side's rows by key: a name, or for a number how many edges are below it."""

    counts: dict[str, float]
    effects: dict[str, float]
    """design effect of each key of which it can be told"""

    @property
    def rows(self) -> float:
        return sum(self.counts.values())

    def effect(self) -> float:
        """The mean design effect, each weighed by the share that has another key (Rao and Scott 1984)."""
        weights = [1 - self.counts[name] / self.rows for name in self.effects]
        return float(np.average([*self.effects.values()], weights=weights)) if sum(weights) else 1.0


def _drift(quantity: Quantity, labelled: Labelled, reference: Labelled) -> Drift | None:
    both = labelled, reference
    edges: Floats | None = None
    if quantity.is_number:
        values, reference_values = (_values(each, quantity) for each in both)
        if not len(values) or not len(reference_values):
            return None
        edges = np.unique(np.quantile(reference_values, np.arange(1, BINS) / BINS))
    ours, theirs = (_side(each, quantity, edges) for each in both)
    if not ours.counts or not theirs.counts:
        return None
    bins = _bins_of_names(ours, theirs) if edges is None else _bins_of_numbers(edges)
    counts, reference_counts = (
        np.array([sum(side.counts.get(key, 0.0) for key in keys) for keys in bins.values()]) for side in (ours, theirs)
    )
    effect, reference_effect = ours.effect(), theirs.effect()
    if edges is None:
        test = "chi-squared"
        statistic, p_value = _chi_squared(counts / effect, reference_counts / reference_effect)
    else:
        test = "Kolmogorov-Smirnov"
        statistic = float(stats.ks_2samp(values, reference_values, method="asymp").statistic)
        n, m = ours.rows / effect, theirs.rows / reference_effect
        # As SciPy has it, of as many rows as there are independent ones.
        p_value = float(stats.kstwo.sf(statistic, max(round(n * m / (n + m)), 1)))
    return Drift(
        quantity=quantity.name,
        kind=quantity.kind,
        rows=round(ours.rows),
        reference_rows=round(theirs.rows),
        psi=psi(counts, reference_counts),
        test=test,
        statistic=statistic,
        p_value=p_value,
        adjusted_p_value=p_value,
        cells=tuple(
            Cell(name, float(count / ours.rows), float(reference_count / theirs.rows))
            for name, count, reference_count in zip(bins, counts, reference_counts, strict=True)
        ),
    )


def _chi_squared(counts: Floats, reference: Floats) -> tuple[float, float]:
    table = np.stack([counts, reference])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0, 1.0
    tested = stats.chi2_contingency(table, correction=False)
    return float(tested.statistic), float(tested.pvalue)


def _rows_of(quantity: Quantity) -> str:
    return f"""(
        FROM (SELECT {quantity.value} AS value, dataset, dialogue_id FROM {quantity.table}) WHERE value IS NOT NULL
    )"""


def _values(labelled: Labelled, quantity: Quantity) -> Floats:
    found = labelled.connection.execute(f"SELECT value::DOUBLE AS value FROM {_rows_of(quantity)}").fetchnumpy()
    return np.asarray(found["value"], dtype=np.float64)


def _side(labelled: Labelled, quantity: Quantity, edges: Floats | None) -> _Side:
    key = "value" if edges is None else "len(list_filter($edges, lambda edge: edge < value))::VARCHAR"
    found = labelled.connection.execute(
        f"""
        WITH keys AS (
          SELECT {key} AS key, dataset, dialogue_id, count(*)::DOUBLE AS y FROM {_rows_of(quantity)} GROUP BY ALL
        ), counted AS (
          SELECT *, sum(y) OVER (PARTITION BY dataset, dialogue_id) AS n FROM keys
        ), dialogue AS (
          SELECT any_value(n) AS n FROM counted GROUP BY dataset, dialogue_id
        ), total AS (
          SELECT count(*) AS dialogues, sum(n) AS rows, sum(n * n) AS squared_rows FROM dialogue
        )
        SELECT key, dialogues, rows, squared_rows, sum(y), sum(y * y), sum(y * n)
        FROM counted, total GROUP BY ALL ORDER BY key
        """,
        {} if edges is None else {"edges": edges.tolist()},
    ).fetchall()
    counts, effects = {}, {}
    for name, dialogues, rows, squared_rows, hits, squared_hits, product in found:
        counts[name] = hits
        effect = design_effect(dialogues, rows, squared_rows, hits, squared_hits, product)
        if effect is not None:
            effects[name] = effect
    return _Side(counts, effects)


def _bins_of_names(*sides: _Side) -> dict[str, list[str]]:
    """The names that a bin has, by bin."""
    names = sorted({name for side in sides for name in side.counts})
    rare = [name for name in names if all(side.counts.get(name, 0.0) < RARE * side.rows for side in sides)]
    bins = {name: [name] for name in names if name not in rare}
    return {**bins, OTHER: rare} if rare else bins


def _bins_of_numbers(edges: Floats) -> dict[str, list[str]]:
    inner = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    names = [f"up to {edges[0]:.4g}", *inner, f"over {edges[-1]:.4g}"]
    return {name: [str(number)] for number, name in enumerate(names)}
