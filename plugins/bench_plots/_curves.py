"""Figures of lines: a panel a table, a line a row, a band over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench_plots import _style
from benchmark.metrics.statistics import summarize
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 2.2  # inches of a panel, without title and legend

Values = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row.

    Attributes:
        label: Of the row; rows of one label look the same in every panel.
        control: Whether it is a yardstick.
        places: Where, ``(N,)``.
        values: Fractions at each place, one a seed.
    """

    label: str
    control: bool
    places: Sequence[float]
    values: Sequence[Values]


def draw(
    panels: Sequence[tuple[str, Sequence[Line]]], width: float, *, x: str, y: str, low: float | None = 0.0
) -> tuple[Figure, list[Axes]]:
    """Draws the panels.

    Args:
        panels: Titles with their lines.
        width: Of the figure, inches.
        x: What is to the right.
        y: What is upwards, in percent.
        low: Where the vertical axis begins, to 102 percent; None: where the lines do, and it ends with them.
    """
    looks = _style.looks((line.label, line.control) for _, lines in panels for line in lines)
    names = list(looks)
    below = _style.legend_of(names, width)[2]
    figure, axes = _style.grid(width, [_titled(title, lines) for title, lines in panels], HEIGHT, below)
    signs: dict[str, Artist] = {}
    for axis, (_, lines) in zip(axes, panels, strict=True):
        for line in lines:
            signs[line.label] = curve(axis, line.places, line.values, looks[line.label])
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        if low is not None:
            axis.set_ylim(low, 102)
    _style.legend(figure, width, [signs[name] for name in names], names)
    return figure, axes


def _titled(title: str, lines: Sequence[Line]) -> str:
    """With the number of seeds."""
    seeds = sorted({max(map(len, line.values)) for line in lines})
    told = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"
    return f"{title}, n={told}"


def curve(axis: Axes, places: Sequence[float], values: Sequence[Values], look: _style.Look) -> Artist:
    """A line of means over seeds, in percent, with a band of one standard deviation where there are several.

    Args:
        axis: The panel.
        places: Where, ``(N,)``.
        values: Fractions at each place, one a seed.
        look: Of the line.
    """
    points = [summarize(list(some)) for some in values]
    means = [float("nan") if point.mean is None else 100 * point.mean for point in points]
    (line,) = axis.plot(places, means, **look)
    # Where one value is not defined there is no band at that place.
    spread = [float("nan") if point.std is None else 100 * point.std for point in points]
    if any(point.std is not None for point in points):
        low = [mean - half for mean, half in zip(means, spread, strict=True)]
        high = [mean + half for mean, half in zip(means, spread, strict=True)]
        axis.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return line


def along(
    runs: Sequence[Record], of: Callable[[Record], Sequence[float | None]], *, most: int
) -> list[tuple[str, list[Line]]]:
    """The lines of what has one value an experience, by the titles of their tables.

    Args:
        runs: Finished ones that have it.
        of: The values of a run.
        most: Panels.

    Raises:
        ValueError: There is no run, or there are too many tables.
    """
    lacking = "there is no completed run of a stream of two or more experiences"
    panels = []
    for board in _style.boards(runs, most=most, lacking=lacking):
        lines = []
        for row in board.rows:
            curves = [of(run) for run in row.runs]
            places = range(max(map(len, curves)))
            lines.append(
                Line(
                    label=row.label,
                    control=_style.is_control(row),
                    places=[float(place + 1) for place in places],
                    values=[[curve[place] for curve in curves if place < len(curve)] for place in places],
                )
            )
        panels.append((board.title, lines))
    return panels


def whole_numbers(axes: Sequence[Axes]) -> None:
    """Experiences are counted."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
