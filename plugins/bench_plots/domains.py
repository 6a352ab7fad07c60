"""Bars of the final accuracy on every domain: test sets of streams of domains, pairs or targets of adaptation.

A panel is a table, a bar a row of it; bars are means over seeds, with one sample standard deviation to either side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench_plots import _style
from benchmark import PlotSpec, families, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Board, Score
from benchmark.metrics.statistics import Summary, summarize
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6  # panels
ROWS = 14  # of a table
BAR, GAP = 0.075, 0.09  # inches of a bar, and between domains
HATCHES = ("", "////", "....", "xxxx")


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of any scenarios; those without domains, unfinished runs and runs on validation data are left out.
        request: The width.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    asked = request or PlotRequest()
    lacking = "there is no completed run of a scenario of domains"
    boards = _style.boards([run for run in records if _apart(run)], most=MOST, lacking=lacking)
    for board in boards:
        _style.fit(board.rows, most=ROWS, what="rows of a table", lacking=lacking)
    looks = _style.looks((row.label, _style.is_control(row)) for board in boards for row in board.rows)
    bars = _bars(looks)
    below = _style.legend_of(list(bars), asked.width)[2]
    tables = [_table(board) for board in boards]
    high = max(len(names) * (len(board.rows) * BAR + GAP) for board, (names, _) in zip(boards, tables, strict=True))
    figure, axes = _style.grid(asked.width, [board.title for board in boards], high + 0.5, below)
    signs: dict[str, Artist] = {}
    for axis, (names, rows) in zip(axes, tables, strict=True):
        signs |= _panel(axis, names, rows, bars)
    _style.legend(figure, asked.width, list(signs.values()), list(signs))
    return figure


def _apart(run: Record) -> bool:
    family = families.of_record(run.scenario.family, run.scenario.family_facts)
    return family.domains or family.shift


def _bars(looks: Mapping[str, _style.Look]) -> dict[str, dict[str, Any]]:
    """Of each row; hatched where its colour was used before."""
    before = Counter[str]()
    found = {}
    for label, look in looks.items():
        colour = look["color"]
        found[label] = {"facecolor": colour, "edgecolor": "white", "hatch": HATCHES[before[colour] % len(HATCHES)]}
        before[colour] += 1
    return found


def _table(board: Board) -> tuple[list[str], dict[str, Mapping[str, Summary]]]:
    """Names of the domains, and by row the accuracy on each."""
    several = len({run.scenario.name for row in board.rows for run in row.runs}) > 1
    names: dict[str, None] = {}
    rows: dict[str, Mapping[str, Summary]] = {}
    for row in board.rows:
        found = by_domain(row, several=several)
        names |= dict.fromkeys(found)
        rows[row.label] = {name: summarize(values) for name, values in found.items()}
    return list(names), rows


def by_domain(row: Score, *, several: bool) -> dict[str, list[float | None]]:
    """The final accuracies on each domain, one a seed.

    Args:
        row: Of a table.
        several: Whether domains are variants of the scenario, rather than test sets of one.
    """
    found: dict[str, list[float | None]] = {}
    for run in sorted(row.runs, key=lambda run: run.scenario.name):
        for test, value in zip(run.scenario.tests, run.accuracy[-1], strict=True):
            if not test.further:
                variant = run.scenario.name.rpartition("/")[2]
                found.setdefault(variant if several else test.name, []).append(value)
    return found


def _panel(
    axis: Axes, names: Sequence[str], rows: Mapping[str, Mapping[str, Summary]], bars: Mapping[str, Mapping[str, Any]]
) -> dict[str, Artist]:
    """Bars from the top down, in the order of the table within a domain."""
    step = len(rows) * BAR + GAP
    signs: dict[str, Artist] = {}
    for place, (label, found) in enumerate(rows.items()):
        shown = [(number, found[name]) for number, name in enumerate(names) if name in found]
        means = [100 * (summary.mean or 0.0) for _, summary in shown]
        at = [number * step + (place + 0.5) * BAR for number, _ in shown]
        spread = [100 * (summary.std or 0.0) for _, summary in shown]
        signs[label] = axis.barh(at, means, height=BAR, linewidth=0.2, **bars[label])[0]
        axis.errorbar(means, at, xerr=spread, linestyle="none", color="black", elinewidth=0.6)
    axis.set_yticks([number * step + len(rows) * BAR / 2 for number in range(len(names))], labels=names)
    for text in axis.get_yticklabels():
        text.set_parse_math(False)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.set_xlim(0, 102)
    axis.set_ylim(len(names) * step, -GAP)
    axis.set_xlabel("accuracy (%)")
    return signs


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``domains``."""
    return [PlotSpec(name="domains", draw=draw, summary="bars of the final accuracy on every domain")]
