"""What methods share that train a light module in the first experience, if at all, and then freeze everything.

Private: a method outside this package builds on `benchmark.backbones`.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Transform
from benchmark.backbones.adapters import adapt_formers
from benchmark.backbones.blocks import BlockAdapter, check_plain_blocks, run_blocks
from benchmark.backbones.end_prompts import EndPrompts
from benchmark.backbones.heads import CosineHead
from benchmark.backbones.prompted_vit import CLS, check_promptable, cls_feature, embed, freeze
from benchmark.backbones.scale_shift import ScaleShift
from benchmark.config import Range
from benchmark.optimizers import warmup_cosine

Adaptation = Literal["none", "adapter", "ssf", "vpt-shallow", "vpt-deep", "finetune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstSessionConfig(MethodConfig):
    """Options of the first session.

    Attributes:
        epochs: Passes that train in the first experience. Each experience, the first included, then has one pass with
            the test transform, in which nothing is trained.
        adaptation: What trains: ``adapter`` (AdaptFormer), ``ssf`` (scales and shifts), ``vpt-shallow`` or
            ``vpt-deep`` (prompts at the end of the sequence), ``finetune`` (a copy of the backbone), or ``none``.
        lr: Learning rate at the start; cosine to 0 over the epochs.
        momentum: Of SGD.
        weight_decay: On everything that trains.
        bottleneck: r of the adapter.
        adapter_scale: Factor of its output.
        adapter_dropout: Rate inside it, in training.
        prompts: Tokens of ``vpt-shallow``, and per block of ``vpt-deep``.
    """

    epochs: int = 20
    batch_size: int = 48
    adaptation: Adaptation = "adapter"
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.3))] = 0.01
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0)] = 5e-4
    bottleneck: Annotated[int, Range(min=1)] = 64
    adapter_scale: Annotated[float, Range(min=0)] = 0.1
    adapter_dropout: Annotated[float, Range(min=0, below=1)] = 0.1
    prompts: Annotated[int, Range(min=1)] = 5


class FirstSession(Method):
    """Trains a module in the first experience; hands the features of each experience to `fit`.

    Args:
        config: Options.
        context: Backbone, device, family.
    """

    config: FirstSessionConfig
    tuner: nn.Module | None
    head: CosineHead | None

    def __init__(self, config: FirstSessionConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = freeze(context.backbone.model)
        check_promptable(self.backbone)
        self.tuner = self._make_tuner()
        self.head = None if self.tuner is None else CosineHead(context.backbone.width)
        self.to(context.device)
        self._adapted = self.tuner is None
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def _make_tuner(self) -> nn.Module | None:
        config, vit, width = self.config, self.backbone, self.context.backbone.width
        if config.adaptation == "none":
            return None
        if config.adaptation == "finetune":
            tuned: nn.Module = copy.deepcopy(vit).requires_grad_(True)
            return tuned
        if config.adaptation == "ssf":
            return ScaleShift(vit)
        if config.adaptation == "adapter":
            check_plain_blocks(vit)
            scale, dropout = config.adapter_scale, config.adapter_dropout
            return adapt_formers(vit.blocks, width, config.bottleneck, scale=scale, dropout=dropout)
        depth = len(vit.blocks) if config.adaptation == "vpt-deep" else 1
        return EndPrompts(width, count=config.prompts, depth=depth)

    def tuned(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)`` of the adapted model; of the frozen one where nothing is adapted."""
        vit, tuner = self.backbone, self.tuner
        if isinstance(tuner, ScaleShift):
            with tuner.inserted(vit):
                return cls_feature(vit, images)
        if isinstance(tuner, EndPrompts):
            before, keep = tuner.before(), tuner.keep()
            return run_blocks(vit, embed(vit, images), read=CLS, before=before, keep=keep)[:, 0]
        if isinstance(tuner, nn.ModuleList):
            adapters = cast("Sequence[BlockAdapter]", tuner)
            return run_blocks(vit, embed(vit, images), read=CLS, adapters=adapters)[:, 0]
        return cls_feature(vit if tuner is None else tuner, images)

    @abc.abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What is collected for `fit`, one row per image."""

    @abc.abstractmethod
    def fit(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Learns from all training images of an experience.

        Args:
            features: One row per image, in random order, test transform.
            labels: ``(n,)``.
            classes: Number of classes seen.
        """

    def begin_experience(self, experience: ExperienceView) -> None:
        """Before the first session: rows of the head, optimiser."""
        self._features, self._labels = [], []
        if self.head is None or self.tuner is None:
            return
        self.head.grow(experience.seen)
        self.optimizer = torch.optim.SGD(
            [*self.tuner.parameters(), *self.head.parameters()],
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )

    def passes(self) -> Sequence[Transform]:
        """In the first session ``epochs`` that train; then one that collects features."""
        train: tuple[Transform, ...] = () if self._adapted else ("train",)
        return (*(train * self.config.epochs), "test")

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A step of the first session, or features of a batch; there the loss is 0."""
        if batch.place.epoch < batch.place.epochs - 1:  # the last pass collects
            return self._adapt(batch)
        self.eval()
        with torch.no_grad():
            self._features.append(self.features(batch.images))
        self.train()
        self._labels.append(batch.labels)
        return {"loss": 0.0}

    def _adapt(self, batch: Batch) -> Mapping[str, Tensor | float]:
        if self.head is None:
            raise RuntimeError("the head of the first session was given up")
        for group in self.active_optimizer.param_groups:
            group["lr"] = self.config.lr * warmup_cosine(batch.place.epoch, warmup=0, epochs=self.config.epochs)
        loss = F.cross_entropy(self.head(self.tuned(batch.images)), batch.labels)
        self.descend(loss)
        return {"loss": loss.detach()}

    def end_experience(self, experience: ExperienceView) -> None:
        """Ends the first session, if it was that; learns from the collected features."""
        if not self._adapted:
            self._freeze()
        if self._features:
            self.fit(torch.cat(self._features), torch.cat(self._labels), experience.seen)
        self._features, self._labels = [], []

    def _freeze(self) -> None:
        """Everything stays as it is from now on; the head of the first session is given up."""
        self._adapted, self.head, self.optimizer = True, None, None
        if self.tuner is not None:
            self.tuner.requires_grad_(False)

    def extra_state(self) -> Mapping[str, Any]:
        """Whether the first session is over, and what was collected."""
        return {"adapted": self._adapted, "features": self._features, "labels": self._labels}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `extra_state` returned."""
        if state["adapted"]:
            self._freeze()
        for kept, name in ((self._features, "features"), (self._labels, "labels")):
            kept[:] = [tensor.to(self.context.device) for tensor in state[name]]


class StreamingSession(FirstSession):
    """Behind the first session, or from the start without one, images are learnt batch by batch and not collected."""

    @property
    def collects(self) -> bool:
        """Whether the images of this experience are to be learnt together, at its end."""
        return not self._adapted

    @abc.abstractmethod
    def absorb(self, features: Tensor, labels: Tensor) -> None:
        """Learns a batch; what comes first in it came first."""

    def settle(self) -> None:
        """Called after each experience: computes what predictions need."""

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Learns what was collected."""
        self.absorb(features, labels)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """A step of the first session, or learns a batch; there the loss is 0."""
        if self.collects:
            return super().train_step(batch)
        self.eval()
        with torch.no_grad():
            self.absorb(self.features(batch.images), batch.labels)
        self.train()
        return {"loss": 0.0}

    def features(self, images: Tensor) -> Tensor:
        """Class tokens ``(B, D)`` of the adapted model."""
        return self.tuned(images)

    def end_experience(self, experience: ExperienceView) -> None:
        """Ends the first session, if it was that."""
        super().end_experience(experience)
        self.settle()
