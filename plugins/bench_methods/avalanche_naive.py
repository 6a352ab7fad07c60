"""Avalanche's ``Naive``: plain training on each experience in turn, nothing done against forgetting.

Official code: ContinualAI/avalanche 0.6.0, ``avalanche/training/supervised/strategy_wrappers.py``.
The shortest example of `benchmark.avalanche.strategies`: everything specific is in ``strategy``.

Differences from `finetune`: the loop, the data loading and the shuffling are Avalanche's. Expected:
the same accuracy as `finetune` with the same options, up to the noise of another shuffle.
"""

from __future__ import annotations

from typing import Any

from benchmark import hookimpl
from benchmark.avalanche.strategies import AvalancheConfig, AvalancheMethod
from benchmark.specs import MethodSpec


class AvalancheNaive(AvalancheMethod):
    """Naive fine-tuning in Avalanche's loop."""

    def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
        """``Naive`` as it is."""
        from avalanche.training.supervised import Naive

        return Naive(model=model, optimizer=optimizer, **common)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``avalanche-naive``."""
    return [
        MethodSpec(
            name="avalanche-naive",
            build=AvalancheNaive,
            config=AvalancheConfig,
            summary="sequential fine-tuning in Avalanche's loop",
            uses=frozenset({"boundaries"}),
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.001},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003},
            },
            rule="results/search.py: best on held-out training images",
            reference="ContinualAI/avalanche@0.6.0",
        )
    ]
