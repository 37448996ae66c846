"""What the page says in numbers: rates with their intervals, over everything, over time and by segment.

Shares are of the labels as they stand, with what the model abstains from; beside them stands how much that is.
Intervals are 95 %, by bootstrap over dialogues (`labelers.metrics`), as the turns of a dialogue are not independent.
Where nothing or everything is counted the bootstrap has no spread: there it is Wilson's interval over the dialogues.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import duckdb
import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import binomtest

from labelers.metrics import Estimate, Floats, Sample, Statistic
from schemas.labels import Label
from schemas.log import FailurePoint

DEFECTS = tuple(point for point in FailurePoint if point is not FailurePoint.CORRECT)
SHOWN = 12
"""Values of a segment that are shown one by one, most defects first."""
SEGMENTS = {"intent": 25, "domain": SHOWN, "device": SHOWN, "locale": SHOWN}
"""Columns of the view `turns` that turns are told apart by, and how many of their values are shown one by one."""
RESAMPLES = 1_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_UNITS = (("hour", dt.timedelta(days=3)), ("day", dt.timedelta(days=45)), ("week", dt.timedelta(days=2 * 366)))

_FAILED = "failure_point <> 'correct'"
_SURE = f"NOT list_contains(abstained, '{Label.FAILURE_POINT}')"

WORST_INTENTS = f"""\
SELECT intent, count(*) AS turns, count(*) FILTER ({_FAILED}) AS defects,
       count(*) FILTER ({_FAILED} AND {_SURE}) AS sure_defects
FROM turns GROUP BY intent ORDER BY defects DESC, turns, intent"""
"""What the page's ranking of intents counts, as a reader can ask it again."""


class Rate(NamedTuple):
    """A share with its 95 % interval; `value`, `low` and `high` are NaN of nothing."""

    part: int
    whole: int
    value: float
    low: float
    high: float


NOTHING = Rate(0, 0, *[float("nan")] * 3)


@dataclass(frozen=True)
class Segment:
    """The turns that have one value of a segment."""

    name: str | None
    """None: the log or the label has no value."""
    failed: Rate
    points: Mapping[FailurePoint, int]
    """Defects by failure point."""
    sure: int
    """Defects whose failure point the model does not abstain from."""
    rest: int = 0
    """How many values are added up here; 0: it is one."""

    @property
    def most_frequent(self) -> FailurePoint | None:
        """The failure point that most of its defects have."""
        return max(self.points, key=lambda point: self.points[point]) if self.failed.part else None


@dataclass(frozen=True)
class Moment:
    """The turns of one hour, day, week or month."""

    start: dt.datetime
    """UTC"""
    failed: Rate
    points: Mapping[FailurePoint, Rate]


@dataclass(frozen=True)
class GoalsOfIntent:
    """The goals that one intent opened."""

    intent: str | None
    reached: Rate
    turns_per_goal: float
    points: Mapping[FailurePoint, int]
    """Goals that were not reached by failure point."""
    rest: int = 0
    """As of `Segment`."""


@dataclass(frozen=True)
class Numbers:
    """Everything that is counted of one labelled output."""

    dialogues: int
    turns: int
    goals: int
    failed: Rate
    """Turns."""
    sure_failed: Rate
    """Of the turns whose failure point the model does not abstain from."""
    points: Mapping[FailurePoint, Rate]
    """Turns by failure point, upstream first."""
    reached: Rate
    """Goals."""
    succeeded: Rate
    """Dialogues whose every goal was reached."""
    abstained: Mapping[Label, Rate]
    """Turns by label that abstains."""
    segments: Mapping[str, Sequence[Segment]]
    """By column of `SEGMENTS`, most defects first; none where no turn has a value."""
    goals_of_intents: Sequence[GoalsOfIntent]
    unit: str
    """of `moments`: hour, day, week or month"""
    moments: Sequence[Moment]
    timeless: int
    """Turns without a time."""
    first: dt.datetime | None
    last: dt.datetime | None


