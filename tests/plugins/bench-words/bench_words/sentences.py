"""toy-sentences: short sentences about four things, in a stream of two experiences with two classes each."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from benchmark import Samples, ScenarioSpec, hookimpl, splits
from benchmark.api import Scenario, ScenarioRequest, Wording

THINGS = {
    "weather": ("rain", "wind", "cloud", "storm", "sun"),
    "food": ("bread", "soup", "apple", "cheese", "salt"),
    "music": ("song", "drum", "choir", "flute", "tune"),
    "travel": ("train", "road", "ship", "ticket", "map"),
}
FRAMES = ("there was a {} and a {} today", "we talked about the {} and the {}", "a {} came before the {}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencesConfig:
    """Options.

    Attributes:
        split: Sizes of the experiences.
        class_order: ``seed``, or labels one after the other.
        train: Training sentences per class.
        test: Test sentences per class.
    """

    split: str = "2x2"
    class_order: str = "seed"
    train: int = 16
    test: int = 8


def sentences(count: int, *, seed: int) -> Samples:
    """So many sentences of every class; two seeds share none of their ids."""
    draw = random.Random(seed)
    texts = [
        {"text": draw.choice(FRAMES).format(*draw.sample(words, 2))} for words in THINGS.values() for _ in range(count)
    ]
    rows = torch.arange(len(texts))
    return Samples(texts, rows, rows // count, rows + seed * 10_000)


def build(config: SentencesConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream."""
    names = tuple(THINGS)
    order = splits.class_order(config.class_order, len(names), seed=request.seed)
    sizes = splits.sizes(config.split, len(names))
    train, test = sentences(config.train, seed=0), sentences(config.test, seed=1)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=splits.class_incremental(train, test, order, sizes),
        class_names=tuple(names[label] for label in order),
        class_order=order,
        wording=Wording(patterns=("{mask} : {text}", "{text} more about {mask}"), words={"food": ("cooking",)}),
    )


SPEC = ScenarioSpec(
    name="toy-sentences",
    build=build,
    config=SentencesConfig,
    summary="short sentences about four things",
    family="class-il",
    tracks={"nano": ""},
    variant="split",
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``toy-sentences``."""
    return [SPEC]
