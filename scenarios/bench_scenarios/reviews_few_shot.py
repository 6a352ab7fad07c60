"""Reviews of one thing from 10, 32 or 100 labels and a thousand texts without: few-shot transfer of text, no download.

Source: `bench_scenarios.language_world`. A variant is the number of labelled texts in all, half of each label, drawn
from 2,000 with the run's class-order seed (`benchmark.splits.few_shot`). Beside them are unlabelled texts of the same
domain (``Experience.target``), which pattern-exploiting training and other semi-supervised methods read, and validation
texts for model selection. Unlabelled, validation and test texts are the same for every seed, and every text is drawn
for one of the sets alone. Version 1.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _language
from bench_scenarios import language_world as world
from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.config import Range, check_ranges
from benchmark.scenario import Experience, Scenario, ScenarioRequest

LABELS = (10, 32, 100)
POOL = 2_000
VALIDATION = POOL  # index of the first
UNLABELLED = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewsFewShotConfig:
    """Options of ``reviews-few-shot``.

    Attributes:
        labels: Labelled texts in all, an even number; half of each label.
        domain: What is reviewed: ``restaurant``, ``book``, ``car``, ``course``, ``kettle``, or one that the bundled
            models saw verdicts on: ``film``, ``hotel``, ``phone``, ``album``, ``game``.
        unlabelled: Unlabelled texts.
        validation: Labelled texts for model selection.
        test: Test texts.
    """

    labels: Annotated[int, Range(min=2, max=POOL)] = 100
    domain: str = "restaurant"
    unlabelled: Annotated[int, Range(min=1, max=100_000)] = 1000
    validation: Annotated[int, Range(min=2, max=UNLABELLED - VALIDATION)] = 100
    test: Annotated[int, Range(min=2, max=100_000)] = 400

    def __post_init__(self) -> None:
        """Checks the domain, and that both labels have as many texts."""
        check_ranges(self)
        if self.labels % 2:
            raise ValueError(f"labels: {self.labels} is odd; both labels have as many texts, e.g. {self.labels + 1}")
        _language.check_domain("domain", self.domain, world.DOMAINS)


def build(config: ReviewsFewShotConfig, request: ScenarioRequest) -> Scenario:
    """Builds it; the seed draws the labelled texts."""
    import torch

    pool = _language.reviews(config.domain, "train", POOL)
    drawn = splits.few_shot(pool.labels, config.labels // 2, random.Random(request.seed))
    unlabelled = _language.reviews(config.domain, "train", config.unlabelled, start=UNLABELLED)
    experience = Experience(
        train=pool.subset(torch.from_numpy(drawn)).alone(),
        test=_language.reviews(config.domain, "test", config.test),
        classes=(0, 1),
        domain=config.domain,
        target=unlabelled.without_labels(),
        target_labels=unlabelled.labels,
        validation=_language.reviews(config.domain, "train", config.validation, start=VALIDATION),
    )
    return Scenario.of(
        SPEC,
        config,
        version=world.VERSION,
        experiences=(experience,),
        content=world.digest(),
        class_names=_language.SENTIMENTS,
        notes=_language.NOTES,
        wording=_language.REVIEWS,
    )


SPEC = ScenarioSpec(
    name="reviews-few-shot",
    build=build,
    config=ReviewsFewShotConfig,
    summary="praise or blame from 10, 32 or 100 labels and 1,000 unlabelled texts; bundled",
    family="few-labels",
    tracks={"nano": "", "mini": ""},
    variant="labels",
    variants=tuple(map(str, LABELS)),
    source=_language.SOURCE,
    licence=_language.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``reviews-few-shot``."""
    return [SPEC]
