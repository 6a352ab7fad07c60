"""What `slow-finetune`, `slca` and `slca++` share: a backbone that learns slowly behind a head for each experience.

Private: a method outside this package builds on `benchmark.backbones` and `benchmark.learners`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Place
from benchmark.backbones.prompted_vit import check_promptable, cls_feature
from benchmark.backbones.task_heads import TaskHeads
from benchmark.config import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowLearnerConfig(MethodConfig):
    """Options of a slow backbone behind a head for each experience.

    Attributes:
        lr: Learning rate of the head at the start of each experience.
        backbone_lr_scale: That of the backbone relative to it.
        milestones: Epochs from which all learning rates are a tenth of what they were; those behind the last epoch do
            nothing.
        momentum: Of SGD, which is made anew for each experience.
        weight_decay: On everything that trains.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: Annotated[float, Range(above=0, log=True, search=(1e-3, 0.3))] = 0.01
    backbone_lr_scale: Annotated[float, Range(above=0, log=True)] = 0.01
    milestones: Annotated[tuple[int, ...], Range(min=1)] = (18,)
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 5e-4


class SlowLearner(Method):
    """Cross-entropy over the classes of the experience alone; heads of other classes rest, without decay."""

    config: SlowLearnerConfig

    def __init__(self, config: SlowLearnerConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = context.backbone.model
        check_promptable(self.backbone)
        self.switch_on()
        self.heads = TaskHeads(context.backbone.width)
        self._columns: Tensor | None = None  # of the experience; None: all classes compete
        self._places = torch.empty(0, dtype=torch.int64)

    def switch_on(self) -> None:
        """What of the backbone trains: all of it."""
        self.backbone.requires_grad_(True)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds a head for new classes, lets those of the experience train, makes the optimiser."""
        self.heads.grow(experience.seen)
        self.to(self.context.device)
        classes = list(experience.classes)
        self._columns = None
        if not self.context.family.domains:
            places = torch.zeros(experience.seen, dtype=torch.int64)
            places[classes] = torch.arange(len(classes))
            self._places = places.to(self.context.device)
            self._columns = torch.tensor(classes, dtype=torch.int64).to(self.context.device)
        trained = self.heads.train_only(classes)
        groups = [group for group in self.groups(trained, experience) if group["params"]]
        self.optimizer = torch.optim.SGD(
            groups, lr=self.config.lr, momentum=self.config.momentum, weight_decay=self.config.weight_decay
        )

    def groups(self, heads: list[torch.nn.Parameter], experience: ExperienceView) -> list[dict[str, Any]]:
        """Parameters of the optimiser, each group with its ``base_lr``."""
        config = self.config
        slow = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        return [
            {"params": heads, "base_lr": config.lr},
            {"params": slow, "base_lr": config.lr * config.backbone_lr_scale},
        ]

    def set_rates(self, place: Place) -> None:
        """Learning rates of all groups in an epoch."""
        passed = sum(milestone <= place.epoch for milestone in self.config.milestones)
        for group in self.active_optimizer.param_groups:
            group["lr"] = group["base_lr"] * 0.1**passed

    def features(self, images: Tensor) -> Tensor:
        """Class tokens ``(B, D)`` of normalised images."""
        return cls_feature(self.backbone, images)

    def loss(self, logits: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Terms of the loss, the total under ``loss``.

        Args:
            logits: Of the classes that compete, ``(B, n)``.
            labels: Places among them, ``(B,)``.
        """
        return {"loss": F.cross_entropy(logits, labels)}

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent."""
        logits, labels = self.heads(self.features(batch.images)), batch.labels
        if self._columns is not None:
            logits, labels = logits.index_select(1, self._columns), self._places[labels]
        terms = self.loss(logits, labels)
        self.set_rates(batch.place)
        self.descend(terms["loss"])
        return {name: term.detach() for name, term in terms.items()}

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` of all heads side by side."""
        logits: Tensor = self.heads(self.features(images))
        return logits
