"""Confusion matrices: of the test samples of each class (rows) the share that is predicted as each class (columns).

A panel is a row of a table; the samples of all its seeds count together. Classes stand in the order in which they were
learnt where all seeds share it (thin lines: a new experience begins), else by their labels; ticks are the labels of the
data set. Predictions lie beside the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench_plots import _predicted, _style
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # panels
CLASSES = 200
LEAST = 2.1  # inches of a panel
TICKS = 10  # on an axis, about


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of scenarios whose samples are classified; unfinished runs and runs on validation data are left out.
        request: Options, width, and what finds the predictions.

    Raises:
        ValueError: Nothing is left, predictions are not there, or it is too much for one figure.
    """
    asked = request or PlotRequest()
    options = asked.options or _predicted.PredictedOptions()
    rows = _predicted.rows(records, most=MOST)
    figure, axes = _style.squares(asked.width, _style.named(rows), least=LEAST, below=_style.SCALE)
    for axis, (_, row) in zip(axes, rows, strict=True):
        found = _predicted.of_row(row, asked, options.experience)
        classes, learnt = _predicted.classes_of(row.runs, CLASSES)
        counts = sum(
            confusion(
                _predicted.places_of(run, made.label, classes),
                _predicted.places_of(run, made.prediction, classes),
                len(classes),
            )
            for run, made in found
        )
        shares = shares_of(np.asarray(counts))
        edges = np.arange(len(classes) + 1) - 0.5
        mesh = axis.pcolormesh(edges, edges, shares, vmin=0, vmax=100, cmap="cividis", linewidth=0.1, edgecolors="face")
        axis.invert_yaxis()
        axis.set_xlabel("predicted class")
        axis.set_ylabel("class")
        label_ticks(axis, classes, both=True)
        for border in _predicted.borders(row.runs) if learnt else []:
            axis.axhline(border - 0.5, color="white", linewidth=0.3)
            axis.axvline(border - 0.5, color="white", linewidth=0.3)
    _style.scale(figure, axes, mesh, "share of the samples of the class (%)")
    return figure


def confusion(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """Counts, ``(classes, classes + 1)``, row = label; the last column counts predictions of none of them (-1)."""
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    cell = (truth * (classes + 1) + np.where(guess < 0, classes, guess))[truth >= 0]
    counts: npt.NDArray[np.int64] = np.bincount(cell, minlength=classes * (classes + 1)).reshape(classes, classes + 1)
    return counts


def shares_of(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Percent of each row, ``(classes, classes)``; NaN where a class has no sample."""
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.float64] = 100 * counts[:, :-1] / counts.sum(axis=1, keepdims=True)
    return found


def label_ticks(axis: Axes, classes: Sequence[int], *, both: bool) -> None:
    """Original labels at some of the places."""
    step = next(step for step in (1, 2, 5, 10, 20, 25, 50) if len(classes) <= TICKS * step or step == 50)
    places = list(range(0, len(classes), step))
    for ticks in (axis.xaxis, axis.yaxis) if both else (axis.xaxis,):
        ticks.set_ticks(places, labels=[str(classes[place]) for place in places])
        ticks.set_tick_params(length=2)


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``confusion``."""
    return [
        PlotSpec(
            name="confusion",
            draw=draw,
            config=_predicted.PredictedOptions,
            summary="which classes are taken for which, from the predictions beside the records",
        )
    ]
