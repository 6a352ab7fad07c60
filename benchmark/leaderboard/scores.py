"""The values behind the rows of tables, for comparisons: one per seed, with the runs that gave them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.leaderboard import boards, rows, tabulate
from benchmark.leaderboard.rows import Seeds
from benchmark.records.schema import Record
from benchmark.scenario_names import base_of

__all__ = ["Board", "Score", "boards_of"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of a table.

    Attributes:
        label: What the table calls it.
        method: Name of the method.
        recipe: Its recipe.
        group: ``upper bound``, ``method`` or ``control``.
        values: What the table ranks by, for each combination of seeds, fractions.
        runs: The finished runs behind it.
    """

    label: str
    method: str
    recipe: str
    group: str
    values: Mapping[Seeds, float]
    runs: Sequence[Record]

    @property
    def names(self) -> set[str]:
        """What users may call it: its label; the method, with and without its recipe."""
        return {self.label, self.method, f"{self.method}@{self.recipe}"}


@dataclass(frozen=True, kw_only=True)
class Board:
    """One table.

    Attributes:
        title: Of the table.
        scenario: Name of the scenario without variant, which variants of one data set share.
        track: Of the runs.
        of: What the rows are ranked by, in words.
        headline: Key of the column that it is.
        rows: Its rows with at least one value, as the table orders them.
    """

    title: str
    scenario: str
    track: str
    of: str
    headline: str
    rows: Sequence[Score]


def boards_of(records: Iterable[Record]) -> list[Board]:
    """The values behind every table of `benchmark.leaderboard.leaderboard`, in its order."""
    found = []
    tables = tabulate.grouped(records)
    differing = rows.unsettled([run for _, runs in tables for run in runs])
    for title, runs in tables:
        entries = rows.entries_of(runs, differing)
        board = boards.BOARDS[boards.family_of(runs[0]).board](runs, entries)
        scores = [
            Score(
                label=entry.label,
                method=entry.method,
                recipe=entry.recipe,
                group=entry.group,
                values=values,
                runs=tuple(entry.completed),
            )
            for entry in rows.ordered(entries, board.mean)
            if (values := board.by_seed(entry))
        ]
        run = runs[0]
        found.append(
            Board(
                title=title,
                scenario=base_of(run.scenario.name),
                track=run.track,
                of=board.of,
                headline=board.headline,
                rows=scores,
            )
        )
    return found
