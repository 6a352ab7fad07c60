"""`bench variance`, and seeds that are given apart."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmark import records
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE
from benchmark.metrics import variance

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))


def test_a_component_is_pooled_over_groups() -> None:
    groups = [[0.5, 0.6, 0.7], [0.1, 0.3], [0.9]]
    found = variance.component(groups)
    assert found is not None
    pooled = (2 * np.var(groups[0], ddof=1) + np.var(groups[1], ddof=1)) / 3
    assert (found.runs, found.groups, found.degrees) == (5, 2, 3)
    assert found.std == pytest.approx(np.sqrt(pooled))
    assert [found.low, found.high] == pytest.approx(np.sqrt(3 * pooled / stats.chi2.ppf([0.975, 0.025], 3)))
    assert variance.component([[0.5], []]) is None


def test_known_components_are_found() -> None:
    generator = np.random.default_rng(1)
    sizes = (0.05, 0.02, 0.01)
    effects = [generator.normal(0, size, 30) for size in sizes]
    values = {
        seeds: 0.5 + sum(float(effect[seed]) for effect, seed in zip(effects, seeds, strict=True))
        for seeds in itertools.product(range(30), repeat=3)
        if sum(seed > 0 for seed in seeds) <= 1 or len(set(seeds)) == 1
    }
    for factor, effect in enumerate(effects):
        found = variance.alone(values, factor)
        assert found is not None
        assert found.std == pytest.approx(effect.std(ddof=1), rel=1e-9)
        assert found.low < sizes[factor] < found.high
    total = variance.together(values)
    assert total is not None
    assert total.runs == 30
    assert total.std == pytest.approx(np.sqrt(sum(size**2 for size in sizes)), rel=0.3)
    assert variance.alone({(0, 0, 0): 0.5, (1, 1, 1): 0.6}, 0) is None
    assert variance.together({(0, 0, 0): 0.5}) is None


def shelf(folder: Path, seeds: list[tuple[int, int, int]]) -> Path:
    for place, (order, init, data) in enumerate(seeds):
        made = json.loads(json.dumps(TEMPLATE))
        made["seeds"] = {"seed": 0, "class_order": order, "init": init, "data": data}
        made["metrics"]["final_avg_acc"] = 0.5 + init / 10 + data / 100
        made["scenario"]["class_order"] = [0, 1] if order % 2 == 0 else [1, 0]
        made["run_id"] = f"{place:016x}"
        records.write(folder / f"{place:016x}.json", made)
    return folder


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = TEMPLATE["method"]["name"]
    folder = shelf(tmp_path, [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 1)])
    assert main(["variance", name, "--results", str(folder)]) == EXIT_OK
    out = capsys.readouterr().out
    assert "class order                  not known: bench run --scenario" in out
    assert "--class-order-seed 0-4" in out
    assert "initialisation                10.00  95 % [5.21, 62.85], 3 runs" in out
    assert "data order and augmentation    0.71" in out
    assert main(["variance", name, "--results", str(shelf(tmp_path, [(0, 0, 0), (2, 0, 0)])), "--json"]) == EXIT_OK
    (told,) = json.loads(capsys.readouterr().out)
    assert told["std"]["class-order-seed"]["std"] == 0
    assert main(["variance", f"{name}x", "--results", str(folder)]) == EXIT_USAGE
    assert f"did you mean `{name}`" in capsys.readouterr().err


def test_an_order_that_does_not_follow_the_seed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shelf(tmp_path, [(0, 0, 0), (2, 2, 2), (4, 4, 4)])
    assert main(["variance", TEMPLATE["method"]["name"], "--results", str(folder)]) == EXIT_OK
    assert "class order                  the same in all runs" in capsys.readouterr().out


def test_seeds_that_are_given_apart_are_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--scenario", "split-glyphs", "--method", "nearest-mean", "--out", str(tmp_path), "--dry-run"]
    assert main([*command, "--init-seed", "0-2", "--data-seed", "5,7", "--json"]) == EXIT_OK
    plans = [{part["key"]: part["value"] for part in plan} for plan in json.loads(capsys.readouterr().out)]
    seeds = [tuple(plan[f"seed.{name}"] for name in ("class_order", "init", "data")) for plan in plans]
    assert seeds == [(0, init, data) for init in range(3) for data in (5, 7)]
    assert main([*command, "--data-seed", "x"]) == EXIT_USAGE
    assert "--data-seed x: `x` is not a seed" in capsys.readouterr().err
