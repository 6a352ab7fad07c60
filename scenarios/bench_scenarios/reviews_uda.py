"""Reviews of one thing with labels, of another without: unsupervised domain adaptation of text, no download.

Source: `bench_scenarios.language_world`. A variant is an ordered pair of domains such as ``hotel-restaurant``: labelled
reviews of hotels, unlabelled reviews of restaurants, test reviews of restaurants. The bundled language models saw
verdicts on the source domains (film, hotel, phone, album, game) and none on the target domains (restaurant, book, car,
course, kettle); the table has every domain once. Source, target and test texts are different ones (inductive);
``transductive`` takes the unlabelled texts themselves as test texts. What is left of the source is measured on test
reviews of the source domain. The texts are the same for every seed. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _language
from bench_scenarios import language_world as world
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet

PAIRS = ("hotel-restaurant", "film-book", "game-car", "album-course", "phone-kettle")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewsUdaConfig:
    """Options of ``reviews-uda``.

    Attributes:
        pair: Source and target domain, joined by ``-``: any two of the ten.
        train: Labelled texts of the source domain, half of each label.
        unlabelled: Unlabelled texts of the target domain.
        test: Test texts per domain.
        transductive: Test on the unlabelled texts instead of others.
    """

    pair: str = PAIRS[0]
    train: Annotated[int, Range(min=2, max=100_000)] = 300
    unlabelled: Annotated[int, Range(min=2, max=100_000)] = 1000
    test: Annotated[int, Range(min=2, max=100_000)] = 400
    transductive: bool = False

    def __post_init__(self) -> None:
        """Checks the pair and that there are texts."""
        source, _, target = self.pair.partition("-")
        if source == target or not {source, target} <= set(world.DOMAINS):
            raise ValueError(
                f"pair: {self.pair!r} is not a pair of domains; use two of {', '.join(world.DOMAINS)}, e.g. {PAIRS[0]}"
            )
        check_ranges(self)


def build(config: ReviewsUdaConfig, request: ScenarioRequest) -> Scenario:
    """Builds the pair; it does not depend on the seed."""
    source, target = config.pair.split("-")
    unlabelled = _language.reviews(target, "train", config.unlabelled)
    experience = Experience(
        train=_language.reviews(source, "train", config.train).alone(),
        test=unlabelled if config.transductive else _language.reviews(target, "test", config.test),
        classes=(0, 1),
        domain=target,
        target=unlabelled.without_labels(),
        target_labels=None if config.transductive else unlabelled.labels,
        sources=(source,),
    )
    return Scenario.of(
        SPEC,
        config,
        version=world.VERSION,
        experiences=(experience,),
        content=world.digest(),
        class_names=_language.SENTIMENTS,
        notes=_language.NOTES,
        tests=(TestSet(name="source", images=_language.reviews(source, "test", config.test)),),
        transductive=config.transductive,
        wording=_language.REVIEWS,
    )


SPEC = ScenarioSpec(
    name="reviews-uda",
    build=build,
    config=ReviewsUdaConfig,
    summary="praise or blame, labelled in reviews of one thing, unlabelled in those of another; five pairs; bundled",
    family="uda",
    tracks={"nano": "", "mini": ""},
    variant="pair",
    variants=PAIRS,
    source=_language.SOURCE,
    licence=_language.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``reviews-uda``."""
    return [SPEC]
