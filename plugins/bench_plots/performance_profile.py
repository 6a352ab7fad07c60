"""Performance profile: the share of runs over several scenarios whose score lies above each threshold.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice". A line that lies above
another everywhere is that of a better method, whatever threshold counts; lines that cross say that it depends. Every
scenario weighs the same: tables that share one (other variants, splits, options) are averaged first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench_plots import _style
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard import comparison
from benchmark.metrics import ranking
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FEWEST = 2  # scenarios
MOST = 12  # methods
STEPS = 401
HEIGHT = 2.4  # inches, without title and legend


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the profiles.

    Args:
        records: Of two scenarios or more; unfinished runs and runs on validation data are left out.
        request: The width.

    Raises:
        ValueError: Fewer than two scenarios have two or more methods in common, or there are too many of these.
    """
    ranks = comparison.rank_all(records, fewest=FEWEST, most=MOST)
    width = (request or PlotRequest()).width
    controls = {run.method.name for run in records if run.method.control}
    looks = _style.looks((label, label.split(" ")[0].split("@")[0] in controls) for label in ranks.labels)
    most = max(len(values) for row in ranks.runs for values in row)
    told = f"{len(ranks.scenarios)} scenarios, up to {most} runs of each method on each"
    below = _style.legend_of(ranks.labels, width)[2]
    figure, (axis,) = _style.grid(width, [told], HEIGHT, below)
    thresholds = np.linspace(0.0, 1.0, STEPS)
    signs: list[Artist] = []
    for label, row in zip(ranks.labels, ranks.runs, strict=True):
        # The mean of the profiles of scenarios, so that one with more runs does not weigh more.
        profile = np.mean([ranking.performance_profile(values, thresholds) for values in row], axis=0)
        look = {**looks[label], "marker": ""}
        signs += axis.plot(100 * thresholds, 100 * profile, linewidth=1.3, drawstyle="steps-post", **look)
    axis.set_xlabel("threshold (%)")
    axis.set_ylabel("runs above it (%)")
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 102)
    _style.legend(figure, width, signs, ranks.labels)
    return figure


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``performance-profile``."""
    return [
        PlotSpec(
            name="performance-profile", draw=draw, summary="share of runs above each score, over several scenarios"
        )
    ]
