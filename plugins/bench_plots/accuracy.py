"""Accuracy along the stream: after each experience the mean over the test sets so far, one line a row of the table.

A panel is a table of `bench leaderboard` and has its title; a line is a row and has its label. The line is the mean
over seeds, the band one sample standard deviation (ddof = 1) to either side; with one seed there is no band. Controls
are grey. Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; line styles and
markers tell apart what shares a colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark import PlotSpec, hookimpl
from benchmark.leaderboard import leaderboard
from benchmark.metrics.statistics import summarize
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREYS = ("#4D4D4D", "#808080", "#A6A6A6")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX*"
MOST = 12  # panels
TITLE = 78  # characters of a line of a title
CURVE = "avg_acc"

Line = tuple[str, bool, list[Record]]


def draw(records: Sequence[Record]) -> Figure:
    """Draws the figure.

    Args:
        records: Of any scenarios; streams of one experience, unfinished runs and runs on validation data are left out.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    from matplotlib.figure import Figure

    panels = _panels(records)
    if not panels:
        raise ValueError("there is no completed run of a stream of two or more experiences")
    if len(panels) > MOST:
        raise ValueError(f"{len(panels)} tables are too many for one figure; choose up to {MOST}, e.g. by scenario")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    most = max(len(lines) for lines in panels.values())
    figure = Figure(figsize=(7.5 * columns, rows * max(3.6, 0.7 + 0.19 * most)), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        _panel(axis, title, lines)
    for axis in axes[len(panels) :]:
        axis.remove()
    return figure


def _panels(records: Sequence[Record]) -> dict[str, list[Line]]:
    """Lines by the titles of their tables, in the order of the tables' rows."""
    runs = {run.run_id: run for run in records if run.status == "completed" and _curve(run)}
    panels: dict[str, list[Line]] = {}
    for table in leaderboard(runs.values()):
        lines: dict[str, list[Record]] = {}
        for row in table.runs:
            lines.setdefault(str(row["row"]), []).append(runs[str(row["run_id"])])
        if lines:
            panels[table.title] = [(name, found[0].method.control, found) for name, found in lines.items()]
    return panels


def _curve(run: Record) -> list[float | None]:
    """One value an experience; nothing where there is no stream."""
    values = (run.metrics or {}).get(CURVE)
    return values if isinstance(values, list) and len(values) > 1 else []


def _panel(axis: Axes, title: str, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = {False: 0, True: 0}
    for label, control, runs in lines:
        place = counts[control]
        counts[control] += 1
        colours = GREYS if control else COLOURS
        look = {
            "color": colours[place % len(colours)],
            "linestyle": STYLES[(place // len(colours) + control) % len(STYLES)],
            "marker": MARKERS[place % len(MARKERS)],
        }
        _line(axis, label, runs, look)
    axis.set_title("\n".join(textwrap.wrap(title, TITLE)), fontsize=9, loc="left", parse_math=False)
    axis.set_xlabel("experience")
    axis.set_ylabel("accuracy on test sets so far (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(0, 102)
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _line(axis: Axes, label: str, runs: Sequence[Record], look: Mapping[str, Any]) -> None:
    curves = [_curve(run) for run in runs]
    length = max(map(len, curves))
    places = range(1, length + 1)
    points = [summarize([curve[place] for curve in curves if place < len(curve)]) for place in range(length)]
    means = [float("nan") if point.mean is None else 100 * point.mean for point in points]
    # A label that begins with an underscore would be left out of the legend.
    shown = f"\u200a{label} (n={len(runs)})"
    axis.plot(places, means, label=shown, markersize=3.5, linewidth=1.5, **look)
    if all(point.std is not None for point in points):
        spread = [100 * (point.std or 0.0) for point in points]
        low = [mean - width for mean, width in zip(means, spread, strict=True)]
        high = [mean + width for mean, width in zip(means, spread, strict=True)]
        axis.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``accuracy``."""
    return [PlotSpec(name="accuracy", draw=draw, summary="accuracy after each experience, with bands over seeds")]
