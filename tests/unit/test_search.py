"""The values of the tracks are those that the search found."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import registry

SEARCH = Path(__file__).resolve().parents[2] / "results" / "search"


def winners() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Track, method and best point; the first of equals, as in ``results/search.py``."""
    for file in sorted(SEARCH.glob("*.csv")):
        best: dict[str, tuple[float, dict[str, Any]]] = {}
        with file.open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                accuracy, known = float(row["final_avg_acc"]), best.get(row["method"])
                if known is None or accuracy > known[0]:
                    best[row["method"]] = (accuracy, json.loads(row["point"]))
        for method, (_, point) in best.items():
            yield file.stem, method, point


@pytest.mark.parametrize(("track", "method", "point"), list(winners()), ids=lambda value: str(value)[:20])
def test_tracks_have_the_values_that_the_search_found(track: str, method: str, point: dict[str, Any]) -> None:
    spec = registry.load_method(method).spec
    defaults = spec.config()
    values = {name: spec.tracks[track].get(name, getattr(defaults, name)) for name in point}
    assert values == point
    assert "search" in spec.rule


def test_every_point_of_the_table_is_on_the_grid() -> None:
    grids = json.loads((SEARCH / "grids.json").read_text(encoding="utf-8"))
    for track, parts in grids.items():
        methods = {method: grid for part in parts for method, grid in part["grids"].items()}
        with (SEARCH / f"{track}.csv").open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                point, grid = json.loads(row["point"]), methods[row["method"]]
                assert set(point) == set(grid), row["method"]
                assert all(value in grid[name] for name, value in point.items()), row
