"""The tuning baselines in streams: what trains, what the recipes mean, what is refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from bench_methods import adapter, bias, finetune, linear_probe, lora, mlp_k, partial_k, side_tuning
from bench_methods.mlp_k import MlpK
from benchmark.api import Scenario
from benchmark.backbones.heads import MLPHead
from benchmark.errors import DataMissing, UsageError
from benchmark.learners.classifier import Classifier
from benchmark.optimizers import DecayLastAdamW
from benchmark.testing.by_hand import batch_of, begin, context_of, view_of
from benchmark.testing.toys import toy_scenario

ALL = [adapter, bias, lora, mlp_k, partial_k, side_tuning]
WITH_VPT = [*ALL, finetune, linear_probe]


def make(module: ModuleType, scenario: Scenario, **changes: Any) -> Classifier:
    (spec,) = module.bench_register_methods()
    config = spec.config(**{"batch_size": 8, "epochs": 2, **changes})
    method = spec.build(config, context_of(spec, config, scenario))
    assert isinstance(method, Classifier)
    return method


def recipe_of(module: ModuleType, name: str) -> dict[str, Any]:
    (spec,) = module.bench_register_methods()
    return dict(spec.recipes[name])


@pytest.mark.parametrize("module", ALL)
def test_only_what_is_promised_moves_in_every_experience(module: ModuleType) -> None:
    scenario = toy_scenario()
    method = make(module, scenario, lr=0.01)
    for index in range(2):
        begin(method, scenario, index)
        assert not any(part.training for part in method.backbone.modules())
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        for _ in range(3):
            method.train_step(batch_of(method, scenario, index))
        moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {name for name, p in method.named_parameters() if p.requires_grad}
        assert all((p.grad is not None) == p.requires_grad for p in method.parameters())
    with torch.no_grad():
        assert method.eval().predict(batch_of(method, scenario, 1).images).shape == (8, 4)


@pytest.mark.parametrize("module", ALL)
def test_every_method_learns_the_toy_classes(module: ModuleType) -> None:
    scenario = toy_scenario()
    torch.manual_seed(0)
    method = make(module, scenario, lr=0.02)
    begin(method, scenario, 0)
    batch = batch_of(method, scenario, 0, size=16)
    for _ in range(30):
        method.train_step(batch)
    with torch.no_grad():
        assert (method.eval().predict(batch.images).argmax(1) == batch.labels).float().mean() > 0.9


@pytest.mark.parametrize("module", ALL)
def test_the_masked_recipe_keeps_old_rows_still(module: ModuleType) -> None:
    scenario = toy_scenario()
    for options, still in (({}, False), (recipe_of(module, "masked"), True)):
        method = make(module, scenario, **options)
        begin(method, scenario, 0)
        begin(method, scenario, 1)
        rows = method.head.last if isinstance(method.head, MLPHead) else method.head
        old = rows.weight.detach()[:2].clone()
        method.train_step(batch_of(method, scenario, 1))
        assert torch.equal(rows.weight[:2], old) == still


@pytest.mark.parametrize("module", WITH_VPT)
def test_the_vpt_recipe_is_the_papers_protocol(module: ModuleType) -> None:
    scenario = toy_scenario()
    recipe = recipe_of(module, "vpt")
    assert (recipe["epochs"], recipe["warmup"], recipe["head_init"]) == (100, 10, "vpt")
    method = make(module, scenario, **{**recipe, "batch_size": 16, "epochs": 3, "warmup": 1})
    begin(method, scenario, 0)
    sgd = module in (linear_probe, mlp_k, side_tuning)
    assert isinstance(method.optimizer, torch.optim.SGD if sgd else DecayLastAdamW)
    assert method.optimizer.param_groups[0]["base_lr"] == pytest.approx(recipe["lr"] * 16 / 256)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    changed = []
    for step in range(3):  # one step an epoch: warm-up at rest, full, half
        method.train_step(batch_of(method, scenario, 0, step, size=16))
        changed.append(any(not torch.equal(p, before[name]) for name, p in method.named_parameters()))
    assert changed == [False, True, True]


def test_dropout_of_finetune_acts_in_training_only() -> None:
    scenario = toy_scenario()
    for rate in (0.0, 0.1):
        method = make(finetune, scenario, dropout=rate)
        begin(method, scenario, 0)
        images = batch_of(method, scenario, 0).images
        with torch.no_grad():
            assert torch.equal(method.logits(images), method.logits(images)) == (rate == 0.0)
            assert torch.equal(method.eval().logits(images), method.logits(images))


def test_batch_norm_is_frozen_after_the_first_experience_if_asked() -> None:
    scenario = toy_scenario()
    for freeze in (False, True):
        method = make(mlp_k, scenario, freeze_bn_after_first_task=freeze)
        assert isinstance(method, MlpK)
        begin(method, scenario, 0)
        method.train_step(batch_of(method, scenario, 0))
        method.end_experience(view_of(method, scenario, 0))
        resumed = make(mlp_k, scenario, freeze_bn_after_first_task=freeze)
        resumed.load_state_dict(method.state_dict())
        for one in (method, resumed):
            begin(one, scenario, 1)
            assert isinstance(one, MlpK)
            norms = [layer for layer in one.head.hidden if isinstance(layer, nn.BatchNorm1d)]
            before = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
            one.train_step(batch_of(one, scenario, 1))
            same = [
                torch.equal(value, old[name])
                for norm, old in zip(norms, before, strict=True)
                for name, value in norm.state_dict().items()
            ]
            assert all(same) if freeze else not any(same)
            held = {id(p) for group in one.optimizer.param_groups for p in group["params"]} if one.optimizer else set()
            assert (id(norms[0].weight) in held) != freeze


def test_side_networks_and_their_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = toy_scenario()
    small = make(side_tuning, scenario)
    images = batch_of(small, scenario, 0).images
    with torch.no_grad():
        base = Classifier.features(small, images)
        torch.testing.assert_close(small.features(images), 0.5 * base + 0.5 * small.get_submodule("side")(images))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for weights in ("imagenet", str(tmp_path / "mine.pth")):
        with pytest.raises(DataMissing, match="AlexNet weights"):
            make(side_tuning, scenario, side="alexnet", side_weights=weights)
    (spec,) = side_tuning.bench_register_methods()
    assert spec.tracks["paper"] == {"side": "alexnet", "side_weights": "imagenet"}


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (adapter, {"reduction": 0}, "reduction: 0 is too small"),
        (finetune, {"dropout": 1.0}, "dropout: 1.0 is out of range"),
        (lora, {"rank": 0}, "rank: 0 is too small"),
        (lora, {"alpha": 0.0}, "alpha: 0.0 is not positive"),
        (lora, {"targets": ""}, "targets: '' is not made of different letters of qkv"),
        (lora, {"targets": "qo"}, "targets: 'qo' is not made"),
        (lora, {"targets": "qq"}, "targets: 'qq' is not made"),
        (mlp_k, {"k": 0}, "k: 0 is too small"),
        (mlp_k, {"dropout": -0.1}, "dropout: -0.1 is out of range"),
        (mlp_k, {"norm": "layer", "freeze_bn_after_first_task": True}, "no effect with norm `layer`"),
        (partial_k, {"k": -1}, "k: -1 is negative"),
        (side_tuning, {"side_weights": "imagenet"}, "side_weights: 'imagenet' does not fit side `small`"),
        (side_tuning, {"side": "alexnet", "side_weights": ""}, "side_weights: is empty"),
        (adapter, {"lr": 0.0}, "lr: 0.0 is not positive"),
    ],
)
def test_values_out_of_range_are_explained(module: ModuleType, changes: dict[str, Any], message: str) -> None:
    (spec,) = module.bench_register_methods()
    with pytest.raises(ValueError, match=message):
        spec.config(**changes)


def test_backbones_that_do_not_fit_are_refused() -> None:
    scenario = toy_scenario()
    with pytest.raises(UsageError, match="k: 3 is more than this backbone has blocks"):
        make(partial_k, scenario, k=3)
    with pytest.raises(UsageError, match="reduction: 64 leaves nothing of this backbone's width 32"):
        make(adapter, scenario, reduction=64)


@pytest.mark.parametrize("module", WITH_VPT)
def test_recipes_and_tracks_name_existing_fields(module: ModuleType) -> None:
    (spec,) = module.bench_register_methods()
    for values in [*spec.recipes.values(), *spec.tracks.values()]:
        spec.config(**values)
    assert {"nano", "mini"} <= set(spec.tracks)
    assert spec.published == spec.name
