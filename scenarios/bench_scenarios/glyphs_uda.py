"""Characters in one drawing style with labels, in another without: unsupervised domain adaptation, no download.

Source: `bench_scenarios.glyph_world`, its 60 Latin, Greek and Cyrillic letters. A variant is an ordered pair
of styles such as ``ink-chalk``: labelled source images in ink, unlabelled target images in chalk, test images in chalk.
Source, target and test images are different drawings (inductive); ``transductive`` takes the target images
themselves as test images, as the protocols of Office-31 and Office-Home do. What is left of the source is measured
on test images of the source style. Several sources, ``rest-chalk``, have a table of their own. The images are the same
for every seed. Version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench_scenarios import _glyphs, _shifts
from benchmark import ScenarioSpec, hookimpl
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphsUdaConfig(_glyphs.GlyphConfig):
    """Options of ``glyphs-uda``.

    Attributes:
        pair: Source and target style: two of ``ink``, ``chalk``, ``outline``, ``photo``, joined by ``-``; several
            sources are joined by ``+``, ``rest`` stands for all styles but the target.
        transductive: Test on the unlabelled target images instead of others.
    """

    pair: str = "ink-chalk"
    transductive: bool = False

    def __post_init__(self) -> None:
        """Checks the pair and that there are images."""
        _glyphs.GlyphConfig.__post_init__(self)
        _shifts.sides(self.pair, _glyphs.STYLES)


def build(config: GlyphsUdaConfig, request: ScenarioRequest) -> Scenario:
    """Builds the pair; it does not depend on the seed."""
    characters = _glyphs.choose(config.characters)
    sources, target = _shifts.sides(config.pair, _glyphs.STYLES)

    def draw(styles: Sequence[str], count: int, split: int) -> Samples:
        drawn = _glyphs.draw(characters, styles, count, split, request.cache)
        return drawn if len(styles) > 1 else _glyphs.one_domain(drawn)

    labelled = draw([target], config.train, _glyphs.TRAIN)
    experience = Experience(
        train=draw(sources, config.train, _glyphs.TRAIN),
        test=labelled if config.transductive else draw([target], config.test, _glyphs.TEST),
        classes=tuple(range(len(characters))),
        domain=target,
        target=labelled.without_labels(),
        target_labels=None if config.transductive else labelled.labels,
        sources=sources,
    )
    tests = (TestSet(name="source", images=_glyphs.one_domain(draw(sources, config.test, _glyphs.TEST))),)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        content=_glyphs.content(),
        class_names=_glyphs.names_of(characters),
        class_order=tuple(characters),
        partition=_shifts.partition_of(sources, ""),
        notes={"layout": "rendered"},
        tests=tests,
        transductive=config.transductive,
    )


SPEC = ScenarioSpec(
    name="glyphs-uda",
    build=build,
    config=GlyphsUdaConfig,
    summary="60 letters, labelled in one style, unlabelled in another; all 12 ordered pairs; bundled",
    family="uda",
    tracks={"nano": "glyph32-v2"},
    variant="pair",
    variants=_glyphs.PAIRS,
    source=_glyphs.SOURCE,
    licence=_glyphs.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``glyphs-uda``."""
    return [SPEC]
