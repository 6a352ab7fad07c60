"""InfLoRA: a low-rank change per experience, in directions that past experiences do not use.

Paper: Liang, Li. InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning, CVPR 2024, arXiv 2404.00228.
Official code: liangyanshuo/InfLoRA at e08b00e. A (up to signs of rows, which are arbitrary), losses, gradients, B,
heads, autocorrelations, the memory after each of three tasks, features and logits equal its to 1e-9 in float64
(tests/unit/methods/test_inflora_golden.py). Written anew, no code taken.

Each experience is passed once before training, for A, and once behind it, for the memory, both with training images as
they are augmented then.

Differences from the paper and the official code:
- A first experience that needs half of all directions or more: the memory then keeps the complement, as it does later.
  Official code keeps the leading directions as if they were the complement, and stops.
- The share of energy to protect grows by ``(t / T) (last - first)`` and never reaches the last value, as in the code.
- Heads are drawn as their classes come; official: all at the start. Singular values are computed in float64.
- With one epoch, where the official schedule divides by zero, the rate stays as it is.
- InfLoRA-b5 (five blocks) and the variant with classifier alignment are left out.

Trainable (ViT-B/16): 12 * 2 * 768 * 10 = 184,320 per experience, and the head; kept besides: A (92,160 per experience)
and at most 12 * 768 * 384 numbers of memory.
Expected (ViT-B/16 augreg_in21k, released logs, last / mean over tasks): CIFAR-100 in 10 tasks 86.67 / 91.33 and 86.95 /
92.07 (seeds 0, 1993), ImageNet-R in 10 tasks 74.93 / 79.79 and 75.97 / 82.35. Not yet reproduced here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, Place, Transform
from benchmark.backbones.blocks import run_blocks
from benchmark.backbones.gradient_memory import DualMemory
from benchmark.backbones.heads import HeadInit
from benchmark.backbones.lora import Branch, Branches
from benchmark.backbones.prompted_vit import CLS, embed
from benchmark.config import Range
from benchmark.learners.branches import BranchConfig, BranchLearner
from benchmark.learners.classifier import Optimizer, Schedule
from benchmark.learners.prompting import late_cosine
from benchmark.optimizers import warmup_cosine
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class InfLoRAConfig(BranchConfig):
    """Options of InfLoRA; the defaults are those of CIFAR-100.

    Attributes:
        first_share: Share of energy that the memory protects after the first experience.
        last_share: What it grows towards over the experiences.
    """

    epochs: int = 20
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.3))] = 5e-4
    optimizer: Optimizer = "adam"
    schedule: Schedule = "late-cosine"
    mask: Literal["none", "current"] = "current"
    head_init: HeadInit = "torch"
    first_share: Annotated[float, Range(min=0, max=1)] = 0.95
    last_share: Annotated[float, Range(min=0, max=1)] = 1.0


class Watching(Branches):
    """Sums up ``h h^T`` of the inputs h of its block's projections, over images and tokens."""

    def __init__(self, branches: Sequence[Branch], *, targets: str, sums: Tensor) -> None:
        super().__init__(branches, targets=targets)
        self._sums = (sums,)

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Looks, then does what its branches do."""
        rows = normed.flatten(0, 1).to(torch.float64)
        self._sums[0].addmm_(rows.T, rows)
        return super().project(normed, wanted, query, key, value)


class InfLoRA(BranchLearner):
    """B of the newest change and head train; A is designed before, from the images of the experience."""

    config: InfLoRAConfig
    targets = "kv"
    shared = True

    def __init__(self, config: InfLoRAConfig, context: Context) -> None:
        super().__init__(config, context)
        self._width = context.backbone.width
        self._total = context.num_experiences
        self.memories = [DualMemory.empty(self._width, context.device) for _ in self.backbone.blocks]
        self._start()

    def _start(self) -> None:
        blocks = len(self.backbone.blocks)
        self._sums = torch.zeros(blocks, self._width, self._width, dtype=torch.float64, device=self.context.device)
        self._rows = 0

    def open_branch(self) -> None:
        """Adds a branch whose B trains."""
        for branch in self.branches.open():
            branch.down.requires_grad_(False)

    def passes(self) -> Sequence[Transform]:
        """One for A, those that train, one for the memory."""
        train: tuple[Transform, ...] = ("train",)
        return train * (self.config.epochs + 2)

    def factor(self, place: Place) -> float:
        """Of the epochs that train."""
        epoch, config = place.epoch - 1, self.config
        if config.schedule == "late-cosine":
            return late_cosine(epoch, config.epochs)
        return warmup_cosine(epoch, warmup=config.warmup, epochs=config.epochs) if "cosine" in config.schedule else 1.0

    @property
    def coupled(self) -> str | None:
        """A and the memory are made of sums over all images."""
        return "directions are chosen for all images of an experience"

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A step of training, or a look at a batch."""
        place = batch.place
        if 0 < place.epoch <= self.config.epochs:
            return super().train_step(batch)
        self._watch(batch.images)
        if place.epoch == 0 and place.epoch_step == place.epoch_steps - 1:
            self.design()
        return {"loss": 0.0}

    @torch.no_grad()
    def _watch(self, images: Tensor) -> None:
        watching = [
            Watching(adapter.branches, targets=self.targets, sums=sums)
            for adapter, sums in zip(self.adapters, self._sums, strict=True)
        ]
        tokens = embed(self.backbone, images)
        run_blocks(self.backbone, tokens, read=CLS, adapters=watching)
        self._rows += tokens.shape[0] * tokens.shape[1]

    @torch.no_grad()
    def design(self) -> None:
        """A of the newest branch: the leading directions, among those that may change, of the inputs just seen."""
        for branch, sums, memory in zip(self.branches.current, self._sums, self.memories, strict=True):
            left, _, _ = torch.linalg.svd(memory.free(sums / self._rows))
            # The factor is the official one, whatever the width.
            branch.down.copy_(left[:, : self.config.rank].T.unsqueeze(0) / math.sqrt(3))
        self._start()

    def correlations(self) -> Tensor:
        """Mean of ``h h^T`` over the images and tokens looked at, one per block, float64 ``(L, D, D)``."""
        return self._sums / max(1, self._rows)

    def end_experience(self, experience: ExperienceView) -> None:
        """Takes the experience into the memory of every block."""
        config, done = self.config, len(self.branches) - 1
        share = config.first_share + (config.last_share - config.first_share) * done / self._total
        for memory, correlation in zip(self.memories, self.correlations(), strict=True):
            if self._rows:
                memory.update(correlation, share)
        self._start()

    def extra_state(self) -> Mapping[str, Any]:
        """The memory, and the sums of a pass that is not over."""
        return {
            "bases": [memory.basis for memory in self.memories],
            "retains": [memory.retains for memory in self.memories],
            "sums": self._sums if self._rows else None,
            "rows": self._rows,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts it back."""
        device = self.context.device
        self.memories = [
            DualMemory(basis.to(device), retains=retains)
            for basis, retains in zip(state["bases"], state["retains"], strict=True)
        ]
        self._start()
        if state["sums"] is not None:
            self._sums, self._rows = state["sums"].to(device), int(state["rows"])


_CIFAR: dict[str, object] = {"epochs": 20, "batch_size": 128, "lr": 5e-4, "rank": 10, "first_share": 0.95}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``inflora``."""
    return [
        MethodSpec(
            name="inflora",
            build=InfLoRA,
            config=InfLoRAConfig,
            summary="InfLoRA: a low-rank change per experience, in directions that past experiences do not use",
            tokens=True,
            uses=frozenset({"boundaries", "num_experiences"}),
            recipes={
                "official": _CIFAR,
                "official-imagenet-r": {**_CIFAR, "epochs": 50, "first_share": 0.98},
            },
            tracks={
                "nano": {"batch_size": 16, "epochs": 3, "lr": 0.003},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003},
            },
            rule="nano, lr and first_share: results/search.py, best on held-out training images; mini: larger steps "
            "than published, not searched",
            toy={"rank": 2},
            sources={
                "official": "liangyanshuo/InfLoRA at e08b00e, configs: CIFAR-100",
                "official-imagenet-r": "liangyanshuo/InfLoRA at e08b00e, configs: ImageNet-R, 10 tasks",
                "rank": "liangyanshuo/InfLoRA at e08b00e, configs",
                "schedule": "liangyanshuo/InfLoRA at e08b00e, utils/schedulers.py",
                "first_share": "liangyanshuo/InfLoRA at e08b00e, configs: lamb",
                "last_share": "liangyanshuo/InfLoRA at e08b00e, configs: lame",
            },
            paper="arXiv:2404.00228",
            reference="liangyanshuo/InfLoRA@e08b00e",
            published="inflora",
        )
    ]
