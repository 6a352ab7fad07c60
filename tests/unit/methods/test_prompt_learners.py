"""What the four methods with a pool of prompts have in common: L2P, DualPrompt, CODA-Prompt, L2P++."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench_methods import coda_prompt, dualprompt, l2p, l2p_plus_plus
from benchmark.api import Scenario
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.config import Layer, resolve
from benchmark.errors import UsageError
from benchmark.learners.prompting import QueryLearner
from benchmark.specs import MethodSpec
from benchmark.testing.by_hand import batch_of, context_of, learn, view_of
from benchmark.testing.toys import tiny_backbone, toy_scenario

SPECS = {
    spec.name: spec
    for module in (l2p, dualprompt, coda_prompt, l2p_plus_plus)
    for spec in module.bench_register_methods()
}
SMALL: dict[str, dict[str, Any]] = {
    "l2p": {"pool_size": 6, "prompt_length": 2, "top_k": 2},
    "dualprompt": {"g_length": 2, "e_length": 3},
    "coda-prompt": {"pool_size": 6, "prompt_length": 4},
    "l2p++": {"pool_size": 7, "prompt_length": 6, "top_k": 3},
}
OWN_RECIPES = {"batchwise", "port-bug", "open-ended"}  # adaptbench's: the default, but for one thing

every = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def make(spec: MethodSpec, scenario: Scenario, **changes: Any) -> QueryLearner:
    config = spec.config(**{"batch_size": 8, **SMALL[spec.name], **changes})
    method = spec.build(config, context_of(spec, config, scenario, backbone=tiny_backbone(depth=3)))
    assert isinstance(method, QueryLearner)
    return method


@every
def test_the_backbone_is_bit_identical_after_training_in_every_recipe(spec: MethodSpec) -> None:
    scenario = toy_scenario()
    for recipe in ({}, *spec.recipes.values()):
        method = make(spec, scenario, **{**recipe, "batch_size": 8, **SMALL[spec.name]})
        before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
        learn(method, scenario, 0)
        assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())
        assert not method.train().backbone.training


@every
def test_without_prompts_it_is_a_masked_head_on_the_class_token(spec: MethodSpec) -> None:
    scenario = toy_scenario()
    method = make(spec, scenario, prompts="off")
    learn(method, scenario, 0)
    learn(method, scenario, 1)
    images = batch_of(method, scenario, 0).images
    with torch.no_grad():
        torch.testing.assert_close(method.predict(images), method.head(cls_feature(method.backbone, images)))
    assert {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None} == {"head"}
    assert method.context.uses == {"boundaries"}


@every
@pytest.mark.parametrize(
    ("family", "changes", "still"),
    [("class-il", {}, True), ("class-il", {"train_mask": "none"}, False), ("domain-il", {}, False)],
    ids=["masked", "unmasked", "domains"],
)
def test_rows_of_other_tasks_stay_still_under_the_mask(
    spec: MethodSpec, family: str, changes: dict[str, Any], still: bool
) -> None:
    scenario = toy_scenario(family=family)
    method = make(spec, scenario, **changes)
    learn(method, scenario, 0)
    old = method.head.weight.detach().clone()
    learn(method, scenario, 1)
    assert torch.equal(method.head.weight[:2], old) == still


@every
def test_the_optimizer_is_new_for_each_experience(spec: MethodSpec) -> None:
    scenario = toy_scenario()
    method = make(spec, scenario)
    learn(method, scenario, 0)
    first = method.optimizer
    method.begin_experience(view_of(method, scenario, 1))
    assert method.optimizer is not None
    assert method.optimizer is not first
    assert not method.optimizer.state


@every
def test_a_published_recipe_is_the_same_on_every_track(spec: MethodSpec) -> None:
    changed = {name for values in spec.tracks.values() for name in values}
    for name, values in spec.recipes.items():
        spec.config(**values)
        if name not in OWN_RECIPES:
            assert changed <= values.keys(), name


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("l2p", {"top_k": "12"}, r"--set: method\.l2p\.top_k: 12 is larger than pool_size \(10\); use 1\.\.10"),
        ("l2p", {"top_k": "0"}, r"top_k: 0 is too small; use 1 or more"),
        ("l2p", {"prompt_length": "-1"}, r"prompt_length: -1 is too small"),
        ("l2p", {"pull": "-0.5"}, r"pull: -0\.5 is negative; use 0 or more"),
        ("l2p", {"clip": "-1"}, r"clip: -1\.0 is negative"),
        ("l2p", {"lr": "0"}, r"lr: 0\.0 is not positive"),
        ("l2p", {"gelu": "relu"}, r"method\.l2p\.gelu: 'relu' is not allowed"),
        ("l2p", {"prompts": "maybe"}, r"method\.l2p\.prompts: 'maybe' is not allowed"),
        ("l2p", {"pool": "10"}, r"unknown option `method\.l2p\.pool`"),
        (
            "dualprompt",
            {"top_k": "3", "pool_size": "2"},
            r"method\.dualprompt\.top_k: 3 is larger than pool_size \(2\)",
        ),
        ("dualprompt", {"top_k": "0"}, r"top_k: 0 is too small; use 1 or more"),
        ("dualprompt", {"e_length": "0"}, r"e_length: 0 is too small"),
        ("dualprompt", {"pull": "-0.5"}, r"pull: -0\.5 is negative; use 0 or more"),
        ("dualprompt", {"g_length": "-1"}, r"g_length: -1 is negative"),
        ("dualprompt", {"clip": "-1"}, r"clip: -1\.0 is negative"),
        ("dualprompt", {"lr": "0"}, r"lr: 0\.0 is not positive"),
        ("dualprompt", {"layout": "wrong"}, r"method\.dualprompt\.layout: 'wrong' is not allowed"),
        ("dualprompt", {"key_sets": "per-layer", "selection": "batchwise"}, r"key_sets: per-layer keys go with"),
        ("dualprompt", {"g_layers": "0,x"}, r"g_layers: 'x' is not a whole number"),
        ("coda-prompt", {"prompt_length": "5"}, r"method\.coda-prompt\.prompt_length: 5 is not even; use 2, 4"),
        ("coda-prompt", {"prompt_length": "0"}, r"prompt_length: 0 is not even"),
        ("coda-prompt", {"pool_size": "0"}, r"pool_size: 0 is too small; use 1 or more"),
        ("coda-prompt", {"prompt_depth": "0"}, r"prompt_depth: 0 is too small"),
        ("coda-prompt", {"ortho": "-1"}, r"ortho: -1\.0 is negative; use 0 or more"),
        ("coda-prompt", {"components": "-1"}, r"components: -1 is negative"),
        ("coda-prompt", {"schedule": "cosine"}, r"schedule: 'cosine' is not allowed"),
        ("l2p++", {"prompt_length": "5"}, r"method\.l2p\+\+\.prompt_length: 5 is not even; use 2, 4"),
        ("l2p++", {"top_k": "31"}, r"top_k: 31 is larger than pool_size \(30\); use 1\.\.30"),
        ("l2p++", {"top_k": "0"}, r"top_k: 0 is too small; use 1 or more"),
        ("l2p++", {"prompt_depth": "0"}, r"prompt_depth: 0 is too small"),
        ("l2p++", {"key_weight": "-1"}, r"key_weight: -1\.0 is negative; use 0 or more"),
    ],
)
def test_bad_values_are_explained_with_the_full_key(name: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(SPECS[name].config, [Layer("--set", values)], key=f"method.{name}")
