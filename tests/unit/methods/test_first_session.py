"""RanPAC and APER as wholes: against a restatement of the text, and through the engine."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from bench_methods import aper, ranpac
from bench_methods._first_session import FirstSession, FirstSessionConfig
from benchmark.api import Batch
from benchmark.inputs.images import ImagePipeline
from benchmark.testing import checks
from benchmark.testing.by_hand import at, context_of, view_of
from benchmark.testing.toys import tiny_backbone, toy_scenario

SCENARIO = toy_scenario(experiences=2, classes=3, train=4, test=2)  # 12 images a task: 3 batches of 5, 5 and 2
SMALL = {"epochs": 3, "batch_size": 5, "lr": 0.1, "bottleneck": 6, "prompts": 2, "adapter_dropout": 0.0}
PIPELINE = ImagePipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def make(module: Any, dtype: torch.dtype, **options: Any) -> FirstSession:
    (spec,) = module.bench_register_methods()
    config = spec.config(**{**SMALL, **options})
    method = spec.build(config, context_of(spec, config, SCENARIO, backbone=tiny_backbone(depth=3)))
    assert isinstance(method, FirstSession)
    return method.to(dtype)


def batches(task: int, dtype: torch.dtype) -> list[Batch]:
    train = SCENARIO.experiences[task].train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(task))
    images = PIPELINE.eval(train.images(order)).to(dtype)
    return [Batch(*pair) for pair in zip(torch.split(images, 5), torch.split(train.labels[order], 5), strict=True)]


def run(method: FirstSession, task: int, some: list[Batch]) -> None:
    """What the engine does with an experience."""
    view = view_of(method, SCENARIO, task)
    method.train()
    method.begin_experience(view)
    epochs = len(method.passes())
    for step in range(epochs * len(some)):
        method.train_step(at(some[step % len(some)], step, each=len(some), epochs=epochs))
    method.end_experience(view)
    method.eval()


class Restated(nn.Module):
    """A tuned ViT with timm's own forward pass, and a cosine head, as the text has them."""

    def __init__(self, method: FirstSession, vit: VisionTransformer) -> None:
        super().__init__()
        self.kind = method.config.adaptation
        self.vit = copy.deepcopy(vit).requires_grad_(self.kind == "finetune")
        assert method.head is not None
        self.rows = nn.Parameter(method.head.weight.detach().clone())
        self.scale = nn.Parameter(torch.ones((), dtype=self.rows.dtype))
        start = {} if self.kind == "finetune" else dict(method.tuner.named_parameters())  # type: ignore[union-attr]
        self.added = nn.ParameterList(parameter.detach().clone() for parameter in start.values())
        self.names = list(start)
        if self.kind == "adapter":
            for index, block in enumerate(self.vit.blocks):
                block.norm2.register_forward_pre_hook(lambda module, inputs: setattr(module, "stream", inputs[0]))
                block.mlp.register_forward_hook(self.beside(index))

    def beside(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            own = {name: value for name, value in zip(self.names, self.added, strict=True)}
            stream = self.vit.blocks[index].norm2.stream
            low = torch.relu(F.linear(stream, own[f"{index}.down.weight"], own[f"{index}.down.bias"]))
            return output + 0.1 * F.linear(low, own[f"{index}.up.weight"], own[f"{index}.up.bias"])

        return hook

    def features(self, images: Tensor) -> Tensor:
        vit = self.vit
        if self.kind in ("finetune", "adapter"):
            found: Tensor = vit(images)
            return found
        tokens = vit._pos_embed(vit.patch_embed(images))
        count = tokens.shape[1]
        for index, block in enumerate(vit.blocks):
            if index < len(self.added[0]):
                own = self.added[0][index].expand(len(images), -1, -1)
                tokens = torch.cat([tokens[:, :count], own], dim=1)
            tokens = block(tokens)
        return vit.norm(tokens)[:, 0]

    def train_first_session(self, some: list[Batch], epochs: int) -> None:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=0.0)
        for _ in range(epochs):
            for batch in some:
                cosines = F.normalize(self.features(batch.images), dim=1) @ F.normalize(self.rows, dim=1).T
                optimizer.zero_grad()
                F.cross_entropy(self.scale * cosines, batch.labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()


@pytest.mark.parametrize("kind", ["adapter", "finetune", "vpt-shallow", "vpt-deep"])
def test_aper_equals_a_restatement_of_the_text(kind: str) -> None:
    dtype = torch.float64
    method = make(aper, dtype, adaptation=kind)
    first, second = batches(0, dtype), batches(1, dtype)
    frozen = copy.deepcopy(method.backbone)
    method.begin_experience(view_of(method, SCENARIO, 0))
    restated = Restated(method, method.backbone)
    rows = restated.rows.detach().clone()
    restated.train_first_session(first, 3)
    torch.manual_seed(0)
    assert method.head is not None
    method.head.weight.data[:] = rows
    run(method, 0, first)
    run(method, 1, second)

    def features(images: Tensor) -> Tensor:
        return torch.cat([frozen(images), restated.features(images)], dim=1)

    with torch.no_grad():
        everything = [(features(batch.images), batch.labels) for batch in [*first, *second]]
        rows, labels = (torch.cat(parts) for parts in zip(*everything, strict=True))
        means = torch.stack([rows[labels == label].mean(0) for label in range(6)])
        tests = PIPELINE.eval(SCENARIO.experiences[0].test.images(slice(None))).to(dtype)
        wanted = F.cosine_similarity(features(tests).unsqueeze(1), means.unsqueeze(0), dim=2)
        torch.testing.assert_close(method.tuned(tests), restated.features(tests), atol=1e-9, rtol=0)
        torch.testing.assert_close(method.predict(tests), wanted, atol=1e-9, rtol=0)
        assert not torch.allclose(method.tuned(tests), frozen(tests), atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(method.backbone.parameters(), frozen.parameters(), strict=True))


def test_tuned_only_leaves_the_frozen_half_out() -> None:
    method = make(aper, torch.float32, branches="tuned")
    run(method, 0, batches(0, torch.float32))
    images = batches(0, torch.float32)[0].images
    assert torch.equal(method.features(images), method.tuned(images))
    assert method.predict(images).shape == (5, 3)


@pytest.mark.parametrize("kind", ["none", "adapter", "ssf"])
def test_ranpac_solves_for_the_features_of_all_images_in_the_test_transform(kind: str) -> None:
    dtype = torch.float64
    method = make(ranpac, dtype, adaptation=kind, projection=40)
    parts = [batches(task, dtype) for task in range(2)]
    for task, some in enumerate(parts):
        run(method, task, some)
    assert isinstance(method, ranpac.RanPAC)
    with torch.no_grad():
        hidden = torch.cat([torch.relu(method.tuned(b.images) @ method.ridge.matrix) for b in [*parts[0], *parts[1]]])
    targets = F.one_hot(torch.cat([b.labels for b in [*parts[0], *parts[1]]]), 6).to(dtype)
    shifted = hidden.T @ hidden + float(method.ridge.ridge) * torch.eye(40, dtype=dtype)
    weight = torch.linalg.solve(shifted, hidden.T @ targets)
    images = parts[0][0].images
    with torch.no_grad():
        wanted = torch.relu(method.tuned(images) @ method.ridge.matrix) @ weight
        torch.testing.assert_close(method.predict(images), wanted, atol=1e-7, rtol=1e-7)


def test_dropout_of_the_adapter_is_off_while_features_are_collected() -> None:
    method = make(ranpac, torch.float32, adapter_dropout=0.5, projection=0)
    some = batches(0, torch.float32)
    view = view_of(method, SCENARIO, 0)
    method.train()
    method.begin_experience(view)
    for step in range(3 * len(some)):
        method.train_step(at(some[step % len(some)], step, each=len(some), epochs=4))
    assert method.train_step(at(some[0], 3 * len(some), each=len(some), epochs=4)) == {"loss": 0.0}
    assert method.training
    method.eval()
    with torch.no_grad():
        assert torch.equal(method._features[0], method.features(some[0].images))


def test_only_the_first_experience_trains_and_the_record_says_so() -> None:
    subject = checks.method_subject("ranpac")
    run = subject.run(subject.scenario(experiences=2))
    cost = run.record["cost"]
    adapters, head = 2 * (2 * 32 * 8 + 8 + 32), 2 * 32 + 1
    assert cost["params_trainable_per_experience"] == [adapters + head, 0]
    assert cost["params_added"] == adapters
    assert [len(passes) for passes in run.record["losses"]] == [3, 1]
    assert run.record["losses"][1] == [{"loss": 0.0}]
    # R and the weight; sums in float64: (64, 64) and (64, C).
    kept = [4 * (adapters + 32 * 64) + 8 * (64 * 64 + 2 * 64 * classes + 1) for classes in (2, 4)]
    assert cost["storage_bytes"] == kept


def test_bad_values() -> None:
    for options, message in (
        ({"bottleneck": 0}, "bottleneck: 0 is too small"),
        ({"prompts": 0}, "prompts: 0 is too small"),
        ({"lr": 0.0}, "lr: 0.0 is not positive"),
        ({"momentum": 1.0}, "momentum: 1.0 is out of range"),
        ({"adapter_dropout": -0.1}, "adapter_dropout: -0.1 is out of range"),
        ({"weight_decay": -1.0}, "weight_decay: -1.0 is negative"),
        ({"adapter_scale": -1.0}, "adapter_scale: -1.0 is negative"),
    ):
        with pytest.raises(ValueError, match=message):
            FirstSessionConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="projection: -1 is negative"):
        ranpac.RanPACConfig(projection=-1)
    with pytest.raises(ValueError, match="none makes it nearest-mean"):
        aper.APERConfig(adaptation="none")
