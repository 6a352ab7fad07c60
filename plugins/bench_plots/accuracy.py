"""Accuracy along the stream: after each experience the mean over the test sets so far, one line a row of the table.

A panel is a table of `bench leaderboard` and has its title; a line is a row and has its label. The line is the mean
over seeds, the band one sample standard deviation (ddof = 1) to either side; with one seed there is no band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench_plots import _curves
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 12  # panels
LABELS = {"avg_acc": "accuracy on test sets so far (%)", "seen_acc": "accuracy on images so far (%)"}


@dataclass(frozen=True)
class AccuracyOptions:
    """Options.

    Attributes:
        of: ``avg_acc``: every test set counts the same; ``seen_acc``: every test image does.
    """

    of: Literal["avg_acc", "seen_acc"] = "avg_acc"


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of any scenarios; streams of one experience, unfinished runs and runs on validation data are left out.
        request: Options and width.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    asked = request or PlotRequest()
    of = (asked.options or AccuracyOptions()).of
    shown = [run for run in records if run.status == "completed" and len(run.numbers(of)) > 1]
    panels = _curves.along(shown, lambda run: run.numbers(of), most=MOST)
    figure, axes = _curves.draw(panels, asked.width, x="experience", y=LABELS[of])
    _curves.whole_numbers(axes)
    return figure


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``accuracy``."""
    return [
        PlotSpec(
            name="accuracy",
            draw=draw,
            config=AccuracyOptions,
            summary="accuracy after each experience, with bands over seeds",
        )
    ]
