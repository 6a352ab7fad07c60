"""The leak table: a method that reads its test batch is caught, one that does not is not."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from benchmark.run.preparation import Prepared
from benchmark.testing.toys import TOY_METHOD, ToyMethod, prepare_toy

PROGRAM = Path(__file__).parents[2] / "results" / "leaks.py"


@pytest.fixture(scope="module")
def leaks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("leaks", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "leaks", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


class Voter(ToyMethod):
    """Takes part of a batch's logits from its mean: a batch of one class outvotes what its images show."""

    def predict(self, images: Tensor) -> Tensor:
        logits = super().predict(images)
        return logits + 50 * logits.mean(0, keepdim=True)


def toy(build: type[ToyMethod], *uses: str) -> Prepared:
    declared: Any = TOY_METHOD.uses | set(uses)
    return prepare_toy(build=build, uses=declared, experiences=2, classes=2, train=12, test=9)


def ways(leaks: ModuleType, prepared: Prepared, batches: tuple[int, int] = (1, 6)) -> dict[tuple[int, str], Any]:
    found = leaks.measure(prepared, leaks.train(prepared), batches)
    return {(way.batch, way.order): way for way in found}


def test_a_method_that_reads_its_batch_is_caught(leaks: ModuleType) -> None:
    found = ways(leaks, toy(Voter, "test_batch"))
    assert found[1, "sorted"].changed == found[1, "shuffled"].changed == 0
    assert found[1, "sorted"].accuracy == found[1, "shuffled"].accuracy
    assert found[6, "shuffled"].changed > 0
    assert found[6, "sorted"].accuracy > found[6, "shuffled"].accuracy


def test_a_method_that_does_not_is_not(leaks: ModuleType) -> None:
    found = ways(leaks, toy(ToyMethod))
    assert len({way.accuracy for way in found.values()}) == 1
    assert {way.changed for way in found.values()} == {0.0}


def test_batches_are_sorted_by_class(leaks: ModuleType) -> None:
    prepared = toy(ToyMethod)
    found = leaks.predict(prepared, leaks.train(prepared), 4, "sorted")
    assert found.label.tolist() == sorted(found.label.tolist())
    assert len(found.label) == sum(len(test) for test in prepared.stream.tests)
    assert found.test_set.tolist() == sorted(found.test_set.tolist())


def test_the_table_and_the_file(leaks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"fair": toy(ToyMethod), "voter": toy(Voter, "test_batch")}
    monkeypatch.setattr(leaks, "HERE", tmp_path)
    monkeypatch.setattr(leaks, "prepare", lambda label, *rest: made[label])
    measure = leaks.measure
    monkeypatch.setattr(leaks, "measure", lambda prepared, method: measure(prepared, method, (1, 6)))
    leaks.main(["voter"], "toy/x", "nano", 0)
    leaks.main(["fair"], "toy/x", "nano", 0)
    with (tmp_path / "leaks" / "toy-x-nano.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["voter"] * 4 + ["fair"] * 4
    assert [row["leaks"] for row in rows] == ["yes"] * 4 + ["no"] * 4
    lines = leaks.table(rows).splitlines()
    assert lines[0].startswith("| method | declares `test_batch` | batch 1 | 6, shuffled | 6, sorted | leak |")
    assert lines[2].startswith("| voter | yes |")
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[:2] == ["fair", "no"]
    assert cells[2] == cells[3] == cells[4]
    assert cells[5:] == ["+0.00", "0.0 %", "0.0 %"]


def test_options_reach_the_method(leaks: ModuleType) -> None:
    prepared = leaks.prepare("l2p@pilot:top_k=2,prompt_length=3", "split-glyphs", "nano", 7)
    config = prepared.plan.method_config
    assert (config.top_k, config.prompt_length, prepared.plan.recipe) == (2, 3, "pilot")
    assert prepared.plan.seeds["seed"] == 7


def test_the_table_has_two_controls_and_six_methods_that_leak(leaks: ModuleType) -> None:
    fair = []
    for label in leaks.METHODS:
        method, _, options = label.partition(":")
        settings = dict(option.split("=", 1) for option in options.split(",") if option)
        request = leaks.Job(scenario="split-glyphs", method=method, track="nano", settings=settings)
        resolved = leaks.plan.resolve(request)
        if "test_batch" not in resolved.method_spec.uses_of(resolved.method_config):
            fair.append(label)
    assert fair == ["l2p", "dualprompt"]
    assert len(leaks.METHODS) == 8
