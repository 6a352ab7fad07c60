"""Figures of a site: whatever plots can draw of some rows, as SVG files; those that cannot are passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmark import figures, registry
from benchmark.errors import BenchError, UsageError
from benchmark.leaderboard.scores import Board, Score
from benchmark.records.schema import Record
from benchmark.specs import PlotSpec

OF_TABLES = ("accuracy", "shots", "domains", "pareto")
"""Plots that say something of one table and take less than a second; those that are not installed are left out."""
OF_METHODS = ("accuracy",)
OVER_TABLES = ("critical-difference", "performance-profile")
BEST, CONTROLS = 7, 2
WIDTH = 17.4  # cm
INCH = 96  # dots that a page counts as one

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure.

    Attributes:
        path: In the site.
        kind: Name of the plot.
        summary: What it shows.
        width: Dots on a page.
        height: Likewise.
        content: The file.
    """

    path: str
    kind: str
    summary: str
    width: int
    height: int
    content: bytes


def installed(kinds: Sequence[str]) -> list[str]:
    """Those that are there, in the order given."""
    known = registry.names("plots")
    return [kind for kind in kinds if kind in known]


def chosen(board: Board) -> list[Record]:
    """The runs of the rows of a table that a figure has room for: the best methods, and the best controls."""
    rows = sorted(board.rows, key=_mean, reverse=True)
    methods = [row for row in rows if row.group == "method"][:BEST]
    controls = [row for row in rows if row.group == "control"][:CONTROLS]
    return [run for row in (*methods, *controls) for run in row.runs]


def _mean(row: Score) -> float:
    return sum(row.values.values()) / len(row.values)


def draw(kinds: Iterable[str], records: Sequence[Record], path: str, report: Report) -> Iterator[Drawn]:
    """Draws what can be drawn.

    Args:
        kinds: Installed plots.
        records: Of the rows that are shown.
        path: Beginning of the paths in the site.
        report: Told of plots that fail.
    """
    for kind in kinds if records else ():
        try:
            figure = figures.draw(kind, records, width=WIDTH)
            content = figures.encode(figure, ".svg")
        except UsageError:
            continue  # it is of other records: a curve has no use for a single experience
        except BenchError as error:
            report(error.message)
            continue
        wide, high = (round(INCH * side) for side in figure.get_size_inches())
        spec: PlotSpec = registry.load_plot(kind)
        yield Drawn(
            path=f"{path}-{kind}.svg", kind=kind, summary=spec.summary, width=wide, height=high, content=content
        )
