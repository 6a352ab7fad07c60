"""What `coop` and `cocoop` share: context vectors in front of class names, and the optimisation of Dassl.pytorch.

Private: a method outside this package builds on `benchmark.backbones.text_prompts`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from benchmark.api import Batch, Context, ExperienceView, FeatureConfig, FeatureMethod, Place
from benchmark.backbones.dual import check_text_prompts, dual_of
from benchmark.backbones.text_prompts import (
    ContextVectors,
    Position,
    PromptBank,
    TextPrompts,
    blank_words,
    first_context,
    placeholders,
)
from benchmark.config import Range
from benchmark.optimizers import delayed_cosine

DASSL = "KaiyangZhou/Dassl.pytorch at c61a1b57, dassl/config/defaults.py; in no configuration of the method"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextConfig(FeatureConfig):
    """Options of learned contexts.

    Attributes:
        vectors: M, context vectors in front of (or around) a class name.
        words: Start from these words, e.g. ``a photo of a``, instead of random numbers; M is their number.
        lr: Learning rate of SGD at the top of its cosine.
        momentum: Of SGD.
        weight_decay: Of SGD, on the context too.
        warmup: First epochs with the constant `warmup_lr`; the cosine counts from their end, but over `epochs`.
        warmup_lr: Learning rate in these.
        mask: Classes in the training loss: those of the experience (``current``), or all seen so far (``none``).
            The same in domain-incremental streams and where there is one experience.
    """

    epochs: int = 200
    batch_size: int = 32
    vectors: Annotated[int, Range(min=1)] = 16
    words: str = ""
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 0.1))] = 0.002
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.0005
    warmup: Annotated[int, Range(min=0)] = 1
    warmup_lr: Annotated[float, Range(above=0)] = 0.00001
    mask: Literal["current", "none"] = "current"

    def __post_init__(self) -> None:
        FeatureConfig.__post_init__(self)
        count = len(self.words.replace("_", " ").split())
        if self.words and self.vectors != count:
            raise ValueError(f"vectors: {self.vectors} differs from the {count} words of `words`; use {count}")


class ContextLearner(FeatureMethod):
    """Trains a context, and what a subclass adds, on features of the frozen image tower.

    Args:
        config: Options.
        context: Backbone with a text tower.
        position: Where the class name stands.
        per_class: Whether each class has vectors of its own.
    """

    config: ContextConfig

    def __init__(
        self, config: ContextConfig, context: Context, *, position: Position = "end", per_class: bool = False
    ) -> None:
        super().__init__(config, context)
        self.dual = dual_of(context.backbone)
        check_text_prompts(self.dual)
        self.position = position
        if per_class:  # drawn when classes come
            self.lead, start = blank_words(config.vectors), torch.empty(0, config.vectors, self.dual.text_width)
        else:
            self.lead, start = first_context(self.dual, vectors=config.vectors, words=config.words)
        self.ctx = ContextVectors(start)
        self.bank = PromptBank(self.prompts_of)
        self.names: tuple[str, ...] = ()
        self.competing: tuple[int, ...] = ()

    def prompts_of(self, names: Sequence[str]) -> TextPrompts:
        """Texts of classes with places for the context."""
        return TextPrompts(
            self.dual,
            placeholders(names, self.lead),
            vectors=self.config.vectors,
            names=names,
            position=self.position,
        )

    def encode(self, images: Tensor) -> Tensor:
        """Features ``(B, d)`` of the frozen image tower, not normalised."""
        return self.dual.image_features(images)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names of the classes, adds vectors for new ones, makes a new SGD; the context goes on."""
        config = self.config
        self.names = experience.class_names
        self.ctx.grow(len(self.names))
        masked = config.mask == "current" and not self.context.family.domains
        self.competing = tuple(experience.classes) if masked else tuple(range(len(self.names)))
        self.optimizer = torch.optim.SGD(
            self.trainable(), lr=self.rate(Place()), momentum=config.momentum, weight_decay=config.weight_decay
        )

    def trainable(self) -> list[nn.Parameter]:
        """What SGD trains, in one group: everything that is not the pretrained network."""
        frozen = {id(parameter) for parameter in self.context.pretrained.module.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in frozen]

    def rate(self, place: Place) -> float:
        """Learning rate of a step; it changes from epoch to epoch."""
        config = self.config
        return delayed_cosine(
            place.epoch, lr=config.lr, period=config.epochs, warmup=config.warmup, warmup_lr=config.warmup_lr
        )

    def training_prompts(self) -> TextPrompts:
        """The texts of the classes that compete in the loss."""
        return self.bank.prompts([self.names[label] for label in self.competing])

    def places(self, labels: Tensor) -> Tensor:
        """Positions of labels ``(B,)`` among the classes that compete."""
        place = torch.full((len(self.names),), -1, dtype=torch.int64)
        place[list(self.competing)] = torch.arange(len(self.competing))
        return place.to(labels.device, non_blocking=True)[labels]

    @abc.abstractmethod
    def backward(self, features: Tensor, places: Tensor) -> Tensor:
        """Adds the gradients of the mean loss of a batch to the parameters, and returns the loss.

        Args:
            features: Image features ``(B, d)``, not normalised.
            places: Right classes among those that compete, int64 ``(B,)``.
        """

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of SGD."""
        if batch.features is None:
            raise RuntimeError("a batch without features")
        optimizer = self.active_optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.rate(batch.place)
        optimizer.zero_grad(set_to_none=True)
        loss = self.backward(batch.features, self.places(batch.labels))
        optimizer.step()
        return {"loss": loss}

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` for normalised images."""
        return self.predict_named(images, self.names)

    def extra_state(self) -> Mapping[str, Any]:
        """Names of the classes seen."""
        return {"names": list(self.names)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the names back."""
        self.names = tuple(state["names"])
