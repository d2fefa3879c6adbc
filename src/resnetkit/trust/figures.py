"""Drawings of a report, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.calibration import reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(history: Sequence[Mapping[str, Any]], score: str) -> str:
    """Losses, of which the calibrated one chooses the best epoch, and the first of the scores, by epoch, as an SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axis, names in ((left, ("train_loss", "val_loss", "val_calibrated_loss")), (right, (score,))):
        for name in names:
            values = [row.get(name) for row in history]
            if None not in values:
                axis.plot(epochs, values, marker="o", markersize=3, label=name.replace("_", " "))
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(frameon=False)
    return _svg(figure)


def reliability_diagram(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> str:
    """How often answers of a confidence are right, which should be as often as they say, and how many there are."""
    from matplotlib.figure import Figure

    sure, share, counts = reliability(confidence, correct)
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    upper.plot(sure, share, marker="o", markersize=4)
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    lower.bar(sure, counts, width=0.04)
    lower.set(xlabel="score", ylabel="answers")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    return _svg(figure)


def precision_curves(each: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]]) -> str:
    """Precision by recall of each class, as an SVG.

    Args:
        each: class name to recalls and precisions, as the score falls.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, (recall, precision) in each.items():
        axis.plot(recall, precision, label=name)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="small")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    _, start, rest = buffer.getvalue().partition("<svg")
    return start + rest
