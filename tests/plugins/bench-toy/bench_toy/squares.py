"""toy-squares: a bright square somewhere on noise; the class is its colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.api import ImageSet, Scenario, ScenarioRequest

COLOURS = ("red", "green", "blue", "white")
VALUES = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220], [240, 240, 240]], dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class SquaresConfig:
    """Options."""

    split: str = "2x2"
    class_order: str = "seed"
    train: int = 16
    test: int = 8


def images(count: int, *, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(COLOURS)).repeat_interleave(count)
    pixels = torch.randint(0, 128, (len(labels), 3, 32, 32), generator=generator, dtype=torch.uint8)
    corners = torch.randint(0, 16, (len(labels), 2), generator=generator).tolist()
    for place, (top, left) in enumerate(corners):
        pixels[place, :, top : top + 16, left : left + 16] = VALUES[labels[place]].view(3, 1, 1)
    return ImageSet(pixels, torch.arange(len(labels)), labels, torch.arange(len(labels)) + seed * 10_000)


def build(config: SquaresConfig, request: ScenarioRequest) -> Scenario:
    order = splits.class_order(config.class_order, len(COLOURS), seed=request.seed)
    sizes = splits.sizes(config.split, len(COLOURS))
    experiences = splits.class_incremental(images(config.train, seed=0), images(config.test, seed=1), order, sizes)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=experiences,
        class_names=tuple(COLOURS[label] for label in order),
        class_order=order,
    )


SPEC = ScenarioSpec(
    name="toy-squares",
    build=build,
    config=SquaresConfig,
    summary="bright squares",
    family="class-il",
    tracks={"nano": "plain"},
    variant="split",
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    return [SPEC]
