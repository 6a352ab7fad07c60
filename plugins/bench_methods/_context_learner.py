"""What the methods with a learned context share: vectors in front of (or around) class names.

Private: a method outside this package builds on `benchmark.learners.named` and `benchmark.backbones.text_prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from benchmark.api import Context, ExperienceView, FeatureConfig, FeatureMethod
from benchmark.backbones.dual import check_text_prompts
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
from benchmark.learners.named import NamedLearner, NamedOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextConfig(FeatureConfig, NamedOptions):
    """Options of learned contexts.

    Attributes:
        vectors: M, context vectors in front of (or around) a class name.
        words: Start from these words, e.g. ``a photo of a``, instead of random numbers; M is their number.
    """

    epochs: int = 200
    batch_size: int = 32
    vectors: Annotated[int, Range(min=1)] = 16
    words: str = ""

    def __post_init__(self) -> None:
        FeatureConfig.__post_init__(self)
        count = len(self.words.replace("_", " ").split())
        if self.words and self.vectors != count:
            raise ValueError(f"vectors: {self.vectors} differs from the {count} words of `words`; use {count}")


class ContextLearner(NamedLearner, FeatureMethod):
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
        check_text_prompts(self.dual)
        self.position = position
        if per_class:  # drawn when classes come
            self.lead, start = blank_words(config.vectors), torch.empty(0, config.vectors, self.dual.text_width)
        else:
            self.lead, start = self.first_context()
        self.ctx = ContextVectors(start)
        self.bank = PromptBank(self.prompts_of)

    def first_context(self) -> tuple[str, Tensor]:
        """Placeholder words and first values of shared vectors (`benchmark.backbones.text_prompts.first_context`)."""
        return first_context(self.dual, vectors=self.config.vectors, words=self.config.words)

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
        self.ctx.grow(len(experience.class_names))
        super().begin_experience(experience)

    def training_prompts(self) -> TextPrompts:
        """The texts of the classes that compete in the loss."""
        return self.bank.prompts(self.competing_names)

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes of any name; text features are kept."""
        return self.dual.logits(self.encode(images), self.bank.features(names, self.ctx.vectors))
