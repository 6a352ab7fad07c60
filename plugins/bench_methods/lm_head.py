"""A linear head on a frozen language model: the yardstick of what its states already hold.

The model reads the fields of an example (`benchmark.learners.language.HeadLearner`); the head on its pooled state alone
trains. The same yardstick stands in most papers on prompts as "linear probe" or "head only"; no official code was
compared with, since which parameters train is all there is to it.

The states of the training texts are computed once per experience (`benchmark.api.FeatureMethod`): the model is in eval
mode, so that nothing but rounding distinguishes this from reading every batch anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.api import Batch, FeatureMethod
from benchmark.backbones.heads import mask_logits
from benchmark.learners.language import HeadConfig, HeadLearner
from benchmark.samples import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class LmHeadConfig(HeadConfig):
    """Options of the linear head."""

    epochs: int = 10
    batch_size: int = 16
    lr: float = 1e-2


class LmHead(HeadLearner, FeatureMethod):
    """The head trains on states that were computed before."""

    config: LmHeadConfig

    def encode(self, inputs: Sequence[Text], /) -> Tensor:
        """Pooled states ``(B, D)``."""
        return self.in_groups(inputs, self.states)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent."""
        logits = mask_logits(self.head(batch.features), self._allowed)
        return self.follow(F.cross_entropy(logits, batch.labels), batch.place)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lm-head``."""
    return [
        MethodSpec(
            name="lm-head",
            build=LmHead,
            config=LmHeadConfig,
            summary="linear head on a frozen language model",
            uses=frozenset({"boundaries"}),
            tracks={"nano": {"epochs": 20, "batch_size": 16, "lr": 0.01}},
            rule="results/search.py: best on held-out training texts of the first two domains of reviews-domains",
            reads="text",
            control=True,
        )
    ]
