"""Handwritten digits with labels, printed digits without, or the reverse: unsupervised domain adaptation.

Sources: MNIST (LeCun, Cortes, Burges; 28x28 grey, padded to 32x32 with black), and the ten digits of
`bench_scenarios.glyph_world` in its four drawing styles. Variants: ``mnist-glyphs`` (labelled MNIST,
unlabelled and tested glyphs) and ``glyphs-mnist``. MNIST's official test images are test images, glyphs of the
world's test split likewise; target images are other images than test images (inductive).

Mind when reading figures: nine of the ten digits (all but the two) are pre-training characters of the bundled
glyph backbones, so their features of glyph digits are not those of unseen classes. Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench_scenarios import _glyphs, _mnist
from bench_scenarios.split_glyphs import WORLD_SEED
from benchmark import ScenarioSpec, hookimpl, splits
from benchmark.digests import joined
from benchmark.readers import Array
from benchmark.samples import Pixels, Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet

PAIRS = ("mnist-glyphs", "glyphs-mnist")
_GLYPH_IDS = 1_000_000  # MNIST's ids are rows of its files


@dataclass(frozen=True, kw_only=True, slots=True)
class MnistGlyphsConfig:
    """Options of ``mnist-glyphs``.

    Attributes:
        pair: ``mnist-glyphs`` or ``glyphs-mnist``: source and target.
        style: Drawing style of the glyphs, or ``mixed``: as many of each.
        train: Source images, and target images, per digit; of MNIST the first of the file.
        test: Test images per digit, of either domain.
    """

    pair: Literal["mnist-glyphs", "glyphs-mnist"] = "mnist-glyphs"
    style: Literal["mixed", "ink", "chalk", "outline", "photo"] = "mixed"
    train: int = 100
    test: int = 60

    def __post_init__(self) -> None:
        """Checks that there are images, as many of each style."""
        for field, count in (("train", self.train), ("test", self.test)):
            if not 1 <= count <= 5000:
                raise ValueError(f"{field}: {count} images are out of range; use 1..5000")
            if self.style == "mixed" and count % len(_glyphs.STYLES):
                raise ValueError(f"{field}: {count} is not as many of each of four styles; use a multiple of 4")


def build(config: MnistGlyphsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the pair; it does not depend on the seed.

    Raises:
        DataMissing: MNIST is absent or damaged.
        ValueError: A digit of MNIST has too few images.
    """
    from bench_scenarios import glyph_world

    mnist = _mnist.load(request)

    def draw(domain: str, split: str) -> Samples:
        count = config.train if split == "train" else config.test
        if domain == "mnist":
            return _mnist_images(mnist.arrays[f"{split}_images"], mnist.arrays[f"{split}_labels"], split, count)
        return _glyph_images(config.style, split, count, request)

    source, target = config.pair.split("-")
    unlabelled = draw(target, "train")
    experience = Experience(
        train=draw(source, "train"),
        test=draw(target, "test"),
        classes=tuple(range(10)),
        domain=target,
        target=unlabelled.without_labels(),
        target_labels=unlabelled.labels,
        sources=(source,),
    )
    tests = (TestSet(name="source", images=draw(source, "test")),)
    said = "nine of the ten digits are pre-training characters of the bundled glyph backbones"
    digests = [mnist.digests[f"{split}_images"] for split in _mnist.COUNTS]
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=(experience,),
        content=joined([*digests, glyph_world.digest(WORLD_SEED, glyph_world.DIGITS)]),
        class_names=tuple(glyph_world.class_names(glyph_world.DIGITS)),
        notes={**mnist.notes, "glyphs": said},
        tests=tests,
    )


def _mnist_images(images: Array, labels: Array, split: str, count: int) -> Samples:
    import torch

    rows = splits.first_per_class(labels, count)
    if len(rows) != 10 * count:
        raise ValueError(f"{split}: MNIST has fewer than {count} {split} images of some digit")
    found = torch.from_numpy(labels[rows])
    ids = torch.from_numpy(rows) + (0 if split == "train" else _mnist.COUNTS["train"])
    return Samples(Pixels(_mnist.padded(images[rows])), torch.arange(len(rows)), found, ids)


def _glyph_images(style: str, split: str, count: int, request: ScenarioRequest) -> Samples:
    import torch

    from bench_scenarios import glyph_world

    styles = list(range(len(_glyphs.STYLES))) if style == "mixed" else [glyph_world.DOMAINS.index(style)]
    number, each = ("train", "test").index(split), count // len(styles)
    images, labels, domains = glyph_world.load(
        range(10), each, styles, seed=WORLD_SEED, split=number, cache=request.cache, which=glyph_world.DIGITS
    )
    index = torch.arange(len(labels)) % each
    ids = _GLYPH_IDS + ((number * len(_glyphs.STYLES) + domains) * 10 + labels) * 10_000 + index
    return Samples(Pixels(images), torch.arange(len(labels)), labels, ids)


SPEC = ScenarioSpec(
    name="mnist-glyphs",
    build=build,
    config=MnistGlyphsConfig,
    summary="handwritten digits of MNIST and printed digits, adapted from one to the other, both ways",
    family="uda",
    tracks={"nano": "glyph32-v2"},
    variant="pair",
    variants=PAIRS,
    source="MNIST: LeCun, Cortes, Burges, via torchvision's mirror; glyphs: " + _glyphs.SOURCE,
    licence="MNIST: CC BY-SA 3.0 according to the L2P paper; glyphs: Apache-2.0",
    size_mb=11.6,
    data=(_mnist.MNIST,),
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``mnist-glyphs``."""
    return [SPEC]
