"""Characters in three drawing styles, tested in the fourth: domain generalisation, leave one out, no download.

Source: `bench_scenarios.glyph_world`, its 60 Latin, Greek and Cyrillic letters. A variant names the style
that is held out; the method sees labelled images of the other three and is told which is which, if it
declares so, and never sees the held-out style, not even its name. What it keeps of the sources is measured on other
images of the three styles. The images are the same for every seed. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _glyphs
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphsDgConfig(_glyphs.GlyphConfig):
    """Options of ``glyphs-dg``.

    Attributes:
        held_out: The style that is never trained: ``ink``, ``chalk``, ``outline`` or ``photo``.
        train: Training images per class and style (three styles).
        test: Test images per class of the style held out, and per class and source style.
    """

    held_out: str = "photo"
    train: Annotated[int, Range(min=1, max=10_000)] = 8

    def __post_init__(self) -> None:
        """Checks the style and that there are images."""
        _glyphs.GlyphConfig.__post_init__(self)
        if self.held_out not in _glyphs.STYLES:
            raise ValueError(f"held_out: {self.held_out!r} is not a style; use one of {', '.join(_glyphs.STYLES)}")


def build(config: GlyphsDgConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; it does not depend on the seed."""
    characters = _glyphs.choose(config.characters)
    sources = tuple(style for style in _glyphs.STYLES if style != config.held_out)
    held_out = _glyphs.draw(characters, [config.held_out], config.test, _glyphs.TEST, request.cache)
    rest = _glyphs.draw(characters, sources, config.test, _glyphs.TEST, request.cache)
    experience = Experience(
        train=_glyphs.draw(characters, sources, config.train, _glyphs.TRAIN, request.cache),
        test=_glyphs.one_domain(held_out),
        classes=tuple(range(len(characters))),
        domain=config.held_out,
        sources=sources,
    )
    tests = (TestSet(name="source", images=_glyphs.one_domain(rest)),)
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
    name="glyphs-dg",
    build=build,
    config=GlyphsDgConfig,
    summary="60 letters in three styles, tested in the fourth; leave one out; bundled",
    family="dg",
    tracks={"nano": "glyph32-v2"},
    variant="held_out",
    variants=_glyphs.STYLES,
    source=_glyphs.SOURCE,
    licence=_glyphs.LICENCE,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``glyphs-dg``."""
    return [SPEC]
