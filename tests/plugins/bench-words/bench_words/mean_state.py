"""mean-state: a head on the mean of the states of a language model, by a learner that brings the rest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.backbones.language import Tokens
from benchmark.learners.language import HeadConfig, HeadLearner


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanStateConfig(HeadConfig):
    """Options of the head."""

    epochs: int = 10
    batch_size: int = 8
    lr: float = 1e-2


class MeanState(HeadLearner):
    """Reads the mean over all tokens instead of the first or last one."""

    def states(self, tokens: Tokens) -> Tensor:
        """What the head reads, ``(B, D)``."""
        share = tokens.mask / tokens.mask.sum(dim=1, keepdim=True)
        return (self.language.hidden(tokens) * share.unsqueeze(-1)).sum(dim=1)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``mean-state``."""
    return [
        MethodSpec(
            name="mean-state",
            build=MeanState,
            config=MeanStateConfig,
            summary="a linear head on the mean of a frozen language model's states",
            uses=frozenset({"boundaries"}),
            reads="text",
            models=("masked", "causal"),
        )
    ]
