"""60 characters from 1 to 16 labelled images each: few-shot transfer, no download.

Source: `bench_scenarios.glyph_world`, its 60 Latin, Greek and Cyrillic letters, all four drawing styles mixed.
A variant is the number of training images per class: 1, 2, 4, 8 or 16, drawn from a pool of 40 by the published
rule (`bench_scenarios._shots`, KaiyangZhou/CoOp) with the run's class-order seed; the test set is the same
for all. Up to four further images per class are there for model selection. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _glyphs, _shots
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphsFewShotConfig(_glyphs.GlyphConfig):
    """Options of ``glyphs-few-shot``.

    Attributes:
        shots: Training images per class.
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


def build(config: GlyphsFewShotConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images."""
    characters = _glyphs.choose(config.characters)

    def draw(count: int, split: int) -> Samples:
        return _glyphs.one_domain(_glyphs.draw(characters, _glyphs.STYLES, count, split, request.cache))

    pool, spare = draw(config.train, _glyphs.TRAIN), draw(config.train, _glyphs.VALIDATION)
    train, validation = _shots.sample(pool, spare, config.shots, request.seed)
    experience = Experience(
        train=train,
        test=draw(config.test, _glyphs.TEST),
        classes=tuple(range(len(characters))),
        validation=validation,
    )
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        content=_glyphs.content(),
        class_names=_glyphs.names_of(characters),
        class_order=tuple(characters),
        notes={"layout": "rendered"},
    )


SPEC = ScenarioSpec(
    name="glyphs-few-shot",
    build=build,
    config=GlyphsFewShotConfig,
    summary="60 letters in four styles from 1, 2, 4, 8 or 16 images each; bundled",
    family="few-shot",
    tracks={"nano": "glyph32-v2"},
    variant="shots",
    variants=tuple(map(str, _shots.SHOTS)),
    source=_glyphs.SOURCE,
    licence=_glyphs.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``glyphs-few-shot``."""
    return [SPEC]
