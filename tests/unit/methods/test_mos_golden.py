"""MOS against numbers recorded from LAMDA-PILOT 5240714 (``tests/golden/mos``).

Official evaluation merges adapters once more each time; before the second one the same is done to ours by hand.
Draws and orders of alignment are part of the vectors. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench_methods.mos import MOS, MOSConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.backbones.task_modules import average
from benchmark.learners.alignment import Draws
from benchmark.testing.by_hand import at, backbone_of, begin, context_of, stream_of, view_of
from benchmark.testing.recorded import Recorded

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "mos"
PARTS = {f"{part}_proj.{kind}": f"{part}.{kind}" for part in ("down", "up") for kind in ("weight", "bias")}


class Given(Draws):
    """Recorded draws."""

    def __init__(self, noise: Tensor, orders: Tensor) -> None:
        self.noise: Iterator[Tensor] = iter(noise)
        self.orders: Iterator[Tensor] = iter(orders)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return next(self.noise).view(shape)

    def permutation(self, count: int, like: Tensor) -> Tensor:
        return next(self.orders)


class Case(Recorded):
    """A recorded case, and MOS as it was there."""

    @property
    def sizes(self) -> list[int]:
        found: list[int] = self.meta["config"]["task_sizes"]
        return found

    def method(self) -> MOS:
        raw = self.meta["config"]
        config = MOSConfig(
            epochs=raw["epochs"],
            batch_size=raw["batch"],
            lr=raw["lr"],
            weight_decay=raw["weight_decay"],
            bottleneck=raw["bottleneck"],
            adapter_dropout=0.0,
            merge=raw["adapter_momentum"],
            merging="passes",
            reg=raw["reg"],
            statistics="full" if raw["statistics"] == "covariance" else "diagonal",
            align_epochs=raw["ca_epochs"],
            align_lr=raw["ca_lr"],
            align_samples=raw["ca_samples"],
            ensemble=raw["ensemble"],
            head_rows="all",
        )
        context = context_of(SPEC, config, stream_of(self.sizes), backbone=backbone_of(self.vit()))
        method = MOS(config, context).to(self.dtype)
        with torch.no_grad():
            for name in ("weight", "bias"):
                method.head.get_parameter(name).copy_(self.tensor(f"method.head.{name}"))
            for key, parameter in self.ours(method).items():
                parameter.copy_(self.tensor(f"method.{key}"))
        return method

    def ours(self, method: MOS, *, grad: bool = False, head: bool = True) -> dict[str, Tensor]:
        """Our numbers by official names."""

        def of(module: nn.Module, name: str) -> Tensor:
            parameter = module.get_parameter(name)
            value = parameter.grad if grad else parameter
            assert value is not None
            return value

        found = {f"head.{name}": of(method.head, name) for name in ("weight", "bias")} if head else {}
        for block, adapter in enumerate(method.adapters):
            found |= {f"adapter.{block}.{theirs}": of(adapter, name) for theirs, name in PARTS.items()}
        return found

    def compare_all(self, prefix: str, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self.compare(f"{prefix}.{key}", value)


@pytest.mark.parametrize("name", ["two_tasks", "three_tasks_variance"])
def test_tasks_equal_the_official_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(GOLDEN, name, torch.float64)
    method, epochs = case.method(), case.meta["config"]["epochs"]
    scenario, depth = stream_of(case.sizes), case.meta["config"]["vit"]["depth"]
    losses: list[Tensor] = []
    align = method.align
    monkeypatch.setattr(method, "align", lambda: losses.extend(align()))
    moved: list[nn.ModuleList] = []
    seen = 0
    for task, size in enumerate(case.sizes):
        stem, seen = f"task{task}", seen + size
        begin(method, scenario, task)
        batch = Batch(case.tensor(f"input.{stem}.images"), case.tensor(f"input.{stem}.labels"))
        terms, rates = [], []
        for epoch in range(epochs):
            terms.append(method.train_step(at(batch, epoch, epochs=epochs + 1)))
            rates.append([group["lr"] for group in method.active_optimizer.param_groups])
            if epoch == 0:
                case.compare_all(f"{stem}.grad", case.ours(method, grad=True))
        case.compare(f"{stem}.steps.loss_orth", torch.stack([torch.as_tensor(one["loss_apart"]) for one in terms]))
        case.compare(f"{stem}.steps.loss_total", torch.stack([torch.as_tensor(one["loss"]) for one in terms]))
        case.compare(f"{stem}.lrs", torch.tensor(rates, dtype=torch.float64))
        case.compare_all(f"{stem}.after", case.ours(method))
        for label in range(seen - size, seen):
            images = case.tensor(f"input.class{label}.images")
            method.train_step(at(Batch(images, torch.full((len(images),), label)), epochs, epochs=epochs + 1))
        case.compare_all(f"{stem}.after_statistics", case.ours(method, head=False))
        if task:
            method.draws = Given(case.tensor(f"input.{stem}.ca_eps"), case.tensor(f"input.{stem}.ca_perm"))
        losses.clear()
        method.end_experience(view_of(method, scenario, task))
        case.compare(f"{stem}.class_means", method.gaussians.means)
        case.compare(f"{stem}.class_covs", method.gaussians.covariances(ridge=1e-4))
        if task:
            case.compare(f"{stem}.ca.loss", torch.stack(losses))
            case.compare_all(f"{stem}.after_ca.head", {n: method.head.get_parameter(n) for n in ("weight", "bias")})
        case.compare(f"{stem}.prototypes", method.prototypes.means)
        shown = case.tensor("input.eval_images")
        method.eval()
        with torch.no_grad():
            case.compare(f"{stem}.eval.prototype_logits", method.prototypes(method.features(shown)[:, 0]))
            moved.append(copy.deepcopy(method.sets[task]))
            for turn in ("eval0", "eval1"):
                if task > 1 or turn == "eval1":  # else none has moved yet
                    method._shown = merged(method, moved, method._before)
                scores = method.predict(shown)
                case.compare(f"{stem}.{turn}.scores", scores.exp())
                case.compare(f"{stem}.{turn}.predictions", scores.argmax(dim=1))
                moved = merged(method, moved, [depth] * depth)
    case.report()


def merged(method: MOS, moved: list[nn.ModuleList], times: list[int]) -> list[nn.ModuleList]:
    """Copies of what official evaluation made of the adapters, merged so often with the means of what was kept."""
    copies = [copy.deepcopy(one) for one in moved]
    for task, one in enumerate(copies[1:], start=1):
        method.merge(one, average(list(method.sets)[:task]), times)
    return copies
