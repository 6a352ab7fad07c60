"""Tables at equal cost: ``--budget`` and ``--pareto`` of ``bench leaderboard``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.leaderboard import Table
    from benchmark.records import Record

COSTS = ("params_trainable", "passes", "training_flops", "storage_bytes", "peak_memory_bytes", "train_seconds")
"""Names of `benchmark.leaderboard.budgets.COSTS`, which takes too long to import for a help text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two options."""
    equal = parser.add_argument_group("at equal cost", "COST is one of " + ", ".join(COSTS))
    equal.add_argument(
        "--budget", action="append", default=[], metavar="COST=MOST", help="only runs that cost no more (repeatable)"
    )
    equal.add_argument(
        "--pareto", choices=COSTS, metavar="COST", help="say which rows no other row beats at a lower cost"
    )


def within(budget: Sequence[str], runs: list[Record]) -> tuple[list[Record], list[str]]:
    """The runs within the budget, and what tables must say of it.

    Raises:
        UsageError: No such cost, no number, or no run costs so little.
    """
    from benchmark.config import parse_assignments
    from benchmark.errors import UsageError, did_you_mean
    from benchmark.leaderboard import budgets

    limits = {}
    for name, text in parse_assignments(budget, option="--budget").items():
        if name not in budgets.COSTS:
            raise did_you_mean("cost", name, budgets.COSTS)
        try:
            limits[name] = float(text)
        except ValueError:
            raise UsageError(f"--budget {name}={text}: not a number", hint=f"for example {name}=1e6") from None
    if not limits:
        return runs, []
    kept = budgets.within(runs, limits)
    if not kept:
        raise UsageError(f"--budget: none of {len(runs)} runs costs so little", hint="the CSV has the costs of each")
    return kept, [budgets.note(limits, len(runs) - len(kept))]


def noted(tables: list[Table], runs: list[Record], notes: Sequence[str], pareto: str | None) -> list[Table]:
    """Tables with footnotes on budget and Pareto front."""
    from benchmark.leaderboard import budgets

    fronts = budgets.fronts(runs, pareto) if pareto else {}
    noted = []
    for table in tables:
        told = [*notes]
        if pareto and (labels := fronts.get(table.title)):
            what = budgets.COSTS[pareto][0]
            told.append(f"Pareto front of score against {what}, the cheapest first: {'; '.join(labels)}.")
        noted.append(replace(table, footnotes=(*table.footnotes, *(("", text) for text in told))))
    return noted
