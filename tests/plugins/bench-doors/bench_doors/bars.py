"""doors-bars: the final accuracy of every run as a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark import PlotSpec, hookimpl

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(records: Sequence[Mapping[str, Any]]) -> Figure:
    from matplotlib.figure import Figure

    done = [run for run in records if run["status"] == "completed"]
    if not done:
        raise ValueError("no run is completed")
    figure = Figure()
    figure.subplots().barh([run["method"]["name"] for run in done], [run["metrics"]["final_acc"] for run in done])
    return figure


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    return [PlotSpec(name="doors-bars", draw=draw, summary="the final accuracy of every run")]
