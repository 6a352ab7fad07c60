"""A reader who has only the CSV of the committed records can write the command of each row, and gets its run.

The id of a run is a hash of what was resolved, of the data's fingerprint, the weights, the inputs and the code. Data
are loaded here of one bundled scenario alone; for the other rows the CSV's own columns stand for what only data and
weights tell, and for the code of the row's commit. Ids of records of schema 1 and 2 were made in another way (ADR 12):
there every option is compared instead.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import asking, run
from benchmark.leaderboard import command_of
from benchmark.run import plan as plans
from benchmark.run.plan import Plan
from benchmark.tables import starts_formula

ROOT = Path(__file__).parents[2]
EVERYTHING = ("scenario", "method", "recipe", "track", "backbone", "device", "settings")


def read(track: str) -> list[dict[str, str]]:
    with (ROOT / "results" / "leaderboards" / f"{track}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def committed() -> list[dict[str, str]]:
    return [*read("nano"), *read("mini")]


def plan_of(command: str) -> Plan:
    """What the command line makes of a command, by the way of ``bench run``."""
    import argparse

    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("bench", "run")
    args = parser.parse_args(words)
    args.quiet = True
    (job,) = asking.read(args).jobs
    return plans.resolve(job)


def some(rows: list[dict[str, str]], *keys: str) -> list[dict[str, str]]:
    """One row for each value of some columns."""
    return list({tuple(row[key] for key in keys): row for row in rows}.values())


def as_csv(value: Any) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else value
    return text if isinstance(text, str) else repr(text) if isinstance(text, (int, float)) else json.dumps(value)


def test_the_command_is_a_column_and_needs_nothing_but_its_row(committed: list[dict[str, str]]) -> None:
    assert len(committed) >= 1300
    for row in committed:
        assert command_of(row) == row["command"]
    first = committed[0]
    assert {"git_commit", "device", "precision", "backbone_sha256", "code", "threads"} <= first.keys()
    assert len(first["git_commit"]) == 40
    assert first["precision"] == "float32"


@pytest.mark.parametrize("keys", [("settings",), pytest.param(EVERYTHING, marks=pytest.mark.slow)], ids=["some", "all"])
def test_the_command_of_a_row_has_its_options(committed: list[dict[str, str]], keys: tuple[str, ...]) -> None:
    found = some(committed, *keys)
    assert len(found) >= 15
    for row in found:
        plan = plan_of(row["command"])
        for group, options in plan.effective().items():
            for name, value in options.items():
                told = row.get(f"{group}.{name}", "")
                if told or int(row["engine_number"]):  # options that came later are not in the oldest rows
                    plain = told.removeprefix("'" if starts_formula(told[1:]) else "")
                    assert plain == as_csv(value), (row["run_id"], name)
        assert (plan.track, plan.backbone, plan.recipe) == (row["track"], row["backbone"], row["recipe"])
        assert plan.preset == json.loads(row["inputs"])["facts"].get("preset", "")
        seeds = {name: int(row[f"seed_{name}"]) for name in ("class_order", "init", "data")}
        assert plan.seeds == {"seed": int(row["seed"]), **seeds}


@pytest.mark.parametrize("keys", [("method",), pytest.param(EVERYTHING, marks=pytest.mark.slow)], ids=["some", "all"])
def test_the_command_of_a_row_gives_its_run(
    committed: list[dict[str, str]], keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = some([row for row in committed if int(row["engine_number"])], *keys)
    assert len(found) >= 20
    for row in found:
        plan = plan_of(row["command"])
        monkeypatch.setattr(plans, "ENGINE", int(row["engine_number"]))
        method = dataclasses.replace(plan.method, code_sha256=row["code"])
        then = dataclasses.replace(plan, method=method, scenario_name=row["scenario"])
        run_id = then.run_id(
            fingerprint=row["scenario_fingerprint"],
            partition=row["scenario_partition"],
            weights_sha256=row["backbone_sha256"],
            inputs=json.loads(row["inputs"]),
            device=row["device"],
        )
        assert run_id == row["run_id"], row["command"]


def test_the_data_of_a_bundled_scenario_are_those_of_its_row(committed: list[dict[str, str]], tmp_path: Path) -> None:
    from benchmark.run.preparation import build_scenario, prepare

    row = next(row for row in committed if row["scenario"] == "split-topics/10x2" and row["method"] == "lm-head")
    plan = plan_of(row["command"])
    scenario, _ = build_scenario(plan, {"data_root": tmp_path, "cache": tmp_path, "download": "never"})
    prepared = prepare(plan, scenario)
    assert (scenario.fingerprint, scenario.partition) == (row["scenario_fingerprint"], row["scenario_partition"])
    assert prepared.pretrained.sha256 == row["backbone_sha256"]
    if (row["code"], int(row["engine_number"])) == (prepared.plan.method.code_sha256, plans.ENGINE):
        assert prepared.run_id == row["run_id"]


def test_what_no_record_holds_is_named_without_its_place() -> None:
    row = {
        "scenario": "domains:mine-0e8b1a8e/b50-inc10",
        "method": "l2p",
        "recipe": "pilot",
        "track": "mini",
        "seed": "3",
    }
    row |= {"backbone": "custom:a.npz-0123abcd", "own_weights": "true", "device": "cuda:1", "settings": "method.lr=0.1"}
    row |= {"inputs": '{"facts": {"preset": "cifar32"}, "kind": "image"}'}
    row |= {"typed": "bench run --backbone timm:vit_tiny --weights '/home/me/a b.npz' --seed 0-3", "seed_init": "5"}
    assert command_of(row) == (
        "bench run --scenario domains:mine --method l2p@pilot --track mini --preset cifar32 --backbone timm:vit_tiny "
        "--weights YOUR-WEIGHTS --seed 3 --init-seed 5 --device cuda --set method.lr=0.1"
    )
    with pytest.raises(ValueError, match="`settings`"):
        command_of({name: value for name, value in row.items() if name != "settings"})