@dataclass
class _Tally:
    """K shares of G dialogues' rows."""

    name: str
    keys: list[int]
    part: csr_matrix
    """(K, G) rows that are counted, by key and dialogue"""
    whole: csr_matrix
    """(K, G) rows in all"""

    def statistic(self, weights: Floats) -> dict[str, Floats]:
        part, whole = self.part @ weights.T, self.whole @ weights.T
        shares = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
        return {f"{self.name}/{key}": row for key, row in zip(self.keys, shares, strict=True)}

    def rate(self, place: int, estimate: Estimate) -> Rate:
        part, whole = int(self.part[place].sum()), int(self.whole[place].sum())
        if part not in (0, whole):
            return Rate(part, whole, *estimate)
        dialogues = self.whole[place].count_nonzero()
        wilson = binomtest(dialogues if part else 0, dialogues).proportion_ci(method="wilson")
        return Rate(part, whole, estimate.value, float(wilson.low), float(wilson.high))


@dataclass
class _Counter:
    """Collects what shares are wanted, so that all their intervals come from the same resamples."""

    connection: duckdb.DuckDBPyConnection
    dialogues: int
    tallies: list[_Tally] = field(default_factory=list)

    def share(self, name: str, part: str, table: str, *, where: str = "true", by: str = "0") -> None:
        """The share of the rows with `part` in those of a table, by the whole number `by`; all three are SQL."""
        rows = self.connection.execute(
            f"SELECT {by} AS key, dialogue, count(*) FILTER ({part}) AS part, count(*) AS whole "
            f"FROM {table} WHERE {where} GROUP BY ALL ORDER BY key, dialogue"
        ).fetchnumpy()
        keys, places = np.unique(rows["key"], return_inverse=True)
        at, shape = (places, rows["dialogue"]), (len(keys), self.dialogues)
        matrices = (csr_matrix((rows[each].astype(np.float64), at), shape) for each in ("part", "whole"))
        self.tallies.append(_Tally(name, keys.tolist(), *matrices))

    def rates(self) -> dict[str, dict[int, Rate]]:
        """Every share that was wanted, by its name and key."""
        if not self.dialogues:
            return {tally.name: {} for tally in self.tallies}
        statistics: list[Statistic] = [tally.statistic for tally in self.tallies]
        estimates = Sample(range(self.dialogues), RESAMPLES).estimate(*statistics)
        return {
            tally.name: {
                key: tally.rate(place, estimates[f"{tally.name}/{key}"]) for place, key in enumerate(tally.keys)
            }
            for tally in self.tallies
        }


def count(connection: duckdb.DuckDBPyConnection) -> Numbers:
    """The numbers of the views `turns`, `goals` and `dialogues` of `pipelines.labelled`."""
    _number(connection)
    [(turns, timeless, first, last)] = connection.execute(
        "SELECT count(*), count(*) FILTER (time IS NULL), min(time), max(time) FROM numbered_turns"
    ).fetchall()
    [(dialogues, goals)] = connection.execute(
        "SELECT (SELECT count(*) FROM numbered_dialogues), (SELECT count(*) FROM numbered_goals)"
    ).fetchall()
    unit = _unit(first, last)
    bucket = f"epoch_us(date_trunc('{unit}', time))"

    counter = _Counter(connection, dialogues)
    counter.share("failed", _FAILED, "numbered_turns")
    counter.share("sure", _FAILED, "numbered_turns", where=_SURE)
    counter.share("reached", "success", "numbered_goals")
    counter.share("succeeded", "success", "numbered_dialogues")
    for label in Label:
        counter.share(f"abstains {label}", f"list_contains(abstained, '{label}')", "numbered_turns")
    for point in FailurePoint:
        counter.share(f"is {point}", f"failure_point = '{point}'", "numbered_turns")
    counter.share("failed over time", _FAILED, "numbered_turns", where="time IS NOT NULL", by=bucket)
    for point in DEFECTS:
        counter.share(
            f"{point} over time", f"failure_point = '{point}'", "numbered_turns", where="time IS NOT NULL", by=bucket
        )
    for name, limit in SEGMENTS.items():
        _rank(connection, name, "numbered_turns", _FAILED)
        counter.share(f"by {name}", _FAILED, f"numbered_turns_by_{name}", by=f"least(place, {limit + 1})")
    _rank(connection, "intent", "numbered_goals", "NOT success")
    counter.share("reached by intent", "success", "numbered_goals_by_intent", by=f"least(place, {SHOWN + 1})")
    rates = counter.rates()

    def whole(name: str) -> Rate:
        return rates[name].get(0, NOTHING)

    return Numbers(
        dialogues=dialogues,
        turns=turns,
        goals=goals,
        failed=whole("failed"),
        sure_failed=whole("sure"),
        points={point: whole(f"is {point}") for point in FailurePoint},
        reached=whole("reached"),
        succeeded=whole("succeeded"),
        abstained={label: whole(f"abstains {label}") for label in Label},
        segments={name: _segments(connection, name, limit, rates[f"by {name}"]) for name, limit in SEGMENTS.items()},
        goals_of_intents=_goals_of_intents(connection, rates["reached by intent"]),
        unit=unit,
        moments=[
            Moment(
                _EPOCH + dt.timedelta(microseconds=start),
                failed,
                {point: rates[f"{point} over time"][start] for point in DEFECTS},
            )
            for start, failed in rates["failed over time"].items()
        ],
        timeless=timeless,
        first=first,
        last=last,
    )


