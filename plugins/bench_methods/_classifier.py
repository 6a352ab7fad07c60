"""What `finetune`, `linear-probe`, `joint` and the tuning methods share: a growing linear head on a feature.

Private: a method outside this package builds on `benchmark.backbones`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig
from benchmark.backbones.heads import ClassHead, HeadInit, mask_logits
from benchmark.backbones.prompted_vit import check_promptable, cls_feature, freeze


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(MethodConfig):
    """Options of a linear head trained by gradient descent.

    Attributes:
        lr: Learning rate of the head at the start of each experience.
        optimizer: Made anew for each experience.
        momentum: Of ``sgd``.
        weight_decay: As the optimiser understands it.
        schedule: Learning rate within an experience: ``constant``, or ``cosine`` to 0.
        mask: Classes that compete in the training loss: ``none`` lets all classes seen compete,
            ``current`` only those of the experience (without effect in domain-incremental streams).
        head_init: How rows of new classes are drawn (`benchmark.backbones.heads.ClassHead`).
    """

    lr: float = 0.01
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    mask: Literal["none", "current"] = "none"
    head_init: HeadInit = "trunc_normal"

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.lr <= 0:
            raise ValueError(f"lr: {self.lr} is not positive; use e.g. 0.01")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} is out of range; use 0 or more and less than 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay: {self.weight_decay} is negative; use 0 or more")


class Classifier(Method):
    """Cross-entropy of a growing linear head on one feature vector per image.

    A subclass adds its parameters (`requires_grad` decides what trains) and overrides `features`; the
    backbone is frozen and in eval mode unless a subclass trains it.

    Args:
        config: Options.
        context: Backbone, device, family.
        backbone_lr_scale: Learning rate of the backbone relative to the head's; 0 freezes it.
    """

    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig, context: Context, *, backbone_lr_scale: float = 0.0) -> None:
        super().__init__(config, context)
        self.backbone = context.backbone.model
        check_promptable(self.backbone)
        self.backbone_lr_scale = backbone_lr_scale
        if backbone_lr_scale > 0:
            self.backbone.requires_grad_(True)
        else:
            freeze(self.backbone)
        self.head = ClassHead(context.backbone.width, init=config.head_init)
        self.to(context.device)
        self._allowed: Sequence[int] | None = None
        self._step = 0
        self._steps = 1

    def train(self, mode: bool = True) -> Classifier:
        """Sets the mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.backbone_lr_scale == 0:
            self.backbone.eval()
        return self

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes and makes the optimiser."""
        config = self.config
        self.head.grow(experience.seen)
        masked = config.mask == "current" and self.context.family != "domain-il"
        self._allowed = experience.classes if masked else None
        self._step = 0
        self._steps = max(1, config.epochs * math.ceil(len(experience.train) / config.batch_size))
        groups = self.groups()
        if config.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
            )
        else:
            kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
            self.optimizer = kind(groups, lr=config.lr, weight_decay=config.weight_decay)

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups, each with its ``base_lr``: the head, what a subclass added, the backbone."""
        lr = self.config.lr
        backbone, head = (list(module.parameters()) for module in (self.backbone, self.head))
        known = {id(parameter) for parameter in (*backbone, *head)}
        added = [parameter for parameter in self.parameters() if id(parameter) not in known]
        sizes = ((head, lr), (added, lr), (backbone, lr * (self.backbone_lr_scale or 1.0)))
        groups = [{"params": [p for p in some if p.requires_grad], "base_lr": rate} for some, rate in sizes]
        return [group for group in groups if group["params"]]

    def features(self, images: Tensor) -> Tensor:
        """The head's input ``(B, D)`` for normalised images: the class token."""
        return cls_feature(self.backbone, images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` for normalised images."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent."""
        if self.optimizer is None:
            raise RuntimeError("train_step before begin_experience")
        progress = min(1.0, self._step / self._steps)
        factor = 0.5 * (1 + math.cos(math.pi * progress)) if self.config.schedule == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        loss = F.cross_entropy(mask_logits(self.logits(batch.images), self._allowed), batch.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._step += 1
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits of all classes seen, ``(B, C)``."""
        return self.logits(images)

    def extra_state(self) -> Mapping[str, Any]:
        """Steps done in this experience: the schedule's position."""
        return {"step": self._step}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the schedule back."""
        self._step = int(state["step"])
