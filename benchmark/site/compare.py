"""Every two rows of a table held against each other, as `bench compare` does it, for the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from benchmark.leaderboard import comparison
from benchmark.leaderboard.compared import points, told
from benchmark.leaderboard.comparison import PathOf
from benchmark.leaderboard.rows import fixed, percent
from benchmark.leaderboard.scores import Board
from benchmark.metrics.statistics import summarize
from benchmark.site import pages
from benchmark.site.names import slug

MOST = 60  # rows of a table: 1,770 pairs


def path(board: Board) -> str:
    """Of the data of a table."""
    return f"data/{slug(board.title)}.js"


def comparable(board: Board) -> bool:
    """Whether there is something to compare, and not too much for one file."""
    return 1 < len(board.rows) <= MOST


def data(board: Board, path_of: PathOf) -> bytes:
    """What `compare.js` asks for: rows, and for every two of them what can be said and what cannot.

    Args:
        board: A table.
        path_of: Where the predictions of a run lie, or None.
    """
    value: dict[str, Any] = {
        "key": slug(board.title),
        "of": board.of,
        "rows": [
            {
                "label": row.label,
                "anchor": f"row-{slug(row.label)}",
                "value": percent(summarize(list(row.values.values()))).text,
                "seeds": len(row.values),
            }
            for row in board.rows
        ],
        "pairs": dict(_pairs(board, path_of)),
    }
    return pages.data(value)


def _pairs(board: Board, path_of: PathOf) -> Iterator[tuple[str, dict[str, Any]]]:
    for (i, one), (j, other) in combinations(enumerate(board.rows), 2):
        # Each pair by itself: no correction for the others, as when `bench compare` is asked for two.
        (pair,) = comparison.compare([one, other], path_of)
        head, *lines = told(pair)
        sets = [[name, points(gap), round(gap, 6)] for name, gap in pair.experiences.items()]
        found: dict[str, Any] = {"head": head, "lines": lines, "sets": sets}
        if pair.difference is not None:
            found["points"] = fixed(100 * pair.difference)
        yield f"{i},{j}", found