def _number(connection: duckdb.DuckDBPyConnection) -> None:
    """Tables `numbered_…` of the views, with a number for each dialogue and the time without its zone."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE numbered_dialogues AS "
        "SELECT *, row_number() OVER (ORDER BY dataset, dialogue_id) - 1 AS dialogue FROM dialogues"
    )
    numbers = "JOIN (SELECT dataset, dialogue_id, dialogue FROM numbered_dialogues) USING (dataset, dialogue_id)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE numbered_goals AS SELECT goals.*, dialogue FROM goals {numbers}")
    columns = ", ".join(["failure_point", "failure_point_confidence", "abstained", *SEGMENTS])
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE numbered_turns AS SELECT {columns}, dialogue, "
        f"make_timestamp(epoch_us(turns.started_at)) AS time FROM turns {numbers}"
    )


def _rank(connection: duckdb.DuckDBPyConnection, column: str, table: str, counted: str) -> None:
    """A view of the table with the `place` of the row's value among the column's: most counted first, from 1."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE ranked_{table}_{column} AS SELECT {column} AS value, "
        f"row_number() OVER (ORDER BY count(*) FILTER ({counted}) DESC, count(*), {column}) AS place "
        f"FROM {table} GROUP BY {column}"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {table}_by_{column} AS SELECT {table}.*, value, place FROM {table} "
        f"JOIN ranked_{table}_{column} ON {table}.{column} IS NOT DISTINCT FROM value"
    )


def _segments(connection: duckdb.DuckDBPyConnection, name: str, limit: int, rates: Mapping[int, Rate]) -> list[Segment]:
    rows = connection.execute(
        f"SELECT least(place, {limit + 1}) AS rank, any_value(value) AS value, count(DISTINCT place) AS values, "
        f"count(*) FILTER ({_FAILED} AND {_SURE}) AS sure, "
        + ", ".join(f"count(*) FILTER (failure_point = '{point}') AS {point}" for point in DEFECTS)
        + f" FROM numbered_turns_by_{name} GROUP BY rank ORDER BY rank"
    ).fetchall()
    if [value for _, value, *_ in rows] == [None]:
        return []
    return [
        Segment(
            value if at <= limit else None,
            rates[at],
            dict(zip(DEFECTS, points, strict=True)),
            sure,
            values if at > limit else 0,
        )
        for at, value, values, sure, *points in rows
    ]


def _goals_of_intents(connection: duckdb.DuckDBPyConnection, rates: Mapping[int, Rate]) -> list[GoalsOfIntent]:
    rows = connection.execute(
        f"SELECT least(place, {SHOWN + 1}) AS rank, any_value(value), count(DISTINCT place), avg(len(turn_indexes)), "
        + ", ".join(f"count(*) FILTER (NOT success AND failure_point = '{point}') AS {point}" for point in FailurePoint)
        + " FROM numbered_goals_by_intent GROUP BY rank ORDER BY rank"
    ).fetchall()
    return [
        GoalsOfIntent(
            value if at <= SHOWN else None,
            rates[at],
            turns,
            dict(zip(FailurePoint, points, strict=True)),
            values if at > SHOWN else 0,
        )
        for at, value, values, turns, *points in rows
    ]


def _unit(first: dt.datetime | None, last: dt.datetime | None) -> str:
    span = last - first if first and last else dt.timedelta()
    return next((unit for unit, most in _UNITS if span <= most), "month")
