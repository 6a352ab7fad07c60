"""A stranger's parts of every kind, installed by pip, on the road of the built-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.leaderboard import leaderboard
from benchmark.records import read_all

DOORS = Path(__file__).parent / "bench-doors"
NAMES = {
    "backbones": "doors-vit",
    "tracks": "doors",
    "presets": "doors-mirror",
    "families": "noise-il",
    "scenarios": "doors-noise",
    "plots": "doors-bars",
    "metrics": "doors-worst",
    "executors": "doors-backwards",
    "importers": "doors-lines",
    "protocols": "doors-ours",
}


@pytest.fixture(scope="module")
def doors(stranger: Callable[..., Any], install: Callable[[Path], None]) -> Callable[..., Any]:
    install(DOORS)
    return stranger


def test_list_and_info_name_the_distribution(doors: Callable[..., Any]) -> None:
    listing = json.loads(doors("bench", "list", "--json").stdout)
    for kind, name in NAMES.items():
        found = {row["name"]: row["distribution"] for row in listing[kind]}
        assert found[name] == "bench-doors 0.4.2"
        assert len(found) > 1 or kind == "metrics", "the built-ins are gone"
    assert "Nobody trained it." in doors("bench", "info", "doors-vit").stdout


def test_run_leaderboard_and_plot(doors: Callable[..., Any], tmp_path: Path) -> None:
    run = ("bench", "run", "--scenario", "doors-noise", "--method", "nearest-mean,linear-probe", "--out", "runs")
    done = doors(*run, "--set", "linear-probe.epochs=1", "--executor", "doors-backwards", cwd=tmp_path)
    assert done.stdout.index("linear-probe@default on") < done.stdout.index("nearest-mean@merge on")
    records, problems = read_all(tmp_path / "runs")
    assert not problems
    assert len(records) == 2
    for record in records:
        assert (record.track, record.backbone.name) == ("doors", "doors-vit")
        assert (record.scenario.family, record.inputs.facts["preset"]) == ("noise-il", "doors-mirror")
        assert record.scenario.distribution == "bench-doors 0.4.2"
    for record in records:
        assert record.metrics["doors-worst"] == min(a for i, row in enumerate(record.accuracy) for a in row[: i + 1])
    (table,) = leaderboard(records)  # here, where its plugins are not installed
    assert table.title.startswith("doors-noise (version 1), track doors")
    assert {"Loudest (%)", "Worst ever (%)"} <= {column.title for column in table.columns}
    (tmp_path / "theirs.txt").write_text("naive 0.5\n", encoding="utf-8")
    doors("bench", "import", "doors-lines", "theirs.txt", "--out", "runs", "--beside", "doors-noise", cwd=tmp_path)
    shown = doors("bench", "leaderboard", cwd=tmp_path).stdout
    assert "naive (Doors)" in shown
    doors("bench", "plot", "doors-bars", "--results", "runs", "-o", "bars.svg", cwd=tmp_path)
    assert b"nearest-mean" in (tmp_path / "bars.svg").read_bytes()


def test_contract(doors: Callable[..., Any]) -> None:
    done = doors("bench", "check", "doors-vit", "--json")
    results = {row["check"]: row["result"] for part in json.loads(done.stdout) for row in part["checks"]}
    assert "fail" not in results.values()
    assert results["repeat"] == results["batch"] == results["size"] == "pass"
