"""Published figures: complete rows, and every key that a method names has some."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.leaderboard import published

RESULTS = Path(__file__).parents[2] / "results"


def keys() -> list[str]:
    return [key for name in registry.names("methods") if (key := registry.load_method(name).spec.published)]


@pytest.mark.parametrize("key", keys())
def test_every_figure_has_a_source_and_a_backbone(key: str) -> None:
    rows = published.rows(key)
    assert rows
    for row in rows:
        float(row["value"])
        assert row["std"] == "" or 0 <= float(row["std"]) < 20
        assert all(row[name] for name in ("row", "scenario", "backbone", "metric", "source"))
        assert "key" not in row


def test_derived_files_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("publish", RESULTS / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    for path, content in publish.files():
        assert path.read_bytes() == content.encode(), f"{path}: run `python results/publish.py`"
    assert published.measured("nearest-mean")[0].keys() == set(publish.COLUMNS) - {"key"}


def test_the_papers_headline_is_there() -> None:
    first = published.rows("l2p")[0]
    assert (first["scenario"], first["value"], first["std"]) == ("split-cifar100/10x10", "83.83", "0.04")


def test_an_unknown_key_has_no_figures() -> None:
    assert published.rows("nothing") == []
