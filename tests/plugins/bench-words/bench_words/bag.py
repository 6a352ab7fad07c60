"""bag-of-words: a linear classifier on counts of hashed words; it has no pretrained model."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.api import Batch, Context, ExperienceView, LearnerConfig, Method, Text
from benchmark.backbones.heads import ClassHead


@dataclass(frozen=True, kw_only=True, slots=True)
class BagConfig(LearnerConfig):
    """Options.

    Attributes:
        width: Number of buckets that words are hashed into.
        lr: Learning rate at the start of an experience; it falls to 0.
    """

    epochs: int = 5
    batch_size: int = 8
    width: int = 256
    lr: float = 5.0

    def __post_init__(self) -> None:
        LearnerConfig.__post_init__(self)
        if self.width < 1:
            raise ValueError(f"width: {self.width} is too small; use 1 or more")


def tokenize(text: str, width: int) -> list[int]:
    """Buckets of the words, the same on every machine."""
    return [zlib.crc32(word.encode()) % width for word in text.lower().split()]


class BagOfWords(Method):
    """A growing head on the shares of words."""

    config: BagConfig

    def __init__(self, config: BagConfig, context: Context) -> None:
        super().__init__(config, context)
        self.head = ClassHead(config.width)
        self.to(context.device)

    def features(self, texts: Sequence[Text]) -> Tensor:
        """Shares of the buckets, ``(B, width)``, over all fields of an example."""
        rows = torch.zeros(len(texts), self.config.width)
        for row, text in zip(rows, texts, strict=True):
            for token in tokenize(" ".join(text.values()), self.config.width):
                row[token] += 1.0
        return F.normalize(rows, p=1.0, dim=1).to(self.context.device, non_blocking=True)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Adds rows for new classes; a fresh optimiser."""
        self.head.grow(experience.seen)
        self.optimizer = torch.optim.SGD([{"params": list(self.head.parameters()), "base_lr": self.config.lr}], lr=0.1)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of cross-entropy, at a rate that falls to 0 within the experience."""
        loss = F.cross_entropy(self.head(self.features(batch.texts)), batch.labels)
        self.descend(loss, factor=1 - batch.place.step / batch.place.steps)
        return {"loss": loss.detach()}

    def predict(self, texts: Sequence[Text]) -> Tensor:
        """Logits of the classes seen, ``(B, C)``."""
        logits: Tensor = self.head(self.features(texts))
        return logits


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``bag-of-words``."""
    return [
        MethodSpec(
            name="bag-of-words",
            build=BagOfWords,
            config=BagConfig,
            summary="a linear classifier on counts of words",
            uses=frozenset({"boundaries"}),
            reads="text",
            pretrained=False,
            recipes={"slow": {"lr": 0.05}},
        )
    ]
