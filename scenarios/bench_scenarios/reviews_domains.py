"""Reviews of restaurants, books, cars, courses and kettles, one after the other: domain-incremental, no download.

Source: `bench_scenarios.language_world`, its five target domains, of which the bundled language models saw reviews but
no verdicts. Whether a review praises or blames is asked in every domain. Words differ between domains; ten praise in
some and blame in others, so what was learnt last can be wrong for what came first. Test sets are per domain and no
domain is given at test time. The texts are the same for every seed. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _language
from bench_scenarios import language_world as world
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewsDomainsConfig:
    """Options of ``reviews-domains``.

    Attributes:
        order: The domains to go through, each at most once: ``restaurant``, ``book``, ``car``, ``course``, ``kettle``;
            or ``film``, ``hotel``, ``phone``, ``album``, ``game``, on which the bundled models saw verdicts.
        train: Training texts per domain, half of each label.
        test: Test texts per domain.
    """

    order: tuple[str, ...] = world.TARGET
    train: Annotated[int, Range(min=2, max=100_000)] = 300
    test: Annotated[int, Range(min=2, max=100_000)] = 400

    def __post_init__(self) -> None:
        """Checks that the domains exist, once each, and there are texts."""
        known = world.DOMAINS
        if not self.order or len(set(self.order)) != len(self.order) or not set(self.order) <= set(known):
            raise ValueError(f"order: {','.join(self.order)!r} is not possible; use each of {', '.join(known)} once")
        check_ranges(self)


def build(config: ReviewsDomainsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; it does not depend on the seed."""
    return Scenario.of(
        SPEC,
        config,
        version=world.VERSION,
        experiences=tuple(
            Experience(
                train=_language.reviews(domain, "train", config.train),
                test=_language.reviews(domain, "test", config.test),
                classes=(0, 1),
                domain=domain,
            )
            for domain in config.order
        ),
        content=world.digest(),
        class_names=_language.SENTIMENTS,
        notes=_language.NOTES,
        wording=_language.REVIEWS,
    )


SPEC = ScenarioSpec(
    name="reviews-domains",
    build=build,
    config=ReviewsDomainsConfig,
    summary="praise or blame in reviews of restaurants, books, cars, courses, kettles; domain-incremental; bundled",
    family="domain-il",
    tracks={"nano": "", "mini": ""},
    source=_language.SOURCE,
    licence=_language.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``reviews-domains``."""
    return [SPEC]
