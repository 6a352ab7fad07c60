"""Characters under one corruption after the other, met at test time alone: test-time adaptation, no download.

Source: `bench_scenarios.glyph_world`, its 60 Latin, Greek and Cyrillic letters in one style, and the common corruptions
of Hendrycks and Dietterich (`bench_scenarios._corruptions`) as far as they are computed. Training images are clean and
labelled; the stream holds other drawings, every corruption of its own ones, in the order of the benchmark
(`bench_scenarios._test_streams` has the settings). What is left of the source is measured on clean test images.

The stream has eight of the fifteen corruptions (`REPORTED`), that of ``corrupted-glyphs-10`` glass_blur and fog as well
(`TEN`): all that are made here. The three of the four extra ones that are made here (`TUNING`), on drawings of their
own, are the stream of ``bench tune``: options are never chosen on what is reported. Batches are smaller than those of
CIFAR-10-C (50 instead of 200), as there are fewer images. Version 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from bench_scenarios import _corruptions, _glyphs, _test_streams
from benchmark import ScenarioSpec, hookimpl
from benchmark.config import Range
from benchmark.derived import Derived
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

REPORTED = tuple(name for name in _corruptions.ORDER[:15] if name in _corruptions.ELEVEN)
TEN = tuple(name for name in _corruptions.ORDER[:15] if name in _corruptions.GENERATED)
TUNING = tuple(name for name in _corruptions.ORDER[15:] if name in _corruptions.GENERATED)
STREAM, TUNED = 3, 4  # splits of the world, beside those of `bench_scenarios._glyphs`
_IDS = 10**12  # of one corruption


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptedGlyphsConfig(_test_streams.StreamConfig):
    """Options of ``corrupted-glyphs`` and ``corrupted-glyphs-10``.

    Attributes:
        style: Of all images.
        train: Training images per class.
        test: Test images per class, clean.
        images: Images per class and corruption (and severity) in the stream.
    """

    style: Literal["ink", "chalk", "outline", "photo"] = "photo"
    train: Annotated[int, Range(min=1, max=10_000)] = 20
    test: Annotated[int, Range(min=1, max=10_000)] = 5
    images: Annotated[int, Range(min=1, max=10_000)] = 5


def build(reported: Sequence[str], config: CorruptedGlyphsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream of some corruptions; its order depends on the seed, its images do not."""
    characters = _glyphs.choose("alphabets")

    def draw(count: int, split: int) -> Samples:
        return _glyphs.one_domain(_glyphs.draw(characters, [config.style], count, split, request.cache))

    def corrupted(split: int, domains: Sequence[str]) -> _test_streams.Draw:
        clean = draw(config.images * len(domains), split)  # sorted by class; every domain has images of its own

        def images(name: str, severity: int) -> Samples:
            import torch

            place = torch.arange(len(clean)) % len(domains) == domains.index(name)
            own = clean.subset(place.nonzero().flatten())
            ids = own.ids + _IDS * (1 + _corruptions.ORDER.index(name))
            return Samples(_derived(own, name, severity), own.rows, own.labels, ids)

        return images

    experience = Experience(
        train=draw(config.train, _glyphs.TRAIN),
        test=draw(config.test, _glyphs.TEST),
        classes=tuple(range(len(characters))),
        domain=config.style,
    )
    return Scenario.of(
        SPECS[len(reported)],
        config,
        version=1,
        experiences=(experience,),
        content=_glyphs.content(),
        class_names=_glyphs.names_of(characters),
        class_order=tuple(characters),
        notes={"layout": "rendered"},
        test_stream=_test_streams.stream(config, reported, corrupted(STREAM, reported), seed=request.seed),
        tuning_stream=_test_streams.stream(config, TUNING, corrupted(TUNED, TUNING), seed=request.seed),
    )


def _derived(images: Samples, name: str, severity: int) -> Derived:
    """The source of images, corrupted as they are read."""
    import torch

    def change(read: Any, rows: Any) -> Any:
        pixels = read.permute(0, 2, 3, 1).contiguous().numpy()
        found = [
            _corruptions.corrupt(image, name, severity, 0, row)
            for image, row in zip(pixels, rows.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous() if found else read

    return Derived(images.source, change, f"{name} {severity}, seed 0, from 0")


def _spec(name: str, reported: Sequence[str], number: str) -> ScenarioSpec:
    return ScenarioSpec(
        name=name,
        build=functools.partial(build, reported),
        config=CorruptedGlyphsConfig,
        summary=f"60 letters, trained clean, met under {number} corruptions in unlabelled test batches; bundled",
        family="tta",
        tracks={"nano": "glyph32-v2"},
        backbones={"nano": "nano-cnn"},
        variant="setting",
        source=f"{_glyphs.SOURCE}; common corruptions of Hendrycks and Dietterich, ICLR 2019",
        licence=_glyphs.LICENCE,
    )


SPECS = {
    len(REPORTED): _spec("corrupted-glyphs", REPORTED, "eight"),
    len(TEN): _spec("corrupted-glyphs-10", TEN, "ten"),
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``corrupted-glyphs`` and ``corrupted-glyphs-10``."""
    return list(SPECS.values())
