"""Half of 60 characters with 16 images each, the other half known by name only: base-to-new, no download.

Source: `bench_scenarios.glyph_world`, its 60 Latin, Greek and Cyrillic letters in the order of their code
points, all four drawing styles mixed. The first 30 are the base classes: 16 images each, drawn as in
``glyphs-few-shot`` (from all classes, then cut). The other 30 are new: a method is given their names at test time
and nothing else. Base images are classified among base names, new ones among new names; the figure is the harmonic mean
of the two accuracies (Zhou et al., CoCoOp, CVPR 2022). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _glyphs, _shots
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphsBaseToNewConfig(_glyphs.GlyphConfig):
    """Options of ``glyphs-base-to-new``.

    Attributes:
        shots: Training images per base class.
        train: Images per class and style that the shots are drawn from (four styles).
        test: Test images per class and style.
    """

    shots: int = 16
    train: Annotated[int, Range(min=1, max=10_000)] = 10
    test: Annotated[int, Range(min=1, max=10_000)] = 5

    def __post_init__(self) -> None:
        """Checks that there are images enough."""
        _glyphs.GlyphConfig.__post_init__(self)
        _shots.check_shots(self.shots, most=self.train * len(_glyphs.STYLES))


def build(config: GlyphsBaseToNewConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images."""
    characters = _glyphs.choose(config.characters)

    def draw(count: int, split: int) -> Samples:
        return _glyphs.one_domain(_glyphs.draw(characters, _glyphs.STYLES, count, split, request.cache))

    pool, spare = draw(config.train, _glyphs.TRAIN), draw(config.train, _glyphs.VALIDATION)
    train, validation = _shots.sample(pool, spare, config.shots, request.seed)
    test = draw(config.test, _glyphs.TEST)
    base, count = _shots.base_classes(len(characters)), len(characters)
    experience = Experience(
        train=_shots.only(train, 0, len(base)),
        test=_shots.only(test, 0, len(base)),
        classes=base,
        validation=_shots.only(validation, 0, len(base)),
    )
    new = _shots.only(test, len(base), count)
    tests = (TestSet(name="new", images=new, classes=tuple(range(len(base), count))),)
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        content=_glyphs.content(),
        class_names=_glyphs.names_of(characters),
        class_order=tuple(characters),
        notes={"layout": "rendered"},
        tests=tests,
    )


SPEC = ScenarioSpec(
    name="glyphs-base-to-new",
    build=build,
    config=GlyphsBaseToNewConfig,
    summary="30 letters from 16 images each, 30 more by their names alone; bundled",
    family="base-to-new",
    tracks={"nano": "glyph32-v2"},
    source=_glyphs.SOURCE,
    licence=_glyphs.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``glyphs-base-to-new``."""
    return [SPEC]
