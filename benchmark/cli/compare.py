"""``bench compare A B [C ...]``: rows of tables held against each other, with what the data cannot decide."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli import leaderboard, terminal

if TYPE_CHECKING:
    from benchmark.records import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "rows", nargs="+", metavar="ROW", help="method, method@recipe, or the whole label of a row of a table"
    )
    leaderboard.add_filters(parser, methods=False)
    parser.add_argument("--by", choices=("experience", "class"), help="also the difference on each of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the comparisons.

    Raises:
        UsageError: Unknown folder, filter or row; fewer than two rows; or no table has two of them.
    """
    from benchmark.errors import EXIT_OK, UsageError
    from benchmark.leaderboard.compared import compared
    from benchmark.records import predictions

    asked = list(dict.fromkeys(leaderboard.split(args.rows)))
    if len(asked) < 2:
        raise UsageError(f"bench compare: `{asked[0]}` alone cannot be compared", hint="name two rows or more")
    located, _ = leaderboard.locate(args)
    places = {id(record): Path(path) for path, record in located.items()}

    def predictions_of(record: Record) -> Path | None:
        return predictions.beside(places[id(record)], record)

    found = compared(located.values(), asked, predictions_of, by=args.by)
    terminal.show(json.dumps(found.as_dict(), indent=1) if args.json else str(found))
    return EXIT_OK
