"""Records as pandas data frames, for notebooks and for figures of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from benchmark.leaderboard.tabulate import leaderboard
from benchmark.records.schema import Record

if TYPE_CHECKING:
    import pandas as pd


def frame(records: Iterable[Record], *, long: bool = False) -> pd.DataFrame:
    """Tabulates single runs, nothing averaged.

    Args:
        records: Records of any scenarios, e.g. of `benchmark.records.read_all`.
        long: One row per accuracy instead of one per run.

    Returns:
        One row a run with all that CSV tables hold: the ``row`` of the table it belongs to, names, seeds, every option,
        metrics and costs; accuracies are fractions in [0, 1], times in seconds; as in tables, runs on validation data
        are left out. Or, ``long``, one row per accuracy that was measured: ``run_id``,
        ``scenario``, ``method``, ``recipe``, ``seed``, ``experience`` (after which it was measured, from 0), ``test``
        (name of the test set) and ``accuracy``.

    Example::

        found, problems = benchmark.records.read_all(Path("runs"))
        frame(found).groupby("row")["final_avg_acc"].mean()
    """
    import pandas as pd  # takes half a second

    if not long:
        return pd.DataFrame([row for table in leaderboard(records) for row in table.runs])
    cells = [
        {
            "run_id": run.run_id,
            "scenario": run.scenario.name,
            "method": run.method.name,
            "recipe": run.method.recipe,
            "seed": run.seeds.seed,
            "experience": time,
            "test": test.name,
            "accuracy": accuracy,
        }
        for run in records
        for time, row in enumerate(run.accuracy)
        for test, accuracy in zip(run.scenario.tests, row, strict=True)
        if accuracy is not None
    ]
    return pd.DataFrame(cells)
