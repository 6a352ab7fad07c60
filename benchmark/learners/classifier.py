"""A growing linear head on one feature vector per image, trained by cross-entropy.

`Classifier` is a whole method; one of your own overrides what differs, e.g. `Classifier.features`, and adds its
parameters before or behind the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Place
from benchmark.backbones.heads import ClassHead, HeadInit, MLPHead, mask_logits
from benchmark.backbones.prompted_vit import check_promptable, cls_feature, freeze
from benchmark.config import Range
from benchmark.learners.prompting import late_cosine
from benchmark.optimizers import Kind, protocol_optimizer, warmup_cosine

Optimizer = Literal["sgd", "adam", "adamw", "vpt-sgd", "vpt-adamw"]
Schedule = Literal["constant", "cosine", "epoch-cosine", "late-cosine"]
Scaling = Literal["batch/256", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(MethodConfig):
    """Options of a linear head trained by gradient descent.

    Attributes:
        lr: Learning rate of the head at the start of each experience.
        lr_scaling: ``batch/256`` multiplies `lr` by ``batch_size / 256`` (`effective_lr`).
        optimizer: Made anew for each experience. ``vpt-sgd`` and ``vpt-adamw`` are those of KMnP/vpt
            (`benchmark.optimizers.protocol_optimizer`): AdamW in an early form, decay by parameter name.
        momentum: Of ``sgd`` and ``vpt-sgd``.
        weight_decay: As the optimiser understands it.
        official_quirks: ``vpt-adamw`` as released: it decays by 0.01 whatever `weight_decay` says, weights of
            norms too, and with `weight_decay` 0 it is SGD with momentum.
        schedule: Learning rate within an experience: ``constant``; ``cosine`` to 0, per step;
            ``epoch-cosine``, per epoch after `warmup`; or ``late-cosine``, per epoch and one epoch late
            (`benchmark.learners.prompting.late_cosine`).
        warmup: Epochs in which ``epoch-cosine`` rises; the first of them has learning rate 0. A warm-up that
            is longer than `epochs` never ends.
        mask: Classes that compete in the training loss: ``none`` lets all classes seen compete,
            ``current`` only those of the experience (without effect in domain-incremental streams).
        head_init: How rows of new classes are drawn (`benchmark.backbones.heads.ClassHead`).
    """

    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.3))] = 0.01
    lr_scaling: Scaling = "none"
    optimizer: Optimizer = "sgd"
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.0
    official_quirks: bool = False
    schedule: Schedule = "constant"
    warmup: Annotated[int, Range(min=0)] = 0
    mask: Literal["none", "current"] = "none"
    head_init: HeadInit = "trunc_normal"

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.warmup and self.schedule != "epoch-cosine":
            raise ValueError(f"warmup: {self.warmup} has no effect with schedule `{self.schedule}`; use `epoch-cosine`")
        if self.official_quirks and self.optimizer != "vpt-adamw":
            raise ValueError(f"official_quirks: no effect with optimizer `{self.optimizer}`; use `vpt-adamw`")

    @property
    def effective_lr(self) -> float:
        """Learning rate of the head that the optimiser gets."""
        return self.lr * self.batch_size / 256 if self.lr_scaling == "batch/256" else self.lr


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
    last_bias = "head.bias"  # part of the name of the head's last bias

    def __init__(self, config: ClassifierConfig, context: Context, *, backbone_lr_scale: float = 0.0) -> None:
        super().__init__(config, context)
        self.backbone = context.backbone.model
        check_promptable(self.backbone)
        self.backbone_lr_scale = backbone_lr_scale
        if backbone_lr_scale > 0:
            self.backbone.requires_grad_(True)
        else:
            freeze(self.backbone)
        self.head = self.make_head()
        self.to(context.device)
        self._allowed: Sequence[int] | None = None

    def make_head(self) -> ClassHead | MLPHead:
        """The head, without rows."""
        return ClassHead(self.context.backbone.width, init=self.config.head_init)

    @property
    def frozen(self) -> bool:
        """Unless the whole backbone trains."""
        return self.backbone_lr_scale == 0

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes and makes the optimiser."""
        config = self.config
        self.head.grow(experience.seen)
        masked = config.mask == "current" and not self.context.family.domains
        self._allowed = experience.classes if masked else None
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of an experience; each of its groups has a ``base_lr``."""
        config = self.config
        if config.optimizer in ("vpt-sgd", "vpt-adamw"):
            kind: Kind = "sgd" if config.optimizer == "vpt-sgd" else "adamw"
            return protocol_optimizer(
                self.named_parameters(),
                kind=kind,
                lr=config.effective_lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                last_bias=self.last_bias,
                quirks=config.official_quirks,
                rate=self.rate,
            )
        groups = self.groups()
        if config.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=config.effective_lr, momentum=config.momentum, weight_decay=config.weight_decay
            )
        plain = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return plain(groups, lr=config.effective_lr, weight_decay=config.weight_decay)

    def rate(self, name: str) -> float:
        """Learning rate of a parameter relative to the head's; ``vpt-sgd`` and ``vpt-adamw`` ask for it."""
        return self.backbone_lr_scale or 1.0 if name.startswith("backbone.") else 1.0

    def groups(self) -> list[dict[str, Any]]:
        """Groups of the other optimisers, each with its ``base_lr``: head, what a subclass added, backbone."""
        lr = self.config.effective_lr
        backbone, head = (list(module.parameters()) for module in (self.backbone, self.head))
        known = {id(parameter) for parameter in (*backbone, *head)}
        added = [parameter for parameter in self.parameters() if id(parameter) not in known]
        sizes = ((head, lr), (added, lr), (backbone, lr * (self.backbone_lr_scale or 1.0)))
        groups = [{"params": [p for p in some if p.requires_grad], "base_lr": rate} for some, rate in sizes]
        return [group for group in groups if group["params"]]

    def factor(self, place: Place) -> float:
        """Where the schedule is: factor of all learning rates in a step."""
        config = self.config
        if config.schedule == "epoch-cosine":
            return warmup_cosine(place.epoch, warmup=config.warmup, epochs=config.epochs)
        if config.schedule == "late-cosine":
            return late_cosine(place.epoch, config.epochs)
        progress = place.step / place.steps
        return 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1.0

    def features(self, images: Tensor) -> Tensor:
        """The head's input ``(B, D)`` for normalised images: the class token."""
        return cls_feature(self.backbone, images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` for normalised images."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent."""
        loss = F.cross_entropy(mask_logits(self.logits(batch.images), self._allowed), batch.labels)
        self.descend(loss, factor=self.factor(batch.place))
        return {"loss": loss.detach()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits of all classes seen, ``(B, C)``."""
        return self.logits(images)
