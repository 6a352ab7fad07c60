"""Figures from papers and repositories, to read beside one's own results.

The data are in ``published/figures.csv``: one figure a row, as printed in its source (accuracies and
forgetting in percent), with the backbone it was measured with. A figure is only comparable on the
same checkpoint. The keys are those that specs name (`benchmark.specs.MethodSpec.published`).
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

FIGURES = Path(__file__).parent / "published" / "figures.csv"


def rows(key: str) -> list[dict[str, str]]:
    """Published figures of one method, in the order of the file.

    Args:
        key: ``published`` of the method's spec.

    Returns:
        Rows with ``row`` (name in the source), ``scenario``, ``backbone``, ``metric``, ``value`` and
        ``std`` (percent; ``std`` may be empty), ``source`` and ``note``; none for an unknown key.
    """
    return [{name: value for name, value in row.items() if name != "key"} for row in _figures() if row["key"] == key]


@cache
def _figures() -> list[dict[str, str]]:
    with FIGURES.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
