"""A complete third-party package, installed by pip into a fresh venv, on the same road as the built-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.leaderboard import leaderboard
from benchmark.records import read_all

TOY = Path(__file__).parent / "bench-toy"
RUN = ("bench", "run", "--scenario", "toy-squares", "--method", "toy-prototypes,nearest-mean", "--out", "runs")


@pytest.fixture(scope="module")
def toy(stranger: Callable[..., Any], install: Callable[[Path], None]) -> Callable[..., Any]:
    install(TOY)
    return stranger


def test_list_and_info_name_the_distribution(toy: Callable[..., Any]) -> None:
    listing = json.loads(toy("bench", "list", "--json").stdout)
    for kind, name in (
        ("methods", "toy-prototypes"),
        ("scenarios", "toy-squares"),
        ("exporters", "toy-rst"),
        ("executors", "toy-backwards"),
    ):
        found = {row["name"]: row["distribution"] for row in listing[kind]}
        assert found[name] == "bench-toy 1.2.3"
        assert len(found) > 1, "the built-ins are gone"
    facts = json.loads(toy("bench", "info", "toy-prototypes", "--json").stdout)
    assert facts["distribution"] == "bench-toy 1.2.3"
    assert facts["recipes"] == ["default", "slow"]


def test_run_leaderboard_export_and_life_cycle(toy: Callable[..., Any], tmp_path: Path) -> None:
    done = toy(*RUN, cwd=tmp_path)
    assert "diary: 0 ends with" in done.stderr
    again = toy(*RUN, "--executor", "toy-backwards", cwd=tmp_path).stderr
    assert "already done" in again
    first, second = (line for line in again.splitlines() if line.startswith("backwards: "))
    assert "nearest-mean on toy-squares/2x2, seed 0 is known" in first
    assert "toy-prototypes on toy-squares/2x2, seed 0 is known" in second
    records, problems = read_all(tmp_path / "runs")
    assert not problems
    assert {record["method"]["distribution"].split()[0] for record in records} == {"bench-toy", "adaptbench"}
    assert all(record["scenario"]["distribution"] == "bench-toy 1.2.3" for record in records)
    assert len(list((tmp_path / "runs").rglob("*.diary"))) == 2
    assert len(leaderboard(records)) == 1
    table = toy("bench", "leaderboard", "--results", "runs", cwd=tmp_path).stdout
    assert "toy-prototypes" in table
    assert "nearest-mean" in table
    rst = toy("bench", "leaderboard", "--results", "runs", "--format", "toy-rst", cwd=tmp_path).stdout
    assert ".. list-table::" in rst
    assert "toy-prototypes" in rst


def test_contract(toy: Callable[..., Any]) -> None:
    done = toy("bench", "check", "toy-prototypes", "toy-rst", "--json")
    results = {row["check"]: row["result"] for part in json.loads(done.stdout) for row in part["checks"]}
    assert "fail" not in results.values()
    assert results["resume"] == results["batch"] == results["strange"] == "pass"


def test_contract_classes(toy: Callable[..., Any]) -> None:
    chosen = "surroundings or repeat or nothing"
    done = toy("pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, TOY / "tests", cwd=TOY)
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("kind", ["method", "scenario"])
def test_new_plugin_is_a_working_package(
    kind: str, stranger: Callable[..., Any], install: Callable[[Path], None], tmp_path: Path
) -> None:
    written = stranger("bench", "new-plugin", f"my-{kind}", "--kind", kind, "--dir", tmp_path)
    folder = tmp_path / f"bench-my-{kind}"
    assert sorted(map(Path, written.stdout.split())) == sorted(path for path in folder.rglob("*") if path.is_file())
    install(folder)
    only = "same-seed,undeclared" if kind == "method" else "record,repeat,classes,names,ids,images,surroundings"
    done = stranger("bench", "check", f"my-{kind}", "--only", only)
    assert "0 failed, 0 skipped" in done.stdout
