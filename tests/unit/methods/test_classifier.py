"""`finetune`, `linear-probe` and `joint`: what trains, what competes, what the schedule does."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch

from bench_methods import finetune, joint, linear_probe
from benchmark.api import Scenario
from benchmark.learners.classifier import Classifier
from benchmark.optimizers import DecayLastAdamW
from benchmark.testing.by_hand import batch_of, begin, context_of
from benchmark.testing.toys import toy_scenario


def make(module: ModuleType, scenario: Scenario, **changes: Any) -> Classifier:
    (spec,) = module.bench_register_methods()
    config = spec.config(**{"batch_size": 8, "epochs": 2, **changes})
    method = spec.build(config, context_of(spec, config, scenario))
    assert isinstance(method, Classifier)
    return method


@pytest.mark.parametrize(
    ("module", "changes", "moves"),
    [
        (finetune, {}, True),
        (linear_probe, {}, False),
        (joint, {}, True),
        (joint, {"backbone_lr_scale": 0.0}, False),
    ],
)
def test_what_moves_and_what_stays(module: ModuleType, changes: dict[str, Any], moves: bool) -> None:
    scenario = toy_scenario()
    method = make(module, scenario, **changes)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    begin(method, scenario, 0)
    assert method.backbone.training == moves
    head = method.head.weight.detach().clone()
    for _ in range(2):
        method.train_step(batch_of(method, scenario, 0))
    same = [name for name, value in method.backbone.state_dict().items() if torch.equal(value, before[name])]
    assert len(same) == (0 if moves else len(before))
    assert all((p.grad is not None) == moves for p in method.backbone.parameters())
    assert not torch.equal(method.head.weight, head)


def test_the_mask_keeps_old_rows_still_and_its_absence_does_not() -> None:
    scenario = toy_scenario()
    for mask in ("none", "current"):
        method = make(linear_probe, scenario, mask=mask)
        begin(method, scenario, 0)
        begin(method, scenario, 1)
        old = method.head.weight.detach()[:2].clone()
        method.train_step(batch_of(method, scenario, 1))
        assert torch.equal(method.head.weight[:2], old) == (mask == "current")


def test_in_domain_incremental_streams_nothing_is_masked() -> None:
    scenario = toy_scenario(family="domain-il", classes=3)
    masked, plain = (make(finetune, scenario, mask=mask) for mask in ("current", "none"))
    plain.load_state_dict(masked.state_dict())
    for method in (masked, plain):
        torch.manual_seed(0)
        for index in range(2):
            begin(method, scenario, index)
            method.train_step(batch_of(method, scenario, index))
    assert torch.equal(masked.head.weight, plain.head.weight)
    assert masked.head.classes == 3


def test_the_cosine_schedule_starts_high_and_ends_low_wherever_training_goes_on() -> None:
    scenario = toy_scenario(train=8)  # 16 images: 2 steps in each of 2 epochs
    method = make(finetune, scenario, schedule="cosine", lr=0.1, backbone_lr_scale=0.5)
    begin(method, scenario, 0)
    assert method.optimizer is not None
    seen = []
    for step in range(4):
        method.train_step(batch_of(method, scenario, 0, step))
        seen.append([group["lr"] for group in method.optimizer.param_groups])
    wanted = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert [row[0] for row in seen] == pytest.approx(wanted)
    assert [row[1] for row in seen] == pytest.approx([value / 2 for value in wanted])
    again = make(finetune, scenario, schedule="cosine", lr=0.1)
    begin(again, scenario, 0)
    again.train_step(batch_of(again, scenario, 0, 3))
    assert again.optimizer is not None
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(wanted[3])


def test_the_schedule_of_vpt_is_per_epoch_and_starts_with_an_epoch_at_rest() -> None:
    scenario = toy_scenario(train=8)  # 16 images: 2 steps in each of 4 epochs
    method = make(linear_probe, scenario, schedule="epoch-cosine", warmup=2, epochs=4, lr=0.1, lr_scaling="batch/256")
    begin(method, scenario, 0)
    assert method.optimizer is not None
    start, seen = method.head.weight.detach().clone(), []
    for step in range(8):
        method.train_step(batch_of(method, scenario, 0, step))
        assert torch.equal(method.head.weight, start) == (step < 2)
        seen.append(method.optimizer.param_groups[0]["lr"])
    rate = 0.1 * 8 / 256
    assert seen == pytest.approx([0.0, 0.0, rate / 2, rate / 2, rate, rate, rate / 2, rate / 2])


def test_the_optimizers_of_vpt_decay_by_name_and_know_the_backbone() -> None:
    scenario = toy_scenario()
    method = make(finetune, scenario, optimizer="vpt-sgd", weight_decay=0.1, backbone_lr_scale=0.5, lr=0.2)
    begin(method, scenario, 0)
    assert isinstance(method.optimizer, torch.optim.SGD)
    rows = [(group["base_lr"], group["weight_decay"], group["params"]) for group in method.optimizer.param_groups]
    assert sorted((rate, decay) for rate, decay, _ in rows) == [(0.1, 0.1), (0.2, 0.0), (0.2, 0.1)]
    undecayed = next(params for rate, decay, params in rows if decay == 0.0)
    assert [id(parameter) for parameter in undecayed] == [id(method.head.bias)]
    for changes, kind in (
        ({"weight_decay": 0.0}, DecayLastAdamW),
        ({"weight_decay": 0.0, "official_quirks": True}, torch.optim.SGD),
    ):
        method = make(finetune, scenario, optimizer="vpt-adamw", **changes)
        begin(method, scenario, 0)
        assert type(method.optimizer) is kind


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "vpt-sgd", "vpt-adamw"])
def test_every_optimizer_learns_the_toy_classes(name: str) -> None:
    scenario = toy_scenario()
    torch.manual_seed(0)
    method = make(linear_probe, scenario, optimizer=name, lr=0.05)
    begin(method, scenario, 0)
    batch = batch_of(method, scenario, 0, size=16)
    losses = [float(torch.as_tensor(method.train_step(batch)["loss"])) for _ in range(40)]
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        assert (method.eval().predict(batch.images).argmax(1) == batch.labels).float().mean() > 0.9


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (finetune, {"lr": 0.0}, "lr: 0.0 is not positive"),
        (finetune, {"backbone_lr_scale": 0.0}, "to freeze the backbone use `linear-probe`"),
        (joint, {"backbone_lr_scale": -1.0}, "backbone_lr_scale: -1.0 is negative"),
        (linear_probe, {"momentum": 1.0}, "momentum: 1.0 is out of range"),
        (linear_probe, {"weight_decay": -0.1}, "weight_decay: -0.1 is negative"),
        (linear_probe, {"warmup": -1, "schedule": "epoch-cosine"}, "warmup: -1 is negative"),
        (linear_probe, {"warmup": 1}, "warmup: 1 has no effect with schedule `constant`"),
        (linear_probe, {"official_quirks": True}, "official_quirks: no effect with optimizer `sgd`"),
        (linear_probe, {"epochs": -1}, "epochs: -1 is negative"),
    ],
)
def test_values_out_of_range_are_explained(module: ModuleType, changes: dict[str, Any], message: str) -> None:
    (spec,) = module.bench_register_methods()
    with pytest.raises(ValueError, match=message):
        spec.config(**changes)


@pytest.mark.parametrize("module", [finetune, linear_probe, joint])
def test_recipes_and_tracks_name_existing_fields(module: ModuleType) -> None:
    (spec,) = module.bench_register_methods()
    for values in [*spec.recipes.values(), *spec.tracks.values()]:
        spec.config(**values)
    assert spec.control
