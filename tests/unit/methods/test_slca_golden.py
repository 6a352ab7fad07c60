"""SLCA and SLCA++ against numbers recorded from GengDavid/SLCA 169d4e6 (``tests/golden/slca``, ``slca_pp``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods import slca, slca_plus_plus
from benchmark.api import Batch
from benchmark.learners.alignment import Draws
from benchmark.testing.by_hand import backbone_of, context_of, place
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

GOLDEN = Path(__file__).parents[2] / "golden"


class Given(Draws):
    """The recorded random numbers of the alignment of a task, one epoch after the other."""

    def __init__(self, case: Recorded, task: int) -> None:
        self.arrays = {
            kind: iter(case.tensor(key))
            for kind in ("eps", "perm", "uniform")
            if (key := f"input.task{task}.ca_{kind}") in case.arrays
        }

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        noise = next(self.arrays["eps"])
        assert noise.shape == shape
        return noise

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return next(self.arrays["uniform"])

    def permutation(self, count: int, like: Tensor) -> Tensor:
        order = next(self.arrays["perm"])
        assert len(order) == count
        return order


def options(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "epochs": config["epochs"],
        "milestones": tuple(config["milestones"]),
        "lr": config["lr"],
        "backbone_lr_scale": config["backbone_lr_scale"],
        "align_epochs": config["ca_epochs"],
        "align_lr": config["lr"],
        "logit_norm": config["logit_norm"] or 0.0,
        "samples": config["samples_per_class"],
        "weight_decay": config["weight_decay"],
        "official_quirks": True,
    }


def make(module: Any, case: Recorded, **more: Any) -> Any:
    (spec,) = module.bench_register_methods()
    config = spec.config(**options(case.meta["config"]), **more)
    return spec.build(config, context_of(spec, config, toy_scenario(), backbone=backbone_of(case.vit()))).double()


def trained(method: Any, name: str) -> Tensor:
    """Our parameter of an official name."""
    if name.startswith("fc.heads."):
        _, _, task, _, what = name.split(".")
        return method.heads.heads[int(task)].get_parameter(what)
    return method.backbone.get_parameter(name.removeprefix("convnet."))


def compare_heads(case: Recorded, prefix: str, weight: Tensor, bias: Tensor, sizes: list[int]) -> None:
    for task, (rows, shift) in enumerate(zip(weight.split(sizes), bias.split(sizes), strict=True)):
        case.compare(f"{prefix}.heads.{task}.0.weight", rows)
        case.compare(f"{prefix}.heads.{task}.0.bias", shift)


def learn(method: Any, case: Recorded, task: int, seen: int, size: int, ours: Any = trained) -> None:
    """Stage 1, statistics and alignment of a task, compared on the way."""
    prefix, config = f"task{task}", case.meta["config"]
    view = SimpleNamespace(classes=tuple(range(seen - size, seen)), seen=seen)
    method.train()
    method.begin_experience(view)
    with torch.no_grad():
        method.heads.heads[task].weight.copy_(case.tensor(f"method.head{task}.weight"))
        method.heads.heads[task].bias.copy_(case.tensor(f"method.head{task}.bias"))
        images = case.tensor(f"input.{prefix}.images")
        case.compare(f"{prefix}.train.features", method.features(images))
        case.compare(f"{prefix}.train.logits", method.heads(method.features(images)))
    batch = Batch(images, case.tensor(f"input.{prefix}.labels"))
    epochs = config["epochs"]
    losses = []
    for step in range(epochs):
        terms = method.train_step(dataclasses.replace(batch, place=place(step, epochs=epochs + 1)))
        losses.append(torch.as_tensor(terms["loss"]))
        rates = {round(group["lr"], 12) for group in method.optimizer.param_groups}
        assert rates == {round(rate, 12) for rate in case.arrays[f"f64.{prefix}.lrs"][step].tolist()}
        for key in case.computed(f"{prefix}.grad.") if step == 0 else ():
            if ".grad.ca." not in key:
                case.compare(key, ours(method, key.removeprefix(f"{prefix}.grad.")).grad)
    case.compare(f"{prefix}.steps.loss_total", torch.stack(losses))
    for key in case.computed(f"{prefix}.after."):
        case.compare(key, ours(method, key.removeprefix(f"{prefix}.after.")))
    compare_heads(case, f"{prefix}.head_before_ca", *slca.SLCA.readout(method, method.heads), method.heads.sizes)
    last = place(epochs, epochs=epochs + 1)
    for label in view.classes:
        images = case.tensor(f"input.class{label}.images")
        method.train_step(Batch(images, torch.full((len(images),), label), place=last))
    method.draws = Given(case, task)
    method.end_experience(view)
    method.eval()
    case.compare(f"{prefix}.class_means", method.statistics.means)
    case.compare(f"{prefix}.class_covs", method.statistics.covariances(ridge=1e-4))
    if task:
        case.compare(f"{prefix}.ca.loss", torch.stack(method.losses))


@pytest.mark.parametrize("name", ["two_tasks", "no_logit_norm_uneven"])
def test_every_stage_of_slca_equals_the_official_one(name: str) -> None:
    case = Recorded(GOLDEN / "slca", name, torch.float64)
    method = make(slca, case)
    tests, seen = case.tensor("input.eval_images"), 0
    for task, size in enumerate(case.meta["config"]["task_sizes"]):
        seen += size
        learn(method, case, task, seen, size)
        prefix = f"task{task}"
        kept = slca.SLCA.readout(method, method.heads)
        compare_heads(case, f"{prefix}.head_next", *kept, method.heads.sizes)
        shown = (method.weight, method.bias) if task else kept
        compare_heads(case, f"{prefix}.head", *shown, method.heads.sizes)
        with torch.no_grad():
            case.compare(f"{prefix}.eval.features", method.features(tests))
            case.compare(f"{prefix}.eval.logits", method.predict(tests))
    case.report()


def low_rank(method: Any, name: str) -> Tensor:
    """Our parameter of an official name of SLCA++."""
    if "lora" not in name:
        return trained(method, name)
    _, _, block, _, which = name.split(".")
    change = method.changes[int(block)]
    found: Tensor = change.down if which == "lora_A" else change.up
    return found


class Trained(Recorded):
    """Without what never trains: the low-rank changes of the MLPs."""

    def computed(self, prefix: str) -> list[str]:
        return [key for key in super().computed(prefix) if ".mlp.lora" not in key]


@pytest.mark.parametrize("name", ["two_tasks_lora", "three_tasks_cifar_recipe"])
def test_every_stage_of_slca_plus_plus_equals_the_official_one(name: str) -> None:
    case = Trained(GOLDEN / "slca_pp", name, torch.float64)
    config = case.meta["config"]
    more = {"rank": config["lora_rank"], "cross_entropy": config["sce_a"], "reverse": config["sce_b"]}
    method = make(slca_plus_plus, case, **more, scale=config["fc_scale_mu"])
    with torch.no_grad():
        for block, change in enumerate(method.changes):
            recorded = case.tensor(f"f64.task0.lora_init.blocks.{block}.attn.lora_A")
            signs = (change.down * recorded).sum(dim=1, keepdim=True).sign()
            torch.testing.assert_close(change.down * signs, recorded, atol=1e-4, rtol=0)  # of a float32 weight
            change.down.copy_(recorded)
    assert {name for name, p in method.backbone.named_parameters() if p.requires_grad and "bias" not in name} == {
        "cls_token",
        "norm.weight",
        *(f"blocks.{block}.norm{number}.weight" for block in range(2) for number in (1, 2)),
    }
    tests, seen = case.tensor("input.eval_images"), 0
    for task, size in enumerate(config["task_sizes"]):
        seen += size
        learn(method, case, task, seen, size, low_rank)
        prefix, sizes = f"task{task}", method.heads.sizes
        with torch.no_grad():
            case.compare(f"{prefix}.eval.features", method.features(tests))
            case.compare(f"{prefix}.eval.logits", method.predict(tests))
        if task:
            scales = method.scales()
            compare_heads(case, f"{prefix}.head", method.weight / scales.unsqueeze(1), method.bias, sizes)
            for place_of, found in enumerate(scales.split(sizes)):
                case.compare(f"{prefix}.head.scales.{place_of}.weight", found[:1])
    case.report()
