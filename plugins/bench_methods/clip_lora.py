"""CLIP-LoRA: low-rank changes of the attention in both towers of CLIP, one set of values for every data set.

Paper: Zanella, Ben Ayed. Low-Rank Few-Shot Adaptation of Vision-Language Models, CVPR 2024 workshops, arXiv 2405.18541.
Official code: MaxZanella/CLIP-LoRA at 358f0d73. Logits, losses, learning rates, gradients and three steps of AdamW
equal theirs where the masks of dropout are left out (tests/unit/methods/test_clip_towers_golden.py,
``tests/golden/newer_clip/clip_lora``). Written anew, no code taken.

``y = W x + b + gamma B A drop(x)``, ``gamma = alpha / sqrt(r)``, for queries, keys and values (``o``: also the output
projection) of some blocks; logits are 100 times cosines to one template. A is drawn, B starts at zero.

Differences from the official code:
- float32 instead of mixed half precision.
- With `dropout` 0 the official code computes gradients in which deeper layers miss the changes above them: it subtracts
  them from the weights before the backward pass. Here they are right.
- Changes are not merged into the weights for prediction, which gives the same numbers to rounding.
- The last batch is used, and in streams of experiences the classes of the experience compete.

Steps: the official 500 for each image per class, whatever the number of classes: `per_shot`, rounded up to whole
passes.
Trainable (ViT-B/16, r = 2, both towers): 184,320. The repository publishes no figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._templates import PHOTO, template_of
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, MethodConfig, Place, Transform
from benchmark.backbones.blocks import BlockAdapter
from benchmark.backbones.lora import LoRA
from benchmark.backbones.two_towers import (
    Tower,
    blocks_of,
    check_towers,
    image_features,
    text_features,
    width_of,
)
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.named import NamedLearner, TextFeatures
from benchmark.specs import MethodSpec

SCALE = 100.0  # of logits: a constant in the official code, not exp(s)
LAST_LR = 1e-6
# Shares of the blocks of a tower; loralib/utils.py has tables for 12 and 24 blocks.
POSITIONS: Mapping[str, tuple[float, float]] = {
    "all": (0, 1),
    "bottom": (0, 1 / 3),
    "mid": (1 / 3, 2 / 3),
    "up": (2 / 3, 1),
    "half-bottom": (0, 1 / 2),
    "half-up": (1 / 2, 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipLoraConfig(MethodConfig):
    """Options of CLIP-LoRA; the defaults are its only setting.

    Attributes:
        epochs: Passes over the training images, unless `per_shot` says how many.
        per_shot: Steps for each training image per class, rounded up to whole passes; it takes the place of `epochs`.
            0: `epochs`.
        template: Text of a class, ``{}`` being its name.
        rank: r.
        alpha: Scale of a change times the root of r.
        dropout: Rate on the input of a change.
        targets: Letters of ``qkvo``.
        position: Which blocks of a tower change, the first being at the bottom.
        towers: Which towers change.
        lr: Learning rate of AdamW in the beginning; it falls to 1e-6 along a cosine, step by step.
        weight_decay: Of AdamW.
        mask: Classes in the training loss: those of the experience (``current``), or all seen so far (``none``).
    """

    batch_size: int = 32
    per_shot: Annotated[int, Range(min=0)] = 500
    template: str = PHOTO
    rank: Annotated[int, Range(min=1, log=True)] = 2
    alpha: Annotated[float, Range(above=0)] = 1.0
    dropout: Annotated[float, Range(min=0, below=1)] = 0.25
    targets: str = "qkv"
    position: Literal["all", "bottom", "mid", "up", "half-bottom", "half-up", "top3"] = "all"
    towers: Literal["both", "text", "vision"] = "both"
    lr: Annotated[float, Range(above=0, log=True, search=(1e-5, 1e-2))] = 2e-4
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.01
    mask: Literal["current", "none"] = "current"

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        template_of(self.template, {})
        if not self.targets or set(self.targets) - set("qkvo"):
            raise ValueError(f"targets: {self.targets!r} is unknown; use letters of qkvo, e.g. qkv")


class ClipLora(NamedLearner):
    """The changes train; text features are constant where the text tower has none."""

    config: ClipLoraConfig

    def __init__(self, config: ClipLoraConfig, context: Context) -> None:
        super().__init__(config, context)
        check_towers(self.dual)
        towers: tuple[Tower, ...] = ("text", "vision") if config.towers == "both" else (config.towers,)
        self.changes = nn.ModuleDict({tower: self._changes(tower) for tower in towers})
        self.kept = TextFeatures(lambda names: self.dual.text_features(self._texts(names)))
        self.per_pass, self.shots = 1, 1.0
        self.to(context.device)

    def _changes(self, tower: Tower) -> nn.ModuleList:
        """One module per block; those outside `position` change nothing."""
        config, count = self.config, len(blocks_of(self.dual, tower))
        if config.position == "top3":
            low, high = max(0, count - 3), count
        else:
            low, high = (round(share * count) for share in POSITIONS[config.position])
        if low == high:
            raise UsageError(
                f"position `{config.position}` names none of the {count} blocks of the {tower} tower",
                hint="use --set method.position=all",
            )
        return nn.ModuleList(
            LoRA(
                width_of(self.dual, tower),
                rank=config.rank,
                alpha=config.alpha,
                targets=config.targets,
                stabilised=True,
                dropout=config.dropout,
            )
            if low <= index < high
            else BlockAdapter()
            for index in range(count)
        )

    def _adapters(self, tower: Tower) -> Sequence[BlockAdapter] | None:
        if tower not in self.changes:
            return None
        changes: Any = self.changes[tower]
        return list(changes)

    def _texts(self, names: Sequence[str]) -> list[str]:
        return [self.config.template.replace("{}", name.replace("_", " ")) for name in names]

    def text_features(self, names: Sequence[str]) -> Tensor:
        """Features ``(C, d)``, not normalised, of classes."""
        adapters = self._adapters("text")
        return self.kept(names) if adapters is None else text_features(self.dual, self._texts(names), adapters=adapters)

    def logits(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))``."""
        v = image_features(self.dual, images, adapters=self._adapters("vision"))
        return SCALE * F.normalize(v, dim=1) @ F.normalize(self.text_features(names), dim=1).T

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names, makes AdamW, and counts images per class."""
        count = len(experience.train)
        self.per_pass = max(1, math.ceil(count / self.config.batch_size))
        self.shots = count / max(1, len(experience.classes))
        super().begin_experience(experience)

    def passes(self) -> Sequence[Transform]:
        """``epochs`` passes, or as many as `per_shot` needs."""
        config, once = self.config, ("train",)
        needed = math.ceil(config.per_shot * self.shots / self.per_pass)
        found: tuple[Transform, ...] = once * (needed if config.per_shot else config.epochs)  # type: ignore[assignment]
        return found

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW on all changes, in one group."""
        return torch.optim.AdamW(self.trainable(), lr=self.config.lr, weight_decay=self.config.weight_decay)

    def rate(self, place: Place) -> float:
        """Learning rate of a step."""
        progress = place.step / place.steps
        return LAST_LR + 0.5 * (self.config.lr - LAST_LR) * (1 + math.cos(math.pi * progress))

    def losses(self, batch: Batch, places: Tensor) -> Mapping[str, Tensor]:
        """The cross-entropy."""
        return {"loss": F.cross_entropy(self.logits(batch.images, self.competing_names), places)}

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes of any name."""
        return self.logits(images, names)


_CODE = "MaxZanella/CLIP-LoRA at 358f0d73, run_utils.py"
# What a track changes is spelled out, so that a published recipe means the same on every track.
_PAPER: dict[str, object] = {
    "batch_size": 32,
    "augment": True,
    "per_shot": 500,
    "template": PHOTO,
    "rank": 2,
    "alpha": 1.0,
    "dropout": 0.25,
    "lr": 2e-4,
    "weight_decay": 0.01,
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``clip-lora``."""
    return [
        MethodSpec(
            name="clip-lora",
            build=ClipLora,
            config=ClipLoraConfig,
            display="CLIP-LoRA",
            summary="CLIP-LoRA: low-rank changes of the attention in both towers of CLIP",
            uses=frozenset({"boundaries", "class_names", "open_vocabulary"}),
            recipes={"official": _PAPER},
            default_recipe="few-shot",
            tracks={
                "nano": {
                    "augment": False,
                    "epochs": 3,
                    "per_shot": 0,
                    "batch_size": 16,
                    "template": "a drawing of {}.",
                    "lr": 0.01,
                },
                "mini": {"epochs": 2, "per_shot": 0, "lr": 0.001},
            },
            rule="nano, lr: results/search.py, best on held-out training images; nano and mini: a guess, smaller "
            "budgets; paper: published",
            toy={"epochs": 2, "per_shot": 1},
            sources={
                "few-shot": _CODE,
                "official": f"{_CODE}, with its budget on every track",
                "per_shot": f"{_CODE}: n_iters times shots",
                "template": f"{_CODE}: those of data sets stand inside string literals and are not read",
                "rank": _CODE,
                "alpha": f"{_CODE}; the scale is alpha / sqrt(r), loralib/layers.py",
                "dropout": _CODE,
                "targets": _CODE,
                "lr": _CODE,
                "weight_decay": f"{_CODE}, main training loop",
                "mask": "adaptbench: the paper has one experience",
            },
            paper="arXiv:2405.18541",
            reference="MaxZanella/CLIP-LoRA@358f0d73",
            text=True,
            tokens=True,
        )
    ]
