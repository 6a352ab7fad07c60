"""Trained on the letters of one script, tested on those of others by their names alone: cross-dataset, no download.

Source: `bench_scenarios.glyph_world`: 26 Latin letters with diacritics, 15 Greek and 19 Cyrillic letters, all four
drawing styles mixed. A variant names the script that is trained, 16 images a class (drawn as in ``glyphs-few-shot``);
its own test set and those of the other two are each classified among the names of their script, as CoCoOp's transfer
from ImageNet to ten other data sets is. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from bench_scenarios import _glyphs, _shots
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet

SCRIPTS = ("latin", "greek", "cyrillic")


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphsCrossDatasetConfig:
    """Options of ``glyphs-cross-dataset``.

    Attributes:
        script: The script that is trained.
        shots: Training images per class.
        train: Images per class and style that the shots are drawn from (four styles).
        test: Test images per class and style.
    """

    script: Literal["latin", "greek", "cyrillic"] = "latin"
    shots: int = 16
    train: Annotated[int, Range(min=1, max=10_000)] = 10
    test: Annotated[int, Range(min=1, max=10_000)] = 5

    def __post_init__(self) -> None:
        """Checks that there are images enough."""
        check_ranges(self)
        _shots.check_shots(self.shots, most=self.train * len(_glyphs.STYLES))


def build(config: GlyphsCrossDatasetConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the seed draws the training images."""
    from bench_scenarios import glyph_world

    scripts = (config.script, *(script for script in SCRIPTS if script != config.script))
    groups = [glyph_world.script_classes(script.upper()) for script in scripts]
    characters = [character for group in groups for character in group]

    def draw(first: int, last: int, count: int, split: int) -> Samples:
        chosen = characters[first:last]
        found = _glyphs.draw(chosen, _glyphs.STYLES, count, split, request.cache)
        return Samples(found.source, found.rows, found.labels + first, found.ids)

    own = len(groups[0])
    pool, spare = draw(0, own, config.train, _glyphs.TRAIN), draw(0, own, config.train, _glyphs.VALIDATION)
    train, validation = _shots.sample(pool, spare, config.shots, request.seed)
    experience = Experience(
        train=train,
        test=draw(0, own, config.test, _glyphs.TEST),
        classes=tuple(range(own)),
        validation=validation,
    )
    tests, first = [], own
    for script, group in zip(scripts[1:], groups[1:], strict=True):
        last = first + len(group)
        images = draw(first, last, config.test, _glyphs.TEST)
        tests.append(TestSet(name=script, images=images, classes=tuple(range(first, last))))
        first = last
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        content=_glyphs.content(),
        class_names=_glyphs.names_of(characters),
        class_order=tuple(characters),
        notes={"layout": "rendered"},
        tests=tuple(tests),
    )


SPEC = ScenarioSpec(
    name="glyphs-cross-dataset",
    build=build,
    config=GlyphsCrossDatasetConfig,
    summary="letters of one script from 16 images each, those of two others by name alone; bundled",
    family="cross-dataset",
    tracks={"nano": "glyph32-v2"},
    variant="script",
    source=_glyphs.SOURCE,
    licence=_glyphs.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``glyphs-cross-dataset``."""
    return [SPEC]
