"""What differs between two outputs: found where it is there, not where it is chance or one dialogue's doing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pipelines.comparison import MIN_ROWS, Comparison, Difference, compare
from pipelines.labelled import VIEWS, Labelled

Side = Callable[[Iterable[Any]], Labelled]


def opened(dialogues: Iterable[Any]) -> Labelled:
    """An output whose dialogues have these turns; each is whether it failed, with its segments where there are some."""
    turns, goals = [], []
    for number, failed in enumerate(dialogues):
        of, segments = failed if isinstance(failed, tuple) else (failed, {})
        ids = {"dataset": "d", "dialogue_id": f"{number}", **segments}
        turns += [{**ids, "failure_point": "asr" if each else "correct", "abstained": []} for each in of]
        goals.append({**ids, "success": not any(of)})
    connection = duckdb.connect()
    for table, rows in {"turns": turns, "goals": goals}.items():
        connection.register("rows", pa.Table.from_pylist(rows, schema=VIEWS[table]))
        connection.execute(f"CREATE TABLE {table} AS FROM rows")
    return Labelled("", (), connection, (), ExitStack())


def measured(comparison: Comparison, measure: str) -> Difference:
    return next(each for each in comparison.headline if each.measure == measure)


def clustered(rng: np.random.Generator, dialogues: int, turns: int) -> Iterable[Any]:
    """Turns that fail at 0.2, but in some dialogues far more often than in others."""
    return (rng.random(turns) < rate for rate in rng.beta(0.5, 2, dialogues))


def test_a_difference_is_found_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    worse, better = (opened(rng.random((300, 5)) < rate) for rate in (0.3, 0.2))
    for measure in ("defect", "failure_point/asr"):
        found = measured(compare(worse, better), measure)
        assert found.is_change
        assert 0 < found.low < 0.1 < found.high
        assert found.difference == pytest.approx(found.rate.value - found.reference.value)


def test_dialogues_of_one_turn_are_tested_as_two_proportions_are() -> None:
    [hits, rows] = [[60, 62], [500, 400]]
    found = measured(compare(*(opened([k < h] for k in range(n)) for h, n in zip(hits, rows, strict=True))), "defect")
    misses = [n - h for h, n in zip(hits, rows, strict=True)]
    assert found.p_value == pytest.approx(stats.chi2_contingency([hits, misses], correction=False).pvalue, rel=0.02)


def test_turns_that_fail_together_count_once() -> None:
    sides = [opened([[number < failed] * 20 for number in range(40)]) for failed in (14, 8)]
    found = measured(compare(*sides), "defect")
    assert found.rate.rows == 800
    assert found.rate.effective_rows == pytest.approx(40, rel=0.05)
    assert not found.is_change
    assert found.low < 0 < found.high


def test_among_many_segments_chance_is_called_noise() -> None:
    rng = np.random.default_rng(1)
    sides = [
        opened((failed, {"intent": f"{name}"}) for name in range(200) for failed in clustered(rng, 40, 4))
        for _ in range(2)
    ]
    tested = [each for each in compare(*sides).segments if each.measure == "defect"]
    assert len(tested) == 200
    assert 0.01 < np.mean([each.p_value < 0.05 for each in tested]) < 0.1
    assert not any(each.is_change for each in tested)


def test_the_segment_that_changed_is_first() -> None:
    rng = np.random.default_rng(2)

    def side(kitchen: float) -> Labelled:
        rates = {"kitchen": kitchen, "car": 0.1, "phone": 0.1}
        return opened(
            (rng.random(4) < rate, {"device": name, "domain": "music"})
            for name, rate in rates.items()
            for _ in "x" * 60
        )

    first = compare(side(0.4), side(0.1)).segments[0]
    assert (first.by, first.segment) == ("device", "kitchen")
    assert first.is_change


def test_segments_with_few_turns_are_left_out_and_counted() -> None:
    few = [([True], {"locale": "sv"})] * (MIN_ROWS - 1)
    enough = [([True], {"locale": "en"})] * MIN_ROWS
    comparison = compare(opened([*few, *enough]), opened([*enough, *enough[:5]]))
    assert {each.segment for each in comparison.segments} == {"en"}
    [left_out] = comparison.left_out
    assert (left_out.by, left_out.segments, left_out.turns, left_out.reference_turns) == ("locale", ("sv",), 49, 0)


def test_a_rate_of_nothing_is_not_certain() -> None:
    none, some = opened([[False] * 5] * 100), opened([[number < 10] * 5 for number in range(100)])
    same, found = measured(compare(none, none), "defect"), measured(compare(none, some), "defect")
    assert same.p_value == 1
    assert same.low < 0 < same.high
    assert found.is_change
    assert found.low < -0.1 < found.high < 0


def test_rejects_are_a_share_of_the_records(labelled_output: Any) -> None:
    with Labelled.open(str(labelled_output.labels), logs=False) as labelled:
        rejected = labelled.connection.execute("SELECT count(*) FROM rejected").fetchall()[0][0]
        found = measured(compare(labelled, labelled), "rejected")
    records = sum(manifest.summary.records for manifest in labelled.manifests)
    assert found.rate.value == rejected / records > 0
    assert found.rate.rows == records
