"""Accuracy within each class, a point a class and row, mean over seeds.

A panel is a table. Classes stand in the order in which they were learnt where all seeds share it (lines: a new
experience begins), else by their labels; ticks are the labels of the data set. Predictions lie beside the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench_plots import _predicted, _style, confusion
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Score
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

MOST = 6  # panels
ROWS = 14  # of a table
CLASSES = 200
HEIGHT = 2.2  # inches of a panel


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
    boards = _predicted.boards(records, most=MOST)
    for board in boards:
        _style.fit(board.rows, most=ROWS, what="rows of a table", lacking="")
    looks = _style.looks((row.label, _style.is_control(row)) for board in boards for row in board.rows)
    below = _style.legend_of(list(looks), asked.width)[2]
    figure, axes = _style.grid(asked.width, [board.title for board in boards], HEIGHT, below)
    signs: dict[str, Artist] = {}
    for axis, board in zip(axes, boards, strict=True):
        runs = [run for row in board.rows for run in row.runs]
        classes, learnt = _predicted.classes_of(runs, CLASSES)
        for row in board.rows:
            means = by_class(row, asked, options.experience, classes)
            look = {**looks[row.label], "linestyle": "none", "alpha": 0.8}
            (signs[row.label],) = axis.plot(range(len(classes)), means, **look)
        for border in _predicted.borders(runs) if learnt else []:
            axis.axvline(border - 0.5, color="black", linewidth=0.3)
        axis.grid(visible=False, axis="x")
        axis.set_xlim(-0.5, len(classes) - 0.5)
        axis.set_ylim(-3, 103)
        axis.set_xlabel("class")
        axis.set_ylabel("accuracy within the class (%)")
        confusion.label_ticks(axis, classes, both=False)
    _style.legend(figure, asked.width, list(signs.values()), list(signs))
    return figure


def by_class(
    row: Score, request: PlotRequest, experience: int | None, classes: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Mean over seeds of the accuracy within each class, in percent; NaN where a class was not tested."""
    found = []
    for run, made in _predicted.of_row(row, request, experience):
        labels, guesses = (_predicted.places_of(run, part, classes) for part in (made.label, made.prediction))
        counts = confusion.confusion(labels, guesses, len(classes))
        found.append(np.diag(confusion.shares_of(counts)))
    mean: npt.NDArray[np.float64] = np.mean(found, axis=0)
    return mean


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``class-accuracy``."""
    return [
        PlotSpec(
            name="class-accuracy",
            draw=draw,
            config=_predicted.PredictedOptions,
            summary="accuracy within each class, from the predictions beside the records",
        )
    ]
