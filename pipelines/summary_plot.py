"""The pictures of a run: where turns failed, and how sure the model was. Matplotlib, without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from schemas.log import FailurePoint

# Okabe and Ito's palette, which people with any colour vision tell apart.
_SOUND, _FAILED, _INK = "#56B4E9", "#D55E00", "#333333"


def failure_points_figure(counts: Mapping[str, int]) -> Figure:
    """A bar a failure point, upstream first, with its count and share. `counts`: turns by failure point."""
    total = sum(counts.values())
    values = [counts.get(point, 0) for point in FailurePoint]
    figure = Figure(figsize=(7.5, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    colours = [_SOUND if point == FailurePoint.CORRECT else _FAILED for point in FailurePoint]
    bars = axes.barh([str(point) for point in FailurePoint], values, color=colours)
    labels = [f"{value:,} ({value / total:.1%})" if total else "0" for value in values]
    axes.bar_label(bars, labels, padding=4, color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 1]) * 1.22)
    axes.set_xlabel("turns")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    failed = total - counts.get(FailurePoint.CORRECT, 0)
    share = f"{failed / total:.1%} failed" if total else "nothing was labelled"
    axes.set_title(f"Failure point of {total:,} turns: {share}", loc="left")
    _plain(axes)
    return figure


def confidence_figure(histograms: Mapping[str, Sequence[int]]) -> Figure:
    """A histogram a column. `histograms`: rows by probability, in bins of equal width from 0 to 1."""
    figure = Figure(figsize=(7.5, 1.9 * max(len(histograms), 1)), dpi=150, layout="constrained")
    for axes, (name, counts) in zip(
        figure.subplots(max(len(histograms), 1), squeeze=False)[:, 0], histograms.items(), strict=False
    ):
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.stairs(counts, edges, fill=True, color=_SOUND)
        axes.set_xlim(0, 1)
        axes.set_ylabel("rows")
        axes.set_title(f"{name} of {sum(counts):,} rows", loc="left", fontsize=10)
        _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
