"""The data of old records are known exactly: what the upgrade computes is what a scenario built today has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from benchmark import config as configs
from benchmark import records, registry
from benchmark.records import Record, contents
from benchmark.run.plan import resolve_scenario
from benchmark.run.preparation import make_scenario
from benchmark.scenario import Scenario
from benchmark.specs import ScenarioSpec

ROOT = Path(__file__).parents[2]
NEEDS_DATA = (
    "cifar10-c",
    "corrupted-cifar10",
    "domains:PACS-0e8b1a8e",
    "mnist-glyphs",
    "pacs",
    "pacs-uda",
    "permuted-mnist",
    "rotated-mnist",
    "split-cifar10",
    "split-cifar100",
    "split-mnist",
)
FOLDERS = {"domains:PACS-0e8b1a8e": "PACS"}  # what a record calls a folder of one's own, and where it is


@pytest.fixture(scope="module")
def committed() -> dict[str, list[Record]]:
    """One record of each scenario with each class-order seed, by base name."""
    found: dict[str, dict[str, Record]] = {}
    for run in records.read_all(ROOT / "results" / "records")[0]:
        found.setdefault(run.scenario.name.partition("/")[0], {}).setdefault(run.scenario.fingerprint, run)
    return {name: list(runs.values()) for name, runs in found.items()}


def spec_of(name: str) -> ScenarioSpec:
    return cast("ScenarioSpec", registry.load_scenario(name.partition(":")[0]).spec)


def rebuilt(run: Record, data_root: Path | None) -> Scenario:
    """The scenario of a record as it is built today."""
    name = run.scenario.name.partition("/")[0]
    loaded = registry.load_scenario(name.partition(":")[0])
    options = resolve_scenario(spec_of(name), "", [configs.Layer("record", run.scenario.options)])[0]
    places = {"data_root": data_root, "cache": Path(os.environ["BENCH_CACHE"]), "download": "never"}
    if data_root is not None and name in FOLDERS:
        places["tag"] = str(data_root / FOLDERS[name])
    return make_scenario(loaded, options, places, seed=run.seeds.class_order)


def same(run: Record, scenario: Scenario) -> bool:
    kept = run.scenario
    return (kept.fingerprint, kept.content, kept.partition, kept.notes) == (
        scenario.fingerprint,
        scenario.content,
        scenario.partition,
        dict(scenario.notes),
    )


def test_every_record_in_this_repository_is_of_known_data(committed: dict[str, list[Record]]) -> None:
    assert all(run.scenario.content for runs in committed.values() for run in runs)
    cut = {name for name, runs in committed.items() if any("split" in run.scenario.notes for run in runs)}
    assert cut == {"pacs", *FOLDERS}
    assert all(run.scenario.partition == "80/20 cut" for name in cut for run in committed[name])


def test_glyphs_built_today_have_the_fingerprints_of_their_upgraded_records(committed: dict[str, list[Record]]) -> None:
    reading = {name for name in committed if spec_of(name).data or spec_of(name).tag}
    assert reading == set(NEEDS_DATA)
    for name in sorted(set(committed) - reading):
        # Seeds of one scenario share their images.
        for run in committed[name] if name == "split-glyphs" else committed[name][-1:]:
            assert same(run, rebuilt(run, None)), (name, run.run_id)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*re-encoded:UserWarning")  # copies of data may be lossy, and say so
@pytest.mark.parametrize("name", NEEDS_DATA)
def test_real_data_have_the_fingerprints_of_their_upgraded_records(
    name: str, committed: dict[str, list[Record]], data_root: Path
) -> None:
    for run in committed[name]:
        assert same(run, rebuilt(run, data_root)), run.run_id


@pytest.mark.parametrize(
    ("scenario", "known"),
    [
        ({"name": "split-glyphs/5x20", "version": 1, "notes": {"layout": "rendered"}}, True),
        ({"name": "split-glyphs/5x20", "version": 2, "notes": {"layout": "rendered"}}, False),
        ({"name": "another/5x20", "version": 1, "notes": {"layout": "rendered"}}, False),
        ({"name": "split-cifar100/10x10", "version": 1, "notes": {"layout": "parquet"}}, True),
        ({"name": "split-cifar100/10x10", "version": 1, "notes": {"layout": "parquet", "lossy": "JPEG"}}, False),
        ({"name": "split-cifar100/10x10", "version": 1, "notes": {"layout": "tree"}}, False),
    ],
)
def test_what_is_not_listed_is_not_guessed(scenario: dict[str, object], known: bool) -> None:
    assert bool(contents.look_up(scenario)[0]) == known


def test_the_partition_of_old_records_is_known_whatever_their_content() -> None:
    for split, partition in (
        ("official lists (90/10)", "official lists"),
        ("80/20 per class and domain, seed 0", "80/20 cut"),
    ):
        old = {"name": "pacs", "version": 1, "notes": {"layout": "tree", "pixels": "227x227", "split": split}}
        assert contents.look_up(old) == ("", partition)
