"""Heat maps of the accuracy matrix: row t is after experience t, column j is test set j; a panel a row of a table.

Means over seeds, in percent; with ``of=forgetting`` what was lost since the best time before, in points (below zero:
gained). Cells that were not evaluated, or have no past to forget, are empty. Colours keep their order in grey and for
people with any colour vision (cividis; PuOr around zero).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bench_plots import _style
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Score
from benchmark.metrics import continual
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

MOST = 16  # panels
LEAST = {True: 2.1, False: 1.6}  # inches of a panel, with and without numbers
NUMBERS = 10  # experiences up to which cells have room for numbers


@dataclass(frozen=True)
class MatrixOptions:
    """Options.

    Attributes:
        of: What the cells are.
    """

    of: Literal["accuracy", "forgetting"] = "accuracy"


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of streams with one test set an experience; others, unfinished runs and runs on validation data are
            left out.
        request: Options and width.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    asked = request or PlotRequest()
    of = (asked.options or MatrixOptions()).of
    shown = [
        run
        for run in records
        if run.status == "completed" and len(run.accuracy) == len(run.accuracy[0]) and len(run.accuracy) > 1
    ]
    lacking = "there is no completed run of a stream with a test set of each of its experiences"
    found = [(board.title, row) for board in _style.boards(shown, most=MOST, lacking=lacking) for row in board.rows]
    _style.fit(found, most=MOST, what="rows of tables", lacking=lacking)
    tables = [mean_matrix(row, of) for _, row in found]
    small = max(len(table) for table in tables) <= NUMBERS
    figure, axes = _style.squares(asked.width, _style.named(found), least=LEAST[small], below=_style.SCALE)
    look: dict[str, Any] = {"cmap": "cividis", "vmin": 0.0, "vmax": 100.0}
    if of == "forgetting":
        reach = max(1.0, *(float(np.abs(table[~np.isnan(table)]).max(initial=0)) for table in tables))
        look = {"cmap": "PuOr_r", "vmin": -reach, "vmax": reach}
    each = figure.get_figwidth() / _style.across(asked.width, len(tables), least=LEAST[small])
    for axis, table in zip(axes, tables, strict=True):
        mesh = _panel(axis, table, look)
        if small:
            _style.numbers(axis, table, mesh, (min(each, _style.SIDE) - 0.55) / len(table), first=1)
    _style.scale(figure, axes, mesh, "accuracy (%)" if of == "accuracy" else "forgetting (points)")
    return figure


def mean_matrix(row: Score, of: str) -> npt.NDArray[np.float64]:
    """Mean over the runs of a row, in percent; a cell that one of them lacks is NaN."""
    found = [continual.as_matrix(run.accuracy) for run in row.runs]
    if of == "forgetting":
        found = [continual.forgetting_matrix(matrix) for matrix in found]
    mean: npt.NDArray[np.float64] = 100 * np.mean(found, axis=0)
    return mean


def _panel(axis: Axes, table: npt.NDArray[np.float64], look: Mapping[str, Any]) -> QuadMesh:
    from matplotlib.ticker import MaxNLocator

    times, sets = table.shape
    edges = np.arange(1, max(times, sets) + 2) - 0.5
    # Not `imshow`: a picture of dots cannot be put into .pgf.
    mesh = axis.pcolormesh(edges[: sets + 1], edges[: times + 1], table, linewidth=0.1, edgecolors="face", **look)
    axis.invert_yaxis()
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MaxNLocator(integer=True, nbins=10 if sets <= NUMBERS else 6))
        ticks.set_tick_params(length=2)
    axis.set_xlabel("test set")
    axis.set_ylabel("after experience")
    return mesh


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``matrix``."""
    return [
        PlotSpec(
            name="matrix",
            draw=draw,
            config=MatrixOptions,
            summary="heat maps of accuracy or forgetting on every test set after every experience",
        )
    ]
