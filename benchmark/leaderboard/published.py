"""Figures from papers and repositories, to read beside one's own results.

``published/figures.csv`` holds one figure a row, as printed in its source (accuracies and forgetting in
percent), with the backbone it was measured with. A figure is only comparable on the same
checkpoint. The keys are those that specs name (`benchmark.specs.MethodSpec.published`).
``published/measured.csv`` holds what our own runs gave, rendered from their records by
``results/publish.py``; its keys are the names of methods.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

FIGURES = Path(__file__).parents[1] / "published" / "figures.csv"
MEASURED = FIGURES.with_name("measured.csv")


def rows(key: str) -> list[dict[str, str]]:
    """Published figures of one method, in the order of the file.

    Args:
        key: ``published`` of the method's spec.

    Returns:
        Rows with ``row`` (name in the source), ``scenario``, ``backbone``, ``metric``, ``value`` and
        ``std`` (percent; ``std`` may be empty), ``source`` and ``note``; none for an unknown key.
    """
    return _of(FIGURES, key)


def measured(method: str) -> list[dict[str, str]]:
    """What adaptbench's own runs of one method gave.

    Returns:
        Rows with ``row`` (name in the leaderboard), ``table`` (its title there), ``metric``, ``value`` and ``std``
        (percent, mean and sample standard deviation over seeds) and ``seeds``.
    """
    return _of(MEASURED, method)


def _of(file: Path, key: str) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "key"} for row in _read(file) if row["key"] == key]


@cache
def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
