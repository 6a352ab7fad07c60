"""Critical difference diagram: average ranks of methods over scenarios, and which cannot be told apart (Demšar, 2006).

Every scenario counts once: tables that share a scenario (other variants, splits, options) are averaged first. Methods
that every scenario has are ranked, 1 is best; a bar joins those whose average ranks differ by less than Nemenyi's
critical difference at 5 %, which depends on the pool that is compared, so the figure names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench_plots import _style
from benchmark import PlotSpec, hookimpl
from benchmark.figures import PlotRequest
from benchmark.leaderboard import comparison
from benchmark.metrics import ranking
from benchmark.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 5  # scenarios
MOST = 20  # methods


def draw(records: Sequence[Record], request: PlotRequest | None = None) -> Figure:
    """Draws the diagram.

    Args:
        records: Of five scenarios or more; unfinished runs and runs on validation data are left out.
        request: The width.

    Raises:
        ValueError: Fewer than five scenarios have two or more methods in common, or there are too many of these.
    """
    from matplotlib.figure import Figure

    ranks = comparison.rank_all(records, fewest=FEWEST, most=MOST)
    width = (request or PlotRequest()).width
    figure = Figure(figsize=(width, 1.5 + 0.24 * ((len(ranks.labels) + 1) // 2)), layout="constrained")
    _diagram(figure.subplots(), ranks, width)
    return figure


def _diagram(axis: Axes, ranks: comparison.Ranks, width: float) -> None:
    k, n = len(ranks.labels), len(ranks.scenarios)
    order = sorted(range(k), key=lambda place: (ranks.ranks[place], ranks.labels[place]))
    left = order[: (k + 1) // 2]  # the best ones, from the top
    groups = ranking.cliques(ranks.ranks.tolist(), ranks.difference)
    first = -0.5 - 0.35 * len(groups)
    axis.plot([1, k], [0, 0], color="black", linewidth=1)
    for tick in range(1, k + 1):
        axis.plot([tick, tick], [0, 0.15], color="black", linewidth=1)
        axis.text(tick, 0.25, str(tick), ha="center", va="bottom", fontsize=8)
    reach = 0.06 * max(1, k - 1)
    for place in order:
        better = place in left
        row = left.index(place) if better else order[::-1].index(place)
        rank, height = float(ranks.ranks[place]), first - 0.6 * row
        end = 1 - reach if better else k + reach
        axis.plot([rank, rank, end], [0, height, height], color="black", linewidth=0.8)
        text = axis.text(
            end,
            height,
            f" {ranks.labels[place]} ({rank:.2f}) ",
            ha="right" if better else "left",
            va="center",
            fontsize=8,
        )
        text.set_parse_math(False)
    for row, group in enumerate(groups):
        ends = [float(ranks.ranks[group[0]]) - 0.03, float(ranks.ranks[group[-1]]) + 0.03]
        axis.plot(ends, [-0.3 - 0.35 * row] * 2, color="#0072B2", linewidth=3, solid_capstyle="round")
    axis.plot([1, 1 + ranks.difference], [1.3, 1.3], color="#D55E00", linewidth=1.5)
    axis.text(1, 1.45, f"critical difference {ranks.difference:.2f}", fontsize=8, va="bottom")
    told = f"average rank of {k} methods over {n} scenarios (1 is best); joined: not told apart (Nemenyi, 5 %)"
    axis.figure.suptitle(_style.wrapped(told, width), fontsize=8, x=0.01, ha="left")
    axis.set_ylim(top=2.4)
    axis.set_axis_off()


@hookimpl
def bench_register_plots() -> list[PlotSpec]:
    """Registers ``critical-difference``."""
    return [
        PlotSpec(
            name="critical-difference",
            draw=draw,
            summary="average ranks over five or more scenarios, and what cannot be told apart",
        )
    ]
