"""The data of old records are known exactly: what the upgrade computes is what a scenario built today has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmark import config as configs
from benchmark import records, registry
from benchmark.records import Record, contents
from benchmark.scenario import Scenario, ScenarioRequest

ROOT = Path(__file__).parents[2]
NEEDS_DATA = ("mnist-glyphs", "pacs", "pacs-uda", "split-cifar100")


@pytest.fixture(scope="module")
def committed() -> dict[str, list[Record]]:
    """One record of each scenario with each class-order seed, by base name."""
    found: dict[str, dict[str, Record]] = {}
    for run in records.read_all(ROOT / "results" / "records")[0]:
        found.setdefault(run.scenario.name.partition("/")[0], {}).setdefault(run.scenario.fingerprint, run)
    return {name: list(runs.values()) for name, runs in found.items()}


def rebuilt(run: Record, data_root: Path | None) -> Scenario:
    """The scenario of a record as it is built today."""
    name = run.scenario.name.partition("/")[0]
    spec = registry.load_scenario(name).spec
    options = configs.resolve(spec.config, [configs.Layer("record", run.scenario.options)], key=name)[0]  # type: ignore[union-attr]
    request = ScenarioRequest(
        data_root=data_root, cache=Path(os.environ["BENCH_CACHE"]), seed=run.seeds.class_order, download="never"
    )
    scenario: Scenario = spec.build(options, request)  # type: ignore[union-attr, arg-type, assignment]
    return scenario


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
    assert {name for name, runs in committed.items() if any("split" in run.scenario.notes for run in runs)} == {"pacs"}
    assert all(run.scenario.partition == "80/20 cut" for run in committed["pacs"])


def test_glyphs_built_today_have_the_fingerprints_of_their_upgraded_records(committed: dict[str, list[Record]]) -> None:
    for name in sorted(set(committed) - set(NEEDS_DATA)):
        # Seeds of one scenario share their images.
        for run in committed[name] if name == "split-glyphs" else committed[name][-1:]:
            assert same(run, rebuilt(run, None)), (name, run.run_id)


@pytest.mark.slow
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
