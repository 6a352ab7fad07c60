"""EWC, LwF, replay and DER++ as they run through Avalanche, against their formulas written out.

Streams are chosen so that nothing is left to chance: later experiences are one batch, and a memory is replayed whole.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods import avalanche_derpp, avalanche_ewc, avalanche_lwf, avalanche_replay
from benchmark.api import ExperienceView, ImageSet, Scenario
from benchmark.avalanche.strategies import AvalancheMethod
from benchmark.inputs.images import ImagePipeline
from benchmark.run import checkpoint
from benchmark.testing.by_hand import context_of, view_of
from benchmark.testing.toys import tiny_backbone, toy_scenario

pytestmark = pytest.mark.usefixtures("one_thread")

LR = 0.02


def stream() -> Scenario:
    """Two classes an experience: 16 images, then 8 and 8."""
    scenario = toy_scenario(experiences=3, train=8)
    first, *later = scenario.experiences
    short = [dataclasses.replace(part, train=part.train.subset(torch.arange(0, 16, 2))) for part in later]
    return dataclasses.replace(scenario, experiences=(first, *short))


SCENARIO = stream()


def make(module: Any, **options: Any) -> AvalancheMethod:
    (spec,) = module.bench_register_methods()
    fixed = {"batch_size": 8, "epochs": 2, "lr": LR, "momentum": 0.0, "augment": False}
    config = spec.config(**{**fixed, **options})
    backbone = tiny_backbone()
    pipeline = ImagePipeline("plain", size=32, mean=backbone.mean, std=backbone.std, augment=False)
    context = context_of(spec, config, SCENARIO, backbone=backbone, pipeline=pipeline)
    torch.manual_seed(0)
    method: AvalancheMethod = spec.build(config, context)
    return method


def grow(method: AvalancheMethod, index: int) -> ExperienceView:
    view = view_of(method, SCENARIO, index)
    method.train()
    checkpoint.seed_everything(index)
    method.begin_experience(view)
    return view


def ready(method: AvalancheMethod, images: ImageSet) -> tuple[Tensor, Tensor]:
    return method.context.pipeline.eval(images.images(slice(None))), images.labels


class Twin(nn.Module):
    """The model with timm's own forward pass, and plain gradient descent on a loss that is written out."""

    def __init__(self, method: AvalancheMethod) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(method.model.backbone)
        self.weight = nn.Parameter(method.model.head.weight.detach().clone())
        self.bias = nn.Parameter(method.model.head.bias.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return F.linear(features, self.weight, self.bias)

    def descend(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, list(self.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters(), gradients, strict=True):
                parameter -= LR * gradient

    def is_like(self, method: AvalancheMethod) -> None:
        theirs = [*method.model.backbone.parameters(), method.model.head.weight, method.model.head.bias]
        mine = [*self.backbone.parameters(), self.weight, self.bias]
        for one, two in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def moved(twin: Twin, before: Twin) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(twin.parameters(), before.parameters(), strict=True))


def importances(twin: Twin, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Mean over batches, in order, of the squared gradient of the batch's loss."""
    found = {name: torch.zeros_like(parameter) for name, parameter in twin.named_parameters()}
    batches = list(zip(torch.split(images, 8), torch.split(labels, 8), strict=True))
    for some, their in batches:
        gradients = torch.autograd.grad(F.cross_entropy(twin(some), their), list(twin.parameters()))
        for total, gradient in zip(found.values(), gradients, strict=True):
            total += gradient.square() / len(batches)
    return found


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_ewc_is_its_formula_with_a_growing_head(mode: str) -> None:
    method = make(avalanche_ewc, penalty=30.0, mode=mode, decay=0.5 if mode == "online" else 1.0)
    method.train_experience(grow(method, 0))
    kept: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for index in (1, 2):
        twin = Twin(method)
        former = importances(twin, *ready(method, SCENARIO.experiences[index - 1].train))
        if mode == "online" and kept:
            for name, value in kept.pop()[0].items():
                former[name][: len(value)] += 0.5 * value
        kept.append((former, {name: p.detach().clone() for name, p in twin.named_parameters()}))
        view = grow(method, index)
        twin = Twin(method)
        images, labels = ready(method, SCENARIO.experiences[index].train)
        for step in range(2):
            penalty = torch.zeros(())
            for weights, anchor in kept:
                for name, parameter in twin.named_parameters():
                    rows = len(anchor[name])  # new rows do not count
                    penalty = penalty + (weights[name] * (parameter[:rows] - anchor[name]).square()).sum()
            assert (float(penalty.detach()) > 0) == (step > 0 or len(kept) > 1)
            twin.descend(F.cross_entropy(twin(images), labels) + 30.0 * penalty)
        method.train_experience(view)
        twin.is_like(method)


@pytest.mark.parametrize("mask", ["none", "current"])
def test_lwf_is_its_formula_with_a_growing_head(mask: str) -> None:
    method = make(avalanche_lwf, alpha=30.0, temperature=2.0, mask=mask)
    method.train_experience(grow(method, 0))
    for index, old in ((1, 2), (2, 4)):
        teacher = Twin(method)
        view = grow(method, index)
        twin = Twin(method)
        images, labels = ready(method, SCENARIO.experiences[index].train)
        with torch.no_grad():
            wanted = (teacher(images) / 2.0).softmax(dim=1)
        assert wanted.shape[1] == old
        for _ in range(2):
            logits = twin(images)
            log = (logits[:, :old] / 2.0).log_softmax(dim=1)
            term = (wanted * (wanted.log() - log)).sum(dim=1).mean()
            first = old if mask == "current" else 0
            twin.descend(F.cross_entropy(logits[:, first:], labels - first) + 30.0 * term)
        method.train_experience(view)
        assert moved(twin, teacher)
        twin.is_like(method)


def memory(method: AvalancheMethod) -> dict[str, Tensor]:
    groups = [entry["data"] for entry in method.extra_state()["kept"]["groups"] if entry["data"] is not None]
    return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}


def test_replay_adds_as_many_stored_images_to_every_batch() -> None:
    method = make(avalanche_replay, memory=8)
    method.train_experience(grow(method, 0))
    for index in (1, 2):
        stored = memory(method)
        assert len(stored["labels"]) == 8
        assert set(stored["labels"].tolist()) <= set(range(2 * index))
        view = grow(method, index)
        twin = Twin(method)
        images, labels = ready(method, SCENARIO.experiences[index].train)
        everything = torch.cat([images, method.context.pipeline.eval(stored["images"])])
        for _ in range(2):
            twin.descend(F.cross_entropy(twin(everything), torch.cat([labels, stored["labels"]])))
        method.train_experience(view)
        twin.is_like(method)


def test_derpp_is_its_formula() -> None:
    method = make(avalanche_derpp, memory=8, alpha=0.7, beta=0.4)
    method.train_experience(grow(method, 0))
    for index in (1, 2):
        stored = memory(method)
        assert stored["logits"].shape == (8, 6)  # a row for every class from the start
        new = stored["labels"] >= 2 * (index - 1)
        before = Twin(method)
        with torch.no_grad():
            now = before(method.context.pipeline.eval(stored["images"]))
        torch.testing.assert_close(stored["logits"][new], now[new], atol=1e-5, rtol=0)
        view = grow(method, index)
        twin = Twin(method)
        images, labels = ready(method, SCENARIO.experiences[index].train)
        replayed = method.context.pipeline.eval(stored["images"])
        for _ in range(2):
            again = twin(replayed)
            distance = (again - stored["logits"]).square().mean()
            old = F.cross_entropy(again, stored["labels"])
            twin.descend(F.cross_entropy(twin(images), labels) + 0.7 * distance + 0.4 * old)
        method.train_experience(view)
        twin.is_like(method)
