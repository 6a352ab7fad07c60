"""What the figures of this package share: colours, panels, titles and legends that fit a column of a paper.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; line styles and markers tell
apart what shares a colour. Controls are grey. A row of a table looks the same in every panel of a figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmark.leaderboard.scores import Board, Score, boards_of
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure, SubFigure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREYS = ("#4D4D4D", "#808080", "#A6A6A6")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX*"
TITLE, SMALL = 8.0, 6.5  # points
LINE = 1.3  # height of a line, times its letters
LETTER = 0.56  # mean width of a letter, times its height
POINTS = 72  # an inch
SCALE = 0.55  # inches of a scale of colours
SIDE = 3.4  # inches of a square panel, at most
COLUMN = 1.6  # inches of a legend that a label gets, at least
HANDLE = 0.32  # inches of a legend's sign, with the space around it

Look = Mapping[str, Any]


def looks(rows: Iterable[tuple[str, bool]]) -> dict[str, Look]:
    """How the lines of labelled rows look; of controls (the second of a pair) grey."""
    found: dict[str, Look] = {}
    counts = {False: 0, True: 0}
    for label, control in rows:
        if label in found:
            continue
        place = counts[control]
        counts[control] += 1
        colours = GREYS if control else COLOURS
        found[label] = {
            "color": colours[place % len(colours)],
            "linestyle": STYLES[(place // len(colours) + control) % len(STYLES)],
            "marker": MARKERS[place % len(MARKERS)],
        }
    return found


def boards(records: Iterable[Record], *, most: int, lacking: str) -> list[Board]:
    """The tables that are drawn, a panel each.

    Raises:
        ValueError: There is none (what is ``lacking``), or there are too many.
    """
    found = [board for board in boards_of(records) if board.rows]
    fit(found, most=most, what="tables", lacking=lacking)
    return found


def fit(found: Sequence[object], *, most: int, what: str, lacking: str) -> None:
    """Checks that there is something to draw, and not too much.

    Raises:
        ValueError: There is nothing, or more than one figure can hold.
    """
    if not found:
        raise ValueError(lacking)
    if len(found) > most:
        raise ValueError(
            f"{len(found)} {what} are too many for one figure; choose up to {most}, e.g. by scenario or method"
        )


def is_control(row: Score) -> bool:
    """Whether a row is a yardstick, drawn in grey."""
    return row.group == "control"


# --- where things are ------------------------------------------------------------------------------


def panels(
    width: float, heights: Sequence[float], *, least: float = 3.2, most: int = 4
) -> tuple[Figure, list[SubFigure]]:
    """A figure of so many panels.

    Args:
        width: Of the figure, inches.
        heights: Of each panel, inches.
        least: Width of a panel, inches.
        most: Panels beside one another.
    """
    from matplotlib.figure import Figure

    columns = across(width, len(heights), least=least, most=most)
    rows = [max(heights[start : start + columns]) for start in range(0, len(heights), columns)]
    figure = Figure(figsize=(width, sum(rows)), layout="constrained")
    cells = figure.subfigures(len(rows), columns, squeeze=False, height_ratios=rows)
    return figure, list(cells.flat)[: len(heights)]


def squares(width: float, names: Sequence[str], *, least: float, below: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels about as high as wide, with titles and without legends.

    Args:
        width: Of the figure, inches.
        names: Titles.
        least: Width of a panel, inches.
        below: Inches for what stands below all panels.
    """
    from matplotlib.figure import Figure

    # Not an aspect of 1: the layout then takes the room that it leaves for that of titles.
    columns = across(width, len(names), least=least)
    each = width / columns
    told = [wrapped(name, each - 0.5) for name in names]
    rows = -(-len(names) // columns)
    side = min(each, SIDE)
    high = rows * (side + max(height_of(name) for name in told)) + below
    figure = Figure(figsize=(width, high), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(names) :]:
        axis.remove()
    for axis, name in zip(axes, told, strict=False):
        title(axis, name)
    return figure, axes[: len(names)]


def scale(figure: Figure, axes: Sequence[Axes], mesh: QuadMesh, label: str) -> None:
    """Puts the scale of colours below the panels of `squares`."""
    _, high = figure.get_size_inches()
    bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", aspect=40, shrink=0.7, fraction=SCALE / high)
    bar.set_label(label)
    if bar.solids is not None:
        bar.solids.set_rasterized(False)  # a picture of dots cannot be put into .pgf


def numbers(axis: Axes, table: npt.NDArray[np.float64], mesh: QuadMesh, room: float, *, first: int) -> None:
    """Writes values into their cells, which are so many inches wide and counted from ``first``, light on dark."""
    size = min(7.0, room * POINTS / (3.2 * 0.6))
    for (time, place), value in np.ndenumerate(table):
        if np.isnan(value):
            continue
        red, green, blue, _ = mesh.to_rgba(np.array([value]))[0]
        light = 0.299 * red + 0.587 * green + 0.114 * blue
        told = f"{round(value) + 0:d}"
        colour = "black" if light > 0.5 else "white"
        axis.text(place + first, time + first, told, ha="center", va="center", fontsize=size, color=colour)


def named(rows: Sequence[tuple[str, Score]], notes: Sequence[str] = ()) -> list[str]:
    """Titles of panels that are rows: their labels, with the table where there are several.

    Args:
        rows: Titles of tables, with a row of each.
        notes: What is said behind the labels.
    """
    several = len({table for table, _ in rows}) > 1
    told = notes or [""] * len(rows)
    return [
        f"{row.label} (n={len(row.runs)}{note})" + (f"; {table}" if several else "")
        for (table, row), note in zip(rows, told, strict=True)
    ]


def grid(width: float, titles: Sequence[str], height: float, below: float) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels under their titles.

    Args:
        width: Of the figure, inches.
        titles: One a panel; they are wrapped.
        height: Of each without its title, inches.
        below: Inches for what stands below all panels.
    """
    from matplotlib.figure import Figure

    columns = across(width, len(titles))
    told = [wrapped(text, width / columns - 0.6) for text in titles]
    rows = -(-len(told) // columns)
    high = rows * (height + max(height_of(text) for text in told)) + below
    figure = Figure(figsize=(width, high), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(told) :]:
        axis.remove()
    for axis, text in zip(axes, told, strict=False):
        title(axis, text)
        plain(axis)
    return figure, axes[: len(told)]


def across(width: float, count: int, *, least: float = 3.2, most: int = 4) -> int:
    """Panels beside one another."""
    return max(1, min(count, most, int(width / least)))


def wrapped(text: str, width: float, size: float = TITLE) -> str:
    """A text in lines that are no wider than so many inches."""
    letters = max(12, int(width * POINTS / (LETTER * size)))
    return "\n".join(textwrap.wrap(text, letters, break_on_hyphens=False))


def height_of(text: str, size: float = TITLE) -> float:
    """Inches that the lines of a text take."""
    return (text.count("\n") + 1) * size * LINE / POINTS


def title(axis: Axes, text: str) -> None:
    """Puts a wrapped title over a panel."""
    axis.set_title(text, fontsize=TITLE, loc="left", parse_math=False)


def plain(axis: Axes) -> None:
    """A panel without a box, with a grid behind."""
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def legend_of(labels: Sequence[str], width: float) -> tuple[list[str], int, float]:
    """Labels in lines, columns, and the height in inches of a legend of so many inches."""
    least = max(1, int(width / COLUMN))  # columns that a long label must leave room for
    told = [wrapped(label, width / least - HANDLE, SMALL) for label in labels]
    longest = max(max(map(len, text.splitlines())) for text in told)
    columns = max(1, min(len(told), int(width / (longest * LETTER * SMALL / POINTS + HANDLE))))
    rows = -(-len(told) // columns)
    deep = sum(max(height_of(text, SMALL) for text in told[row::rows]) for row in range(rows))
    return told, columns, deep + 0.15


def legend(cell: Figure | SubFigure, width: float, signs: Sequence[Artist], labels: Sequence[str]) -> None:
    """Puts a legend below a panel or all of them, which are made smaller for it."""
    told, columns, _ = legend_of(labels, width)
    # A label that begins with an underscore would be left out: the texts are given behind.
    made = cell.legend(
        signs,
        ["label"] * len(told),
        loc="outside lower left",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        handlelength=1.8,
        handletextpad=0.5,
        columnspacing=0.8,
        labelspacing=0.25,
        borderpad=0.1,
    )
    for text, label in zip(made.get_texts(), told, strict=True):
        text.set_text(label)
        text.set_parse_math(False)


def mean(row: Score) -> float:
    """What ranks a row, over seeds, a fraction."""
    return sum(row.values.values()) / len(row.values)
