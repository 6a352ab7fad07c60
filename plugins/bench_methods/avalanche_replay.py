"""Experience replay: stored images of past experiences join every batch.

Official code: ContinualAI/avalanche 0.6.0, ``avalanche/training/plugins/replay.py`` with its default
memory (``ExperienceBalancedBuffer``: reservoir samples, equally many per experience).

Differences from Avalanche's ``Replay``: none; replayed images are augmented like new ones. Each step
sees ``batch_size`` new and as many stored images, so it costs twice a step of `avalanche-naive`.
Three experiences equal the formula written out (tests/unit/methods/test_avalanche_restated.py).
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
class ReplayConfig(AvalancheConfig):
    """Options of experience replay.

    Attributes:
        memory: Images kept, in all.
    """

    memory: Annotated[int, Range(min=1)] = 500


class AvalancheReplay(AvalancheMethod):
    """Naive training with a replay plugin."""

    config: ReplayConfig

    def strategy(self, model: Any, optimizer: Any, **common: Any) -> Any:
        """A plain strategy with ``ReplayPlugin``."""
        from avalanche.training.plugins import ReplayPlugin
        from avalanche.training.templates import SupervisedTemplate

        replay = ReplayPlugin(mem_size=self.config.memory)
        return SupervisedTemplate(model=model, optimizer=optimizer, plugins=[replay], **common)

    def remember(self, strategy: Any) -> Mapping[str, Any]:
        """The stored images."""
        return pack_groups(strategy.plugins[0].storage_policy)

    def recall(self, strategy: Any, kept: Mapping[str, Any]) -> None:
        """Fills the memory again."""
        policy = strategy.plugins[0].storage_policy
        unpack_groups(policy, kept)
        policy._num_exps = len(policy.buffer_groups)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``avalanche-replay``."""
    return [
        MethodSpec(
            name="avalanche-replay",
            build=AvalancheReplay,
            config=ReplayConfig,
            summary="experience replay with Avalanche's plugin",
            uses=frozenset({"boundaries", "memory"}),
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.01},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.003},
            },
            rule="results/search.py: best on held-out training images",
            sources={"memory": "adaptbench: 5 images per class in the end where there are 100 classes"},
            reference="ContinualAI/avalanche@0.6.0",
        )
    ]
