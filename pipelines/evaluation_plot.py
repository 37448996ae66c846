"""The pictures of an evaluation, in colours that people with any colour vision tell apart.

Matplotlib, without a display.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labelers.metrics import Curve, Integers
from pipelines.evaluation import ReliabilityBin, covered

# Okabe and Ito's palette.
_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_INK = "#333333"


def confusion_figure(table: Integers, names: Sequence[str]) -> Figure:
    """Annotated failure points (rows) by those of the model, shaded by the share of the row.

    `table` (K, K) turns; a class without annotated turns has an empty row.
    """
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6.4, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    for row, column in np.ndindex(table.shape):
        # Dark cells need light figures.
        colour = "white" if shares[row, column] < 0.5 else "black"
        axes.text(column, row, f"{table[row, column]:,}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("model")
    axes.set_ylabel("annotated")
    axes.set_title(f"Failure point of {int(table.sum()):,} turns", loc="left")
    figure.colorbar(image, ax=axes, label="share of the annotated turns", shrink=0.8)
    return figure


def reliability_figure(bins: Sequence[ReliabilityBin]) -> Figure:
    """How often an answer was right against how sure it was, a line a label; on the diagonal it is calibrated."""
    figure, axes = _square("confidence", "share that is right", "Reliability")
    axes.plot([0, 1], [0, 1], color=_INK, linestyle="--", linewidth=1, label="calibrated")
    for colour, label in zip(itertools.cycle(_COLOURS), dict.fromkeys(each.label for each in bins), strict=False):
        points = [(each.confidence, each.accuracy) for each in bins if each.label == label and each.questions]
        axes.plot(*np.array(points, dtype=np.float64).T, color=colour, marker="o", markersize=4, label=label)
    axes.legend(frameon=False)
    return figure


def coverage_figure(curves: Mapping[str, Curve]) -> Figure:
    """Precision of what is kept against how much that is, a line a label."""
    figure, axes = _square("coverage", "precision", "Coverage against precision")
    for colour, (label, curve) in zip(itertools.cycle(_COLOURS), curves.items(), strict=False):
        axes.plot(covered(label, curve), curve.precision, color=colour, label=label)
    axes.legend(frameon=False)
    return figure


def _square(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
