"""100 characters in ten experiences of ten, all four drawing styles mixed: class-incremental, no download.

Source: `bench_scenarios.glyph_world`, rendered on this machine from masks in the package; no image
of a person or a product, no licence to mind. The images are the same for every seed; only the class
order may follow it. Natural order is that of the code points, so neighbouring experiences often
share a script. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.config import Range, check_ranges
from benchmark.samples import Pixels, Samples
from benchmark.scenario import Scenario, ScenarioRequest

if TYPE_CHECKING:
    from pathlib import Path


CLASSES = 100
WORLD_SEED = 0

_SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitGlyphsConfig:
    """Options of ``split-glyphs``.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``10x10``, ``20x5``, ``b50-inc10``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training images per class and style (four styles).
        test: Test images per class and style.
    """

    split: str = "10x10"
    class_order: str = "natural"
    train: Annotated[int, Range(min=1, max=10_000)] = 12
    test: Annotated[int, Range(min=1, max=10_000)] = 5

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and there are images."""
        for field, check in (("split", splits.sizes), ("class_order", splits.class_order)):
            try:
                check(getattr(self, field), CLASSES)
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from error
        check_ranges(self)


def render(classes: list[int], domains: list[int], counts: tuple[int, int], cache: Path) -> dict[str, Samples]:
    """Renders the training and the test set.

    Args:
        classes: Numbers of the characters.
        domains: Positions in `glyph_world.DOMAINS`.
        counts: Training and test images per class and style.
        cache: Folder that keeps rendered images.

    Returns:
        Sets ``train`` and ``test`` with character numbers as labels, sorted by style, then class.
        Ids tell (split, style, class, index) apart: ``((split * 4 + style) * 100 + class) * 10000 + index``.
    """
    import torch

    from bench_scenarios import glyph_world

    sets = {}
    for number, (split, count) in enumerate(zip(_SPLITS, counts, strict=True)):
        images, labels, styles = glyph_world.load(classes, count, domains, seed=WORLD_SEED, split=number, cache=cache)
        index = torch.arange(len(labels)) % count
        ids = ((number * len(glyph_world.DOMAINS) + styles) * CLASSES + labels) * 10_000 + index
        sets[split] = Samples(Pixels(images), torch.arange(len(labels)), labels, ids)
    return sets


def build(config: SplitGlyphsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; the images depend on neither seed nor machine."""
    from bench_scenarios import glyph_world

    every = list(range(len(glyph_world.DOMAINS)))
    sets = render(list(range(CLASSES)), every, (config.train, config.test), request.cache)
    order = splits.class_order(config.class_order, CLASSES, seed=request.seed)
    experiences = splits.class_incremental(sets["train"], sets["test"], order, splits.sizes(config.split, CLASSES))
    names = glyph_world.class_names()
    return Scenario.of(
        SPEC,
        config,
        version=glyph_world.VERSION,
        experiences=experiences,
        content=glyph_world.digest(WORLD_SEED),
        class_names=tuple(names[label] for label in order),
        class_order=order,
        notes={"layout": "rendered"},
    )


SPEC = ScenarioSpec(
    name="split-glyphs",
    build=build,
    config=SplitGlyphsConfig,
    summary="100 characters in four styles, class-incremental, 10 experiences of 10 classes; bundled",
    family="class-il",
    tracks={"nano": "glyph32-v2"},
    variant="split",
    source="rendered by adaptbench from DejaVu and STIX fonts",
    licence="Apache-2.0, as adaptbench",
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-glyphs``."""
    return [SPEC]
