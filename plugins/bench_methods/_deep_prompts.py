"""What `maple` and `promptsrc` share: context vectors whose place other vectors take in later blocks.

Private: a method outside this package builds on `benchmark.backbones.two_towers` and `benchmark.learners.named`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from benchmark.api import Context, MethodConfig
from benchmark.backbones.text_prompts import PromptBank, TextPrompts, first_context, placeholders
from benchmark.backbones.two_towers import DeepPrompts, check_towers
from benchmark.config import Range
from benchmark.learners.named import NamedLearner, NamedOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepConfig(MethodConfig, NamedOptions):
    """Options of deep prompts.

    Attributes:
        vectors: n, prompts of each block of the text tower.
        words: Those of the first block start from the first n of these words, the others stay as they are; empty:
            random numbers.
        depth: J, blocks of the text tower with prompts of their own, the first among them.
    """

    batch_size: int = 4
    vectors: Annotated[int, Range(min=1)] = 2
    words: str = "a photo of a"
    depth: Annotated[int, Range(min=1)] = 9

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        count = len(self.words.replace("_", " ").split())
        if self.words and self.vectors > count:
            raise ValueError(
                f"vectors: {self.vectors} are more than the {count} words of `words`; use {count} or fewer, or no words"
            )


class DeepLearner(NamedLearner):
    """Prompts in both towers; a subclass says which the image tower has.

    Args:
        config: Options.
        context: Backbone with a ViT and a causal text transformer.
        vision: Blocks and prompts of the image tower, if it has parameters of its own.
    """

    config: Any

    def __init__(self, config: Any, context: Context, *, vision: tuple[int, int] | None) -> None:
        super().__init__(config, context)
        check_towers(self.dual)
        self.lead, start = first_context(self.dual, vectors=config.vectors, words=config.words)
        first = start[: config.vectors]
        self.prompts = DeepPrompts(self.dual, text=(config.depth, config.vectors), vision=vision, first=first)
        self.bank = PromptBank(self.prompts_of)

    def prompts_of(self, names: Sequence[str]) -> TextPrompts:
        """Texts of classes with places for the prompts."""
        return TextPrompts(self.dual, placeholders(names, self.lead), vectors=self.config.vectors, names=names)

    def training_texts(self) -> Tensor:
        """Text features ``(K, d)``, not normalised, of the classes that compete, with gradients."""
        return self.bank.prompts(self.competing_names).features(*self.prompts.for_texts())

    @abc.abstractmethod
    def image_features(self, images: Tensor) -> Tensor:
        """Features ``(B, d)``, not normalised, with gradients."""

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes of any name; text features are kept."""
        return self.dual.logits(self.image_features(images), self.bank.features(names, *self.prompts.for_texts()))
