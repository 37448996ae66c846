"""Batches by padded size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.batching import ROWS, WINDOWS, batches, rung

_lengths = st.lists(st.integers(1, WINDOWS[-1]), max_size=300)
_budget = st.integers(1, 4_096)


@given(_lengths, _budget)
def test_every_item_comes_once_and_fits(lengths: list[int], budget: int) -> None:
    seen: list[int] = []
    for indexes, rows, padded in batches(lengths, WINDOWS, budget):
        assert 1 <= len(indexes) <= rows
        assert max(lengths[index] for index in indexes) <= padded
        seen += indexes.tolist()
    assert sorted(seen) == list(range(len(lengths)))


@given(_lengths, _budget)
def test_the_budget_is_kept_but_for_a_single_item(lengths: list[int], budget: int) -> None:
    for _, rows, padded in batches(lengths, WINDOWS, budget):
        assert rows * padded <= budget or rows == 1


@given(_lengths, _budget)
def test_shapes_come_from_the_ladder(lengths: list[int], budget: int) -> None:
    for _, rows, padded in batches(lengths, WINDOWS, budget):
        assert padded in WINDOWS
        assert rows in ROWS or rows == budget // padded


def test_the_longest_come_first() -> None:
    order = np.concatenate([indexes for indexes, _, _ in batches([3, 60, 9, 40], WINDOWS, 256)])
    assert order.tolist() == [1, 3, 2, 0]


def test_what_no_rung_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="65 is above the ladder's top, 64"):
        rung(65, WINDOWS)
