"""News on 20 topics in ten experiences of two: class-incremental, no download.

Source: `bench_scenarios.language_world`. A piece of news is a sentence with nouns of its topic, in a quarter of which
one noun may be of another topic; the bundled language models saw such sentences with the names of their topics. The
texts are the same for every seed; the class order follows it. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _language
from bench_scenarios import language_world as world
from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.config import Range, check_ranges
from benchmark.scenario import Scenario, ScenarioRequest

CLASSES = len(world.TOPICS)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitTopicsConfig:
    """Options of ``split-topics``.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``10x2``, ``5x4``, ``b10-inc2``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training texts per class.
        test: Test texts per class.
    """

    split: str = "10x2"
    class_order: str = "seed"
    train: Annotated[int, Range(min=1, max=10_000)] = 40
    test: Annotated[int, Range(min=1, max=10_000)] = 20

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and there are texts."""
        for field, check in (("split", splits.sizes), ("class_order", splits.class_order)):
            try:
                check(getattr(self, field), CLASSES)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from error
        check_ranges(self)


def build(config: SplitTopicsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream."""
    order = splits.class_order(config.class_order, CLASSES, seed=request.seed)
    train, test = _language.news("train", config.train), _language.news("test", config.test)
    return Scenario.of(
        SPEC,
        config,
        version=world.VERSION,
        experiences=splits.class_incremental(train, test, order, splits.sizes(config.split, CLASSES)),
        content=world.digest(),
        class_names=tuple(world.TOPICS[label] for label in order),
        class_order=order,
        notes=_language.NOTES,
        wording=_language.NEWS,
    )


SPEC = ScenarioSpec(
    name="split-topics",
    build=build,
    config=SplitTopicsConfig,
    summary="news on 20 topics, class-incremental, 10 experiences of 2 classes; bundled",
    family="class-il",
    tracks={"nano": "", "mini": ""},
    variant="split",
    source=_language.SOURCE,
    licence=_language.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-topics``."""
    return [SPEC]
