"""``bench variance METHOD``: how much of the spread comes from class order, initialisation and data order."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from benchmark.cli import leaderboard, terminal

if TYPE_CHECKING:
    from benchmark.leaderboard.scores import Board, Score
    from benchmark.metrics.variance import Component

FACTORS = {
    "class-order-seed": "class order",
    "init-seed": "initialisation",
    "data-seed": "data order and augmentation",
}
MORE = "0-4"  # seeds that are proposed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "rows", nargs="+", metavar="ROW", help="method, method@recipe, or the whole label of a row of a table"
    )
    leaderboard.add_filters(parser, methods=False)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the standard deviations, and the commands of the runs that are lacking.

    Raises:
        UsageError: Unknown folder, filter or row.
    """
    from benchmark.errors import EXIT_OK, did_you_mean
    from benchmark.leaderboard import scores

    asked = list(dict.fromkeys(leaderboard.split(args.rows)))
    located, _ = leaderboard.locate(args)
    boards = scores.boards_of(located.values())
    known = {name for board in boards for row in board.rows for name in row.names}
    for name in asked:
        if name not in known:
            raise did_you_mean("row in these tables", name, known)
    found = [(board, row, spread(row)) for board in boards for row in board.rows if row.names & set(asked)]
    if args.json:
        terminal.show(json.dumps([_as_data(*one) for one in found], indent=1))
    else:
        for one in found:
            _print(*one)
    return EXIT_OK


def spread(row: Score) -> dict[str, Component | None]:
    """The spread from each seed alone, and from all ``together``."""
    from benchmark.metrics import variance

    # The first of the seeds is the one that stands for those that are not given.
    values: dict[tuple[int, ...], float] = {seeds[1:]: value for seeds, value in row.values.items()}
    parts = {name: variance.alone(values, place) for place, name in enumerate(FACTORS)}
    return {**parts, "together": variance.together(values)}


def _print(board: Board, row: Score, found: dict[str, Component | None]) -> None:
    width = max(map(len, FACTORS.values()))
    terminal.show(f"{row.label} on {board.title}: standard deviation of {board.of}, in points")
    for name, part in found.items():
        what = FACTORS.get(name, "all together")
        if name == "class-order-seed" and _one_order(row):
            terminal.show(f"  {what:<{width}}  the same in all runs: it does not follow the seed here")
            continue
        if part is None:
            terminal.show(f"  {what:<{width}}  not known: {_lacking(row, name)}")
            continue
        groups = f" in {part.groups} groups" if part.groups > 1 else ""
        sure = f"[{100 * part.low:.2f}, {100 * part.high:.2f}]"
        terminal.show(f"  {what:<{width}}  {100 * part.std:6.2f}  95 % {sure}, {part.runs} runs{groups}")
    terminal.show("")


def _one_order(row: Score) -> bool:
    """Whether runs with other seeds of the class order have the same one."""
    orders = {(run.scenario.name, tuple(run.scenario.class_order)) for run in row.runs}
    seeds = {run.seeds.class_order for run in row.runs}
    return len(seeds) > 1 and len(orders) == len({name for name, _ in orders})


def _lacking(row: Score, name: str) -> str:
    """The command of runs that would tell."""
    from benchmark.leaderboard.commands import command_of
    from benchmark.leaderboard.machine import raw

    first = row.runs[0]
    command = command_of(raw(first, row.label))
    return f"{command} --{name} {MORE}" if name in FACTORS else f"{command} --seed {MORE}"


def _as_data(board: Board, row: Score, found: dict[str, Component | None]) -> dict[str, Any]:
    from dataclasses import asdict

    parts = {name: None if part is None else asdict(part) for name, part in found.items()}
    return {"table": board.title, "row": row.label, "of": board.of, "std": parts}
