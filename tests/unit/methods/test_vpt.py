"""VPT and prefix-tuning: what trains, prompts from classes, options that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods import prefix_tuning, vpt
from bench_methods.prefix_tuning import PrefixTuning, PrefixTuningConfig
from bench_methods.vpt import VPT, VPTConfig, VPTDeepConfig
from benchmark.api import Batch, Scenario
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.backbones.visual_prompts import TokenPrompts, cls_states
from benchmark.errors import UsageError
from benchmark.specs import MethodSpec
from benchmark.testing.by_hand import context_of, view_of
from benchmark.testing.toys import toy_scenario

SPECS: dict[str, MethodSpec] = {
    spec.name: spec for module in (vpt, prefix_tuning) for spec in module.bench_register_methods()
}
SCENARIO = toy_scenario(experiences=2, classes=3, train=4, test=1)


def make(name: str, scenario: Scenario = SCENARIO, **options: Any) -> Any:
    spec = SPECS[name]
    config = spec.config(**options)
    context = context_of(spec, config, scenario)
    torch.manual_seed(0)
    return spec.build(config, context)


def begin(method: Any, task: int = 0, scenario: Scenario = SCENARIO) -> None:
    method.train()
    method.begin_experience(view_of(method, scenario, task))


def batch_of(method: Any, task: int = 0) -> Batch:
    train = SCENARIO.experiences[task].train
    return Batch(method.context.pipeline.eval(train.images(slice(None))), train.labels)


def moved_by_training(method: Any) -> set[str]:
    begin(method)
    start = {name: value.clone() for name, value in method.state_dict().items()}
    for _ in range(2):
        method.train_step(batch_of(method))
    return {name for name, value in method.state_dict().items() if not torch.equal(value, start[name])}


HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("transfer", "more"),
    [
        ("prompt", {"visual.rows"}),
        ("prompt-noupdate", set()),
        ("cls", {"backbone.cls_token"}),
        ("cls-reinit", {"backbone.cls_token"}),
        ("cls+prompt", {"backbone.cls_token", "visual.rows"}),
        ("cls-reinit+prompt", {"backbone.cls_token", "visual.rows"}),
    ],
)
def test_what_trains(transfer: str, more: set[str]) -> None:
    assert moved_by_training(make("vpt-shallow", transfer=transfer)) == HEAD | more


def test_biases_train_with_the_prompts() -> None:
    moved = moved_by_training(make("vpt-deep", transfer="prompt+bias")) - HEAD
    assert "visual.rows" in moved
    assert {name for name in moved if name.startswith("backbone.")} == {
        f"backbone.{name}" for name, _ in make("vpt-deep").backbone.named_parameters() if "bias" in name
    }


def test_the_patch_embedding_trains_with_more_channels_and_only_with_them() -> None:
    patches = {"backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"}
    moved = moved_by_training(make("vpt-shallow", location="below", prompt_length=1))
    assert moved == HEAD | patches | {"visual.channels", "visual.kernels"}
    assert moved_by_training(make("vpt-shallow", location="below", transfer="prompt-noupdate")) == HEAD


def test_the_class_token_is_drawn_anew() -> None:
    method = make("vpt-shallow", transfer="cls-reinit")
    assert 0 < float(method.backbone.cls_token.detach().abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["vpt-shallow", "vpt-deep", "prefix-tuning"])
def test_the_control_is_a_head_on_the_class_token(name: str) -> None:
    method = make(name, prompts="off")
    assert moved_by_training(method) == HEAD
    images = batch_of(method).images
    with torch.no_grad():
        torch.testing.assert_close(method.eval().features(images), cls_feature(method.backbone, images))


def class_means() -> Tensor:
    """Mean class tokens of the three classes of the first task, ``(L + 1, 3, D)``."""
    method = make("vpt-deep", prompts="off")
    states = cls_states(method.backbone, batch_of(method).images)
    labels = SCENARIO.experiences[0].train.labels
    return torch.stack([states[:, labels == label].mean(dim=1) for label in range(3)], dim=1)


@pytest.mark.parametrize(
    ("name", "init", "rows"),
    [
        ("vpt-shallow", "final-cls", [2]),
        ("vpt-shallow", "cls-nolastl", [0]),
        ("vpt-shallow", "cls-nofirstl", [1]),
        ("vpt-deep", "final-cls", [2, 2]),
        ("vpt-deep", "cls-nolastl", [0, 1]),
        ("vpt-deep", "cls-nofirstl", [1, 2]),
    ],
)
def test_prompts_from_classes(name: str, init: str, rows: list[int]) -> None:
    method = make(name, init=init, prompt_length=0)
    begin(method)
    torch.testing.assert_close(method.visual.rows.detach(), class_means()[rows])
    method.train_step(batch_of(method))
    kept = method.visual.rows.detach().clone()
    begin(method, 1)  # the next classes make no new prompts
    assert torch.equal(method.visual.rows, kept)
    assert any(
        parameter is method.visual.rows for group in method.optimizer.param_groups for parameter in group["params"]
    )


def test_blocks_that_get_prompts() -> None:
    layers = {}
    for depth, direction in ((0, "first"), (1, "first"), (1, "last")):
        visual = make("vpt-deep", depth=depth, direction=direction).visual
        assert isinstance(visual, TokenPrompts)
        layers[depth, direction] = visual.layers
    assert layers == {(0, "first"): (0, 1), (1, "first"): (0,), (1, "last"): (1,)}
    with pytest.raises(UsageError, match="depth: 3 is more than this backbone has blocks"):
        make("vpt-deep", depth=3)


def test_shallow_is_deep_in_one_block_from_the_same_seed() -> None:
    shallow, deep = make("vpt-shallow"), make("vpt-deep", depth=1, prompt_dropout=0.0)
    for method in (shallow, deep):
        torch.manual_seed(1)
        begin(method)
        for _ in range(2):
            method.train_step(batch_of(method))
    images = batch_of(shallow).images
    assert torch.equal(shallow.eval().predict(images), deep.eval().predict(images))


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (VPTConfig, {"prompt_length": 0}, "prompt_length: 0 is too small"),
        (VPTConfig, {"project": -1}, "project: -1 is negative"),
        (VPTConfig, {"prompt_dropout": 1.0}, "prompt_dropout: 1.0 is out of range"),
        (VPTConfig, {"location": "pad", "project": 4}, "project: has no effect with location `pad`"),
        (VPTConfig, {"location": "below", "prompt_dropout": 0.1}, "prompt_dropout: has no effect"),
        (VPTConfig, {"init": "final-cls"}, "init: `final-cls` makes one prompt a class"),
        (VPTConfig, {"location": "add", "readout": "prompt"}, "readout: `prompt` needs prompt tokens"),
        (VPTConfig, {"prompts": "off", "readout": "prompt"}, "readout: `prompt` needs prompt tokens"),
        (VPTDeepConfig, {"location": "pad"}, "location: `pad` is for vpt-shallow"),
        (VPTDeepConfig, {"depth": -1}, "depth: -1 is negative"),
        (VPTDeepConfig, {"expand": False, "direction": "last"}, "expand: false needs"),
        (VPTDeepConfig, {"lost_patches": True}, "lost_patches: needs"),
        (VPTDeepConfig, {"init": "cls-nolastl", "prompt_length": 0, "depth": 2}, "init: `cls-nolastl` is for"),
        (PrefixTuningConfig, {"prefix_length": 0}, "prefix_length: 0 is too small"),
        (PrefixTuningConfig, {"layers": ()}, "layers: is empty"),
        (PrefixTuningConfig, {"prefix_dropout": -0.1}, "prefix_dropout: -0.1 is out of range"),
        (PrefixTuningConfig, {"reparam": "mlp", "init": "normal"}, "init: `normal` is for prefixes without MLP"),
    ],
)
def test_contradictions_are_refused(config: type, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**options)


def test_prompts_that_are_removed_cannot_be_read() -> None:
    with pytest.raises(UsageError, match="readout: no prompt tokens come out"):
        make("vpt-deep", depth=1, expand=False, readout="prompt")
    assert make("vpt-deep", depth=2, expand=False, readout="prompt").visual.last == 10


def test_prefixes_in_blocks_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="layers: this backbone has no block 2"):
        make("prefix-tuning", layers=(0, 2))


def test_the_mlp_runs_once_after_an_experience() -> None:
    method = make("prefix-tuning", reparam="mlp", hidden=6)
    assert isinstance(method, PrefixTuning)
    begin(method)
    method.train_step(batch_of(method))
    images = batch_of(method).images
    with torch.no_grad():
        before = method.eval().predict(images)
        view = view_of(method, SCENARIO, 0)
        method.end_experience(view)
        assert method.prefixes is not None
        calls: list[int] = []
        method.prefixes.register_forward_hook(lambda module, inputs, output: calls.append(1))
        assert torch.equal(method.predict(images), before)
        assert not calls
    begin(method, 1)  # from here on they change again
    method.train_step(batch_of(method, 1))
    with torch.no_grad():
        after = method.eval().predict(images)
    assert len(calls) == 2
    assert not torch.equal(after[:, :3], before)


def test_dropout_of_prefixes_differs_between_images_and_stops_at_test_time() -> None:
    method = make("prefix-tuning", prefix_dropout=0.5, prefix_length=8, init="normal")
    begin(method)
    twice = batch_of(method).images[:1].expand(2, -1, -1, -1)
    with torch.no_grad():
        features = method.features(twice)
        assert not torch.allclose(features[0], features[1])
        features = method.eval().features(twice)
        torch.testing.assert_close(features[0], features[1])


def test_a_method_of_shallow_prompts_is_the_one_class() -> None:
    assert SPECS["vpt-shallow"].build is SPECS["vpt-deep"].build is VPT
