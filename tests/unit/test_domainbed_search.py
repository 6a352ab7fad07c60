"""DomainBed's search and rules of selection, against what its code drew and chose (``tests/golden/adaptation``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench_basics.protocols import bench_register_protocols
from benchmark import registry
from benchmark.config import Range
from benchmark.importing import import_file
from benchmark.tuning import trials
from benchmark.tuning.trials import Trial

GOLDEN = Path(__file__).parents[1] / "golden" / "adaptation" / "domainbed_search"
DRAWN = json.loads((GOLDEN / "hparams.json").read_text(encoding="utf-8"))["table"]
MADE_UP = json.loads((GOLDEN / "selection.json").read_text(encoding="utf-8"))
(PROTOCOL,) = bench_register_protocols()
OPTIONS = {  # ours, by theirs
    "lr": "lr",
    "weight_decay": "weight_decay",
    "batch_size": "batch_size",
    "irm_lambda": "penalty",
    "irm_penalty_anneal_iters": "anneal",
    "vrex_lambda": "penalty",
    "vrex_penalty_anneal_iters": "anneal",
    "groupdro_eta": "group_eta",
    "mixup_alpha": "mixup_alpha",
    "linear_lr": "linear_lr",
}
METHODS = {
    "ERM": "erm",
    "IRM": "irm",
    "VREx": "vrex",
    "GroupDRO": "group-dro",
    "Mixup": "mixup",
    "ERMPlusPlus": "erm++",
}


def test_every_value_that_domainbed_draws_is_in_the_range_of_the_protocol() -> None:
    checked = 0
    for name, values in DRAWN.items():
        algorithm, data, seed = name.split("/")
        if seed == "default" or data != "PACS" or algorithm not in METHODS:
            continue
        for theirs, ours in OPTIONS.items():
            if theirs in values:
                axis = PROTOCOL.axes[ours]
                assert isinstance(axis, Range)
                assert axis.search is not None
                low, high = axis.search
                assert low <= values[theirs] <= high, (name, theirs)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize(("algorithm", "method"), METHODS.items())
def test_recipes_have_the_defaults_of_domainbed(algorithm: str, method: str) -> None:
    spec: Any = registry.load_method(method).spec
    config, theirs = spec.config(**spec.recipes["domainbed"]), DRAWN[f"{algorithm}/PACS/default"]
    for name, ours in OPTIONS.items():
        if name in theirs:
            wanted = theirs[name] * (3 if name == "batch_size" else 1)  # of each of three sources there
            assert getattr(config, ours) == wanted, name


@pytest.mark.parametrize(("rule", "theirs"), [("training-domain validation", "IIDAccuracy"), ("oracle", "Oracle")])
@pytest.mark.parametrize("test", range(4))
def test_the_rules_choose_what_the_official_code_chooses(test: int, rule: str, theirs: str, tmp_path: Path) -> None:
    wanted = MADE_UP["chosen"][f"{theirs}SelectionMethod/{test}"]
    scores, found = {}, []
    for seed in range(3):
        lines = [
            line
            for line in MADE_UP["records"]
            if line["args"]["test_envs"] == [test] and line["args"]["hparams_seed"] == seed
        ]
        file = tmp_path / f"{seed}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (run,) = import_file("domainbed", file)
        scores[seed] = {one.name: one.value for one in run.reported}[f"env{test}_in_acc ({rule})"]
        (value,) = [one["val_acc"] for one in wanted["per_hparams"] if one["hparams_seed"] == seed]
        found.append(Trial(number=seed, point={"seed": seed}, value=value))
    assert scores == {one["hparams_seed"]: one["test_acc"] for one in wanted["per_hparams"]}
    best = trials.best(found)
    assert best is not None
    assert best.number == wanted["best_hparams_seed"]
    assert scores[best.number] == wanted["sweep_acc"]
