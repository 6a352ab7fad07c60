"""Accuracy against cost: which rows no other one beats in both.

The front is drawn and coloured, what is dominated is grey. Every row of a table is a point: what ranks it, mean over
seeds, with one sample standard deviation where there are several; and the mean of its cost. Upper bounds are left out,
as they train on what others may not have. Where a cost is zero, e.g. nothing is trained, the axis is linear up to the
smallest other one and logarithmic behind it; where costs are near one another it is linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench_plots import _style
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Board, Score
from benchmark.metrics.statistics import summarize
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6  # panels
MANY = 40  # rows of a table
APART = 30  # times the smallest cost: below, powers of ten are too few for ticks
HEIGHT = 2.4  # inches of a panel, without title and legend


@dataclass(frozen=True)
class ParetoOptions:
    """Options.

    Attributes:
        cost: ``parameters`` that are trained; ``flops`` of a training step; ``seconds`` of training, which depend on
            the machine; ``storage``: bytes that are kept after the last experience; ``memory``: peak of the process.
    """

    cost: Literal["parameters", "flops", "seconds", "storage", "memory"] = "parameters"


COSTS: Mapping[str, tuple[str, Callable[[Record], float | None]]] = {
    "parameters": ("trainable parameters", lambda run: run.cost.params_trainable if run.cost else None),
    "flops": ("FLOPs of a training step", lambda run: run.cost.flops_train_step if run.cost else None),
    "seconds": ("training (seconds)", lambda run: sum(run.timing.train_seconds)),
    "storage": ("stored (MiB)", lambda run: _mebibytes(run.cost.storage_bytes[-1:] if run.cost else [])),
    "memory": ("peak memory (MiB)", lambda run: _mebibytes([run.timing.peak_memory_bytes])),
}


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of any scenarios; unfinished runs, runs on validation data, and rows without the cost are left out.
        request: Options and width.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    asked = request or PlotRequest()
    name, cost = COSTS[(asked.options or ParetoOptions()).cost]
    lacking = f"no table has two rows with {name}"
    boards = [(board, _points(board, cost)) for board in _style.boards(records, most=99, lacking=lacking)]
    panels = [(board, points) for board, points in boards if len(points) > 1]
    _style.fit(panels, most=MOST, what="tables", lacking=lacking)
    for _, points in panels:
        _style.fit(points, most=MANY, what="rows of a table", lacking=lacking)
    each = asked.width / _style.across(asked.width, len(panels))
    titles = [_style.wrapped(board.title, each - 0.55) for board, _ in panels]
    legends = [_style.legend_of([point.row.label for point in points], each)[2] for _, points in panels]
    heights = [HEIGHT + _style.height_of(text) + below for text, below in zip(titles, legends, strict=True)]
    figure, cells = _style.panels(asked.width, heights)
    for cell, text, (board, points) in zip(cells, titles, panels, strict=True):
        axis = cell.subplots()
        signs = _panel(axis, points)
        _style.title(axis, text)
        axis.set_xlabel(name)
        axis.set_ylabel(f"{board.of.removeprefix('the ')} (%)")
        _style.legend(cell, each, signs, [point.row.label for point in points])
    return figure


@dataclass(frozen=True, kw_only=True)
class Point:
    """A row.

    Attributes:
        row: Of the table.
        cost: Mean over its runs.
        value: What ranks it, in percent.
        spread: Standard deviation of that, or None.
        front: Whether no other row is at least as good in both and better in one.
    """

    row: Score
    cost: float
    value: float
    spread: float | None
    front: bool


def _points(board: Board, cost: Callable[[Record], float | None]) -> list[Point]:
    """The rows that have a cost, as the table orders them."""
    found = []
    for row in board.rows:
        costs = summarize([cost(run) for run in row.runs]).mean
        value = summarize(list(row.values.values()))
        if row.group != "upper bound" and costs is not None and value.mean is not None:
            found.append((row, costs, value.mean, value.std))
    places = [(costs, value) for _, costs, value, _ in found]
    return [
        Point(
            row=row,
            cost=costs,
            value=100 * value,
            spread=None if std is None else 100 * std,
            front=not any(dominates(other, (costs, value)) for other in places),
        )
        for row, costs, value, std in found
    ]


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a (cost, value) is at least as good in both and better in one."""
    return one != other and one[0] <= other[0] and one[1] >= other[1]


def _panel(axis: Axes, points: Sequence[Point]) -> list[Artist]:
    looks = _style.looks((point.row.label, not point.front) for point in points)
    signs: list[Artist] = []
    for point in points:
        look = {**looks[point.row.label], "linestyle": "none", "markersize": 5 if point.front else 4}
        spread = point.spread or None
        drawn = axis.errorbar([point.cost], [point.value], yerr=spread, elinewidth=0.8, zorder=3 + point.front, **look)
        signs.append(drawn.lines[0])
    front = sorted((point.cost, point.value) for point in points if point.front)
    steps = [*front, (max(point.cost for point in points), front[-1][1])]
    axis.step(*zip(*steps, strict=True), where="post", color="black", linewidth=0.8, zorder=2)
    _scale(axis, [point.cost for point in points])
    _style.plain(axis)
    return signs


def _scale(axis: Axes, costs: Sequence[float]) -> None:
    """Logarithmic where costs are far apart, with a place for zero; labels at powers of ten, so that they fit."""
    from matplotlib.ticker import LogFormatterSciNotation, NullFormatter

    positive = [cost for cost in costs if cost > 0]
    if not positive or (len(positive) == len(costs) and max(positive) <= APART * min(positive)):
        return
    if len(positive) == len(costs):
        axis.set_xscale("log")
    else:
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.6)
        powers = range(math.ceil(math.log10(min(positive))), math.floor(math.log10(max(positive))) + 1)
        axis.set_xticks([0.0, *(10.0**power for power in powers)])
        axis.xaxis.set_major_formatter(LogFormatterSciNotation())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _mebibytes(values: Sequence[int | None]) -> float | None:
    return values[0] / 2**20 if values and values[0] is not None else None


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``pareto``."""
    return [
        PlotSpec(
            name="pareto",
            draw=draw,
            config=ParetoOptions,
            summary="accuracy against parameters, FLOPs, seconds, stored bytes or memory, with the front",
        )
    ]
