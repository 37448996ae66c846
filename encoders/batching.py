"""Batches of windows of turns by their padded size, in shapes from a small ladder.

The CPU's kernel library prepares a kernel for every new shape, so shapes that vary freely cost more than the
padding they save: lengths and row counts are rounded up to a few values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

WINDOWS = (4, 8, 16, 32, 64)
"""Padded lengths of a window, in turns."""
ROWS = tuple(sorted({step << shift for shift in range(20) for step in (2, 3)} | {1}))
"""Padded counts of rows: powers of two and half-way between."""


def rung(value: int, ladder: Sequence[int]) -> int:
    """The lowest rung that holds `value`. Raises `ValueError` where none does."""
    for step in ladder:
        if value <= step:
            return step
    raise ValueError(f"{value} is above the ladder's top, {ladder[-1]}")


def batches(
    lengths: Sequence[int], ladder: Sequence[int], budget: int
) -> Iterator[tuple[npt.NDArray[np.int64], int, int]]:
    """Groups items of like length: (item indexes, rows, padded length) for each batch.

    Items are taken longest first. A batch has at most `budget` padded elements, and at least one item. `rows`
    is at least the number of items: the count is rounded up to a rung of `ROWS`, so the last batch of a length
    does not make a shape of its own; rows past the items are padding.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        padded = rung(int(lengths[order[start]]), ladder)
        full = max(budget // padded, 1)
        end = start
        while end < len(order) and end - start < full and rung(max(int(lengths[order[end]]), 1), ladder) == padded:
            end += 1
        count = end - start
        yield order[start:end], min(full, rung(count, ROWS)), padded
        start = end
