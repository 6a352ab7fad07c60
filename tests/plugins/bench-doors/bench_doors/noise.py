"""doors-noise: coloured squares under more and more noise, and the family that such streams are of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmark import Family, ScenarioSpec, hookimpl
from benchmark.api import Experience, ImageSet, Scenario, ScenarioRequest

COLOURS = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseConfig:
    """Options."""

    train: int = 8
    test: int = 4
    levels: int = 2


def images(count: int, level: int, *, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(100 * level + seed)
    labels = torch.arange(len(COLOURS)).repeat_interleave(count)
    noise = torch.randint(0, 20 + 60 * level, (len(labels), 3, 16, 16), generator=generator, dtype=torch.uint8)
    pixels = COLOURS[labels].view(-1, 3, 1, 1) // 2 + noise
    ids = torch.arange(len(labels)) + 10_000 * (2 * level + seed)
    return ImageSet(pixels, torch.arange(len(labels)), labels, ids)


def build(config: NoiseConfig, request: ScenarioRequest) -> Scenario:
    experiences = tuple(
        Experience(
            train=images(config.train, level, seed=0),
            test=images(config.test, level, seed=1),
            classes=(0, 1, 2),
            domain=f"noise{level}",
        )
        for level in range(config.levels)
    )
    return Scenario(
        name="doors-noise", version=1, family="noise-il", experiences=experiences, class_names=("red", "green", "blue")
    )


@hookimpl
def bench_register_families() -> list[Family]:
    return [
        Family(
            name="noise-il",
            summary="the same classes under more and more noise",
            stream=True,
            domains=True,
            columns={"final_avg_acc": "Final avg. acc. (%)", "worst_domain_acc": "Loudest (%)"},
            caption="Loudest: accuracy where it is lowest.",
        )
    ]


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    return [
        ScenarioSpec(
            name="doors-noise",
            build=build,
            config=NoiseConfig,
            summary="coloured squares under noise",
            family="noise-il",
            tracks={"doors": "doors-mirror"},
        )
    ]
