"""Dark experience replay ++: stored images are replayed with their labels and their former logits.

Paper: Buzzega et al., Dark Experience for General Continual Learning, NeurIPS 2020, arXiv 2004.07211.
Official code: aimagelab/mammoth (``models/derpp.py``); run here is ContinualAI/avalanche 0.6.0,
``avalanche/training/supervised/der.py`` with beta > 0.

Differences from the paper (Avalanche's): logits are stored after an experience, from images without
augmentation, instead of during training; one replay batch serves both terms; the memory is
class-balanced instead of one reservoir. The head has all C rows from the start (``num_classes`` is
declared), because logits of different times are compared; predictions are cut to the classes seen.
Loss and three experiences equal the formula written out (tests/unit/methods/test_avalanche_restated.py).
Expected: no published figure with a pretrained ViT is reproduced here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from benchmark import hookimpl
from benchmark.avalanche.strategies import AvalancheConfig, AvalancheMethod, pack_groups, unpack_groups
from benchmark.config import Range
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DerppConfig(AvalancheConfig):
    """Options of dark experience replay ++.

    Attributes:
        memory: Images kept, in all. Below ``batch_size`` nothing is replayed.
        alpha: Weight of the squared distance to the stored logits.
        beta: Weight of the cross-entropy on replayed images; 0 makes it plain DER.
    """

    memory: int = 500
    alpha: Annotated[float, Range(min=0)] = 0.1
    beta: Annotated[float, Range(min=0)] = 0.5

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ValueError: A value is out of range.
        """
        AvalancheConfig.__post_init__(self)
        if self.memory < self.batch_size:
            raise ValueError(
                f"memory: {self.memory} is less than batch_size ({self.batch_size}); nothing would be replayed, "
                f"use {self.batch_size} or more"
            )


class AvalancheDerpp(AvalancheMethod):
    """Avalanche's ``DER`` with beta."""

    full_head = True
    config: DerppConfig

    def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
        """``DER`` as it is."""
        from avalanche.training.supervised.der import DER

        config = self.config
        return DER(
            model=model, optimizer=optimizer, mem_size=config.memory, alpha=config.alpha, beta=config.beta, **common
        )

    def remember(self, strategy: Any) -> Mapping[str, Any]:
        """Stored images and logits."""
        return pack_groups(strategy.storage_policy)

    def recall(self, strategy: Any, kept: Mapping[str, Any]) -> None:
        """Fills the memory again."""
        policy = strategy.storage_policy
        unpack_groups(policy, kept)
        policy.seen_classes = set(policy.buffer_groups)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``avalanche-derpp``."""
    return [
        MethodSpec(
            name="avalanche-derpp",
            build=AvalancheDerpp,
            config=DerppConfig,
            summary="dark experience replay ++ with Avalanche's DER",
            uses=frozenset({"boundaries", "memory", "num_classes"}),
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003},
            },
            rule="results/search.py: best on held-out training images; alpha, beta: Avalanche's",
            sources={"memory": "adaptbench: 5 images per class in the end where there are 100 classes"},
            paper="arXiv:2004.07211",
            reference="ContinualAI/avalanche@0.6.0",
        )
    ]
