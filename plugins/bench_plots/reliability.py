"""Reliability diagrams: how often predictions of some confidence are right (Guo et al., 2017).

A panel is a row of a table. Bars are the accuracy in bins of equal width, the samples of all seeds together; what is
missing to the mean confidence is hatched above (too sure) or below (not sure enough). ECE: expected calibration error
in points, mean over seeds, of the same bins. Predictions lie beside the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from bench_plots import _predicted, _style
from benchmark import PlotSpec, hookimpl
from benchmark.config import Range
from benchmark.figures import PlotRequest
from benchmark.metrics import single
from benchmark.records import Record
from benchmark.records.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # panels
LEAST = 1.6  # inches of a panel


@dataclass(frozen=True)
class ReliabilityOptions(_predicted.PredictedOptions):
    """Options.

    Attributes:
        bins: Of confidence, of equal width.
    """

    bins: Annotated[int, Range(min=2, max=100)] = single.ECE_BINS


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of scenarios whose samples are classified; unfinished runs and runs on validation data are left out.
        request: Options, width, and what finds the predictions.

    Raises:
        ValueError: Nothing is left, predictions are not there, or it is too much for one figure.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    asked = request or PlotRequest()
    options = asked.options or ReliabilityOptions()
    rows = _predicted.rows(records, most=MOST)
    found = [[made for _, made in _predicted.of_row(row, asked, options.experience)] for _, row in rows]
    names = _style.named(rows, [f", ECE={error_of(seeds, options.bins):.1f}" for seeds in found])
    signs = [
        Patch(color=_style.COLOURS[0]),
        Patch(**_GAP),
        Line2D([], [], **_EVEN),
    ]
    words = ["accuracy", "gap to the mean confidence", "as sure as right"]
    below = _style.legend_of(words, asked.width)[2]
    figure, axes = _style.squares(asked.width, names, least=LEAST, below=below)
    for axis, seeds in zip(axes, found, strict=True):
        _panel(axis, seeds, options.bins)
    _style.legend(figure, asked.width, signs, words)
    return figure


_GAP: Mapping[str, Any] = {"facecolor": "none", "edgecolor": _style.COLOURS[5], "hatch": "////", "linewidth": 0.5}
_EVEN: Mapping[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 0.8}


def _panel(axis: Axes, seeds: Sequence[Predictions], bins: int) -> None:
    confidence = np.concatenate([made.confidence for made in seeds])
    right = np.concatenate([made.label == made.prediction for made in seeds])
    found = single.reliability(confidence, right, bins=bins)
    used = found.size > 0
    edges = np.linspace(0, 100, bins + 1)[:-1][used]
    accuracy, sure = (100 * total[used] / found.size[used] for total in (found.right, found.confidence))
    wide = 100 / bins
    axis.bar(edges, accuracy, width=wide, align="edge", color=_style.COLOURS[0], edgecolor="white", linewidth=0.3)
    axis.bar(edges, sure - accuracy, bottom=accuracy, width=wide, align="edge", **_GAP)
    axis.plot([0, 100], [0, 100], **_EVEN)
    _style.plain(axis)
    axis.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence (%)", ylabel="accuracy (%)")


def error_of(seeds: Sequence[Predictions], bins: int) -> float:
    """Mean over seeds of the expected calibration error, in points."""
    errors = [single.calibration_error(made.confidence, made.label == made.prediction, bins=bins) for made in seeds]
    return float(100 * np.mean(errors))


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``reliability``."""
    return [
        PlotSpec(
            name="reliability",
            draw=draw,
            config=ReliabilityOptions,
            summary="how often predictions of some confidence are right, from the predictions beside the records",
        )
    ]
