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


SKELETONS = {
    "method": (None, "same-seed,undeclared"),
    "method uda": ("uda", "same-seed,undeclared"),
    "scenario": (None, "record,repeat,content,classes,names,ids,images,surroundings"),
    "scenario domain-il": ("domain-il", "record,repeat,content,classes,names,ids,images,surroundings"),
    "scenario uda": ("uda", "record,repeat,content,classes,names,ids,images,target,surroundings"),
    "exporter": (None, ""),
    "tracker": (None, ""),
    "backbone": (None, ""),
    "metric": (None, ""),
    "plot": (None, ""),
}


@pytest.fixture(scope="module")
def skeletons(
    stranger: Callable[..., Any], install: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """One of every kind, written and installed by one call of pip."""
    folder = tmp_path_factory.mktemp("skeletons")
    packages = []
    for what, (family, _) in SKELETONS.items():
        kind, name = what.split()[0], f"my-{what.replace(' ', '-')}"
        more = ["--family", family] if family else []
        written = stranger("bench", "new-plugin", name, "--kind", kind, "--dir", folder, *more)
        packages.append(folder / f"bench-{name}")
        files = sorted(path for path in packages[-1].rglob("*") if path.is_file())
        assert sorted(map(Path, written.stdout.split())) == files
    install(*packages)
    return stranger


@pytest.mark.parametrize("what", SKELETONS)
def test_new_plugin_is_a_working_package(what: str, skeletons: Callable[..., Any]) -> None:
    _, only = SKELETONS[what]
    done = skeletons("bench", "check", f"my-{what.replace(' ', '-')}", *(["--only", only] if only else []))
    assert "0 failed, 0 skipped" in done.stdout
    assert done.stdout.startswith(f"{what.split()[0]} my-")


def test_skeletons_do_what_they_say(skeletons: Callable[..., Any], tmp_path: Path) -> None:
    """One run is followed, measured, drawn and written by all of them."""
    scenario = ("--scenario", "my-scenario", "--set", "scenario.train=2", "--set", "scenario.test=1")
    run = ("bench", "run", *scenario, "--method", "nearest-mean", "--backbone", "my-backbone")
    skeletons(*run, "--tracker", "my-tracker", cwd=tmp_path)
    ((record,), problems) = read_all(tmp_path / "runs")
    assert not problems
    assert record.backbone.name == "my-backbone"
    assert 0 <= record.metrics["my-metric"] <= 1
    diary = tmp_path / "tracking" / "my-tracker" / f"{record.run_id}.jsonl"
    told = [json.loads(line)["what"] for line in diary.read_text(encoding="utf-8").splitlines()]
    assert (told[0], told[-1], told.count("experience")) == ("run", "finished", 4)
    table = skeletons("bench", "leaderboard", "--format", "my-exporter", cwd=tmp_path).stdout
    assert "Lowest acc. (%)" in table
    skeletons("bench", "plot", "my-plot", "-o", "bars.svg", cwd=tmp_path)
    assert b"nearest-mean" in (tmp_path / "bars.svg").read_bytes()
