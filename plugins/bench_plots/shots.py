"""Accuracy against the number of labelled samples, of families of few shots or few labels.

A line is a row of the table: the mean over seeds, the band one sample standard deviation (ddof = 1) to either side. The
axis of numbers is logarithmic. Rows are drawn that have the largest number, by which their table ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench_plots import _curves, _style
from benchmark import PlotSpec, families, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Score
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 12  # panels


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of any scenarios; of other families, unfinished runs and runs on validation data are left out.
        request: The width.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    asked = request or PlotRequest()
    shown = [run for run in records if _few(run) and number_of(run) is not None]
    lacking = "there is no completed run of a scenario with a number of shots or labels"
    boards = _style.boards(shown, most=MOST, lacking=lacking)
    panels = [(board.title, [_line(row) for row in board.rows]) for board in boards]
    figure, axes = _curves.draw(panels, asked.width, x="", y="accuracy (%)", low=None)
    for axis, board, (_, lines) in zip(axes, boards, panels, strict=True):
        axis.set_xlabel(f"number of {board.rows[0].runs[0].scenario.variant_option}")
        axis.set_xscale("log", base=2)
        numbers = sorted({place for line in lines for place in line.places})
        axis.set_xticks(numbers, labels=[f"{number:g}" for number in numbers])
        axis.minorticks_off()
    return figure


def _few(run: Record) -> bool:
    return families.of_record(run.scenario.family, run.scenario.family_facts).shots


def number_of(run: Record) -> float | None:
    """The number that the last part of a scenario's name tells; None where that is no number."""
    variant = run.scenario.name.rpartition("/")[2]
    return float(variant) if variant.isdecimal() and int(variant) > 0 else None


def _line(row: Score) -> _curves.Line:
    found: dict[float, list[float | None]] = {}
    for run in row.runs:
        found.setdefault(number_of(run) or 0.0, []).append(run.number("final_acc"))
    places = sorted(found)
    return _curves.Line(
        label=row.label, control=_style.is_control(row), places=places, values=[found[place] for place in places]
    )


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``shots``."""
    return [
        PlotSpec(
            name="shots", draw=draw, summary="accuracy against the number of labelled samples, with bands over seeds"
        )
    ]
