"""Forgetting: after each experience the mean over those before it (Chaudhry et al., 2018), or in the end for each one.

The forgetting of an experience is the best accuracy on its test set before now minus the one now; below zero, training
on later experiences has helped. Bands are one sample standard deviation over seeds to either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench_plots import _curves
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.metrics import continual
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 12  # panels


@dataclass(frozen=True)
class ForgettingOptions:
    """Options.

    Attributes:
        by: ``time``: the mean over the experiences so far, after each; ``experience``: of each, after the last.
    """

    by: Literal["time", "experience"] = "time"


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the figure.

    Args:
        records: Of any scenarios; those without forgetting, unfinished runs and runs on validation data are left out.
        request: Options and width.

    Raises:
        ValueError: Nothing is left, or too much for one figure.
    """
    asked = request or PlotRequest()
    by = (asked.options or ForgettingOptions()).by
    shown = [run for run in records if run.status == "completed" and run.number("forgetting") is not None]
    if by == "time":
        panels = _curves.along(shown, lambda run: run.numbers("forgetting_curve"), most=MOST)
        labels = ("experience", "forgetting (points)")
    else:
        panels = _curves.along(shown, of_each, most=MOST)
        labels = ("experience", "forgetting in the end (points)")
    figure, axes = _curves.draw(panels, asked.width, x=labels[0], y=labels[1], low=None)
    _curves.whole_numbers(axes)
    for axis in axes:
        axis.axhline(0, color="black", linewidth=0.6)
    return figure


def of_each(run: Record) -> list[float | None]:
    """The forgetting of each experience after the last one; the last has nothing to forget."""
    last = continual.forgetting_matrix(continual.as_matrix(run.accuracy))[-1, :-1]
    return [None if np.isnan(value) else float(value) for value in last]


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``forgetting``."""
    return [
        PlotSpec(
            name="forgetting",
            draw=draw,
            config=ForgettingOptions,
            summary="forgetting after each experience, or of each in the end, with bands over seeds",
        )
    ]
