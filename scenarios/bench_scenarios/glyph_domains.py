"""The same 50 characters as ink, chalk, outlines and photographs: domain-incremental, no download.

Source: `bench_scenarios.glyph_world`, every second of its 100 characters. All experiences have the
same classes; test sets are per style and no style id is given at test time. The images are the same
for every seed. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios.split_glyphs import WORLD_SEED, render
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

STYLES = ("ink", "chalk", "outline", "photo")


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphDomainsConfig:
    """Options of ``glyph-domains``.

    Attributes:
        order: The styles to go through, each at most once: ``ink``, ``chalk``, ``outline``, ``photo``.
        train: Training images per class and style.
        test: Test images per class and style.
    """

    order: tuple[str, ...] = STYLES
    train: Annotated[int, Range(min=1, max=10_000)] = 12
    test: Annotated[int, Range(min=1, max=10_000)] = 10

    def __post_init__(self) -> None:
        """Checks that the styles exist, once each, and there are images."""
        if not self.order or len(set(self.order)) != len(self.order) or not set(self.order) <= set(STYLES):
            raise ValueError(f"order: {','.join(self.order)!r} is not possible; use each of {', '.join(STYLES)} once")
        check_ranges(self)


def build(config: GlyphDomainsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; it does not depend on the seed."""
    import torch

    from bench_scenarios import glyph_world

    characters = glyph_world.domain_classes()
    domains = [glyph_world.DOMAINS.index(style) for style in config.order]
    sets = render(characters, domains, (config.train, config.test), request.cache)
    new_label = torch.full((glyph_world.CLASSES,), -1)
    new_label[torch.tensor(characters)] = torch.arange(len(characters))

    def part(images: Samples, place: int) -> Samples:
        each = len(images) // len(domains)  # rendered style by style, in this order
        rows = torch.arange(place * each, (place + 1) * each)
        return Samples(images.source, rows, new_label[images.labels[rows]], images.ids[rows])

    experiences = tuple(
        Experience(
            train=part(sets["train"], place),
            test=part(sets["test"], place),
            classes=tuple(range(len(characters))),
            domain=style,
        )
        for place, style in enumerate(config.order)
    )
    names = glyph_world.class_names()
    return Scenario.of(
        SPEC,
        config,
        version=glyph_world.VERSION,
        experiences=experiences,
        content=glyph_world.digest(WORLD_SEED),
        class_names=tuple(names[character] for character in characters),
        class_order=tuple(characters),
        notes={"layout": "rendered"},
    )


SPEC = ScenarioSpec(
    name="glyph-domains",
    build=build,
    config=GlyphDomainsConfig,
    summary="50 characters through the styles ink, chalk, outline, photo; domain-incremental; bundled",
    family="domain-il",
    tracks={"nano": "glyph32-v2"},
    source="rendered by adaptbench from DejaVu and STIX fonts",
    licence="Apache-2.0, as adaptbench",
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``glyph-domains``."""
    return [SPEC]
