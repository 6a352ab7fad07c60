"""What the glyph scenarios that transfer between styles, shots or scripts share.

Characters are chosen by the words of their names: of the 100 evaluation classes of
`bench_scenarios.glyph_world`, 60 are Latin letters with diacritics, Greek and Cyrillic letters, whose names
are made of words that a text encoder can know; the other 40 are letters of further scripts and symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from bench_scenarios.split_glyphs import CLASSES, WORLD_SEED
from benchmark.config import Range, check_ranges
from benchmark.samples import Pixels, Samples

Characters = Literal["alphabets", "half", "all"]
STYLES = ("ink", "chalk", "outline", "photo")
PAIRS = tuple(f"{source}-{target}" for source in STYLES for target in STYLES if source != target)

TRAIN, TEST, VALIDATION = 0, 1, 2  # splits of the world: no two share an image

SOURCE = "rendered by adaptbench from DejaVu and STIX fonts"
LICENCE = "Apache-2.0, as adaptbench"


@dataclass(frozen=True, kw_only=True, slots=True)
class GlyphConfig:
    """Options of the glyph scenarios that transfer.

    Attributes:
        characters: ``alphabets``: the 60 Latin, Greek and Cyrillic letters; ``half``: every second of all
            100, as in the domain-incremental scenario; ``all``.
        train: Training images per class and style.
        test: Test images per class and style.
    """

    characters: Characters = "alphabets"
    train: Annotated[int, Range(min=1, max=10_000)] = 16
    test: Annotated[int, Range(min=1, max=10_000)] = 10

    def __post_init__(self) -> None:
        """Checks that there are images."""
        check_ranges(self)


def choose(characters: Characters) -> list[int]:
    """Numbers of the characters in the world, ascending."""
    from bench_scenarios import glyph_world

    if characters == "alphabets":
        return glyph_world.script_classes("LATIN", "GREEK", "CYRILLIC")
    return glyph_world.domain_classes() if characters == "half" else list(range(CLASSES))


def names_of(characters: Sequence[int]) -> tuple[str, ...]:
    """Their Unicode names."""
    from bench_scenarios import glyph_world

    names = glyph_world.class_names()
    return tuple(names[character] for character in characters)


def draw(characters: Sequence[int], styles: Sequence[str], count: int, split: int, cache: Path) -> Samples:
    """Renders one set of images.

    Args:
        characters: Numbers of the characters; the first gets label 0.
        styles: The styles, see `STYLES`.
        count: Images per character and style.
        split: ``TRAIN``, ``TEST`` or ``VALIDATION``.
        cache: Folder that keeps rendered images.

    Returns:
        Images sorted by style, then character, with the positions of their styles in ``styles`` as domains. Ids tell
        (split, style, character, index) apart, as in ``split-glyphs``.
    """
    import torch

    from bench_scenarios import glyph_world

    places = [glyph_world.DOMAINS.index(style) for style in styles]
    images, numbers, drawn = glyph_world.load(characters, count, places, seed=WORLD_SEED, split=split, cache=cache)
    index = torch.arange(len(numbers)) % count
    ids = ((split * len(glyph_world.DOMAINS) + drawn) * CLASSES + numbers) * 10_000 + index
    label, domain = torch.full((CLASSES,), -1), torch.full((len(glyph_world.DOMAINS),), -1)
    label[torch.tensor(characters)] = torch.arange(len(characters))
    domain[torch.tensor(places)] = torch.arange(len(places))
    return Samples(Pixels(images), torch.arange(len(numbers)), label[numbers], ids, domain[drawn])


def content() -> str:
    """Digest of the world that all of them show."""
    from bench_scenarios import glyph_world

    return glyph_world.digest(WORLD_SEED)


def one_domain(images: Samples) -> Samples:
    """The same set without the styles of its images."""
    return Samples(images.source, images.rows, images.labels, images.ids)
