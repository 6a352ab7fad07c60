"""From a whole image of any size to a square of uint8, one image at a time, as torchvision does with PIL images.

Sources that read files cut each image as soon as it is decoded, in whatever process that is: the random numbers of a
batch are drawn before (`benchmark.inputs.images.ImagePipeline.cut`), so that nothing depends on who cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from benchmark.inputs import geometry

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]
ATTEMPTS = 10
RATIOS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Fit:
    """The centre of an image, as it is tested: shorter side to ``short``, then a square of ``short`` pixels.

    The square lies where its own centre crop of ``size`` pixels is that of the whole image.

    Attributes:
        short: Side of the square.
        size: Side of the crop that follows.
        interpolation: ``bilinear`` or ``bicubic``.
        squash: Resize both sides, ignoring the aspect ratio.
    """

    short: int
    size: int
    interpolation: str
    squash: bool = False

    @property
    def side(self) -> int:
        """Of the result."""
        return self.short

    @property
    def constant(self) -> str:
        """Names the part that is the same every time, which is all."""
        return f"fit-{self.short}-{self.size}-{self.interpolation}{'-squash' if self.squash else ''}"

    def __call__(self, place: int, image: Image) -> Image:
        """Cuts one image of a batch."""
        return self.prepared(image)

    def prepared(self, image: Image) -> Image:
        """An image after the constant part."""
        height, width = (image.height, image.width)
        kept = (self.short, self.short) if self.squash else geometry.resized(height, width, self.short)
        image = shrink(image, kept, self.interpolation)
        inner = geometry.offset(self.short, self.size)
        top, left = (geometry.offset(length, self.size) - inner for length in kept)
        if (top, left) == (0, 0) and kept == (self.short, self.short):
            return image
        return image.crop((left, top, left + self.short, top + self.short))

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do after that."""
        return True

    def drawn(self, place: int, image: Image) -> Image:
        """What is left to do with a prepared image: nothing."""
        return image

    def at(self, places: Array) -> Fit:
        """The same for some images of the batch."""
        return self


@dataclass(frozen=True)
class RandomCrops:
    """Random resized crops of a batch, drawn as torchvision's ``RandomResizedCrop`` does.

    Attributes:
        side: Of the result.
        interpolation: ``bilinear`` or ``bicubic``.
        squash: Side to which both sides are resized first, or 0.
        share: Shares of the area, one per attempt, ``(B, 10)``.
        ratio: Aspect ratios, likewise.
        place: Where the crop lies in [0, 1) of what is possible, ``(2, B)``.
        mirrored: Which images are mirrored afterwards, bool ``(B,)``.
    """

    side: int
    interpolation: str
    squash: int
    share: Array
    ratio: Array
    place: Array
    mirrored: Array

    @property
    def constant(self) -> str:
        """Names the part that is the same every time: before the crop."""
        return f"squash-{self.squash}-{self.interpolation}" if self.squash else "whole"

    def __call__(self, place: int, image: Image) -> Image:
        """Cuts one image of a batch."""
        return self.drawn(place, self.prepared(image))

    def prepared(self, image: Image) -> Image:
        """An image after the constant part."""
        return shrink(image, (self.squash, self.squash), self.interpolation) if self.squash else image

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do after that."""
        return False

    def drawn(self, place: int, image: Image) -> Image:
        """What is left to do with a prepared image: its own crop."""
        top, left, height, width = self.box(place, image.height, image.width)
        image = image.crop((left, top, left + width, top + height))
        return shrink(image, (self.side, self.side), self.interpolation)

    def box(self, place: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop, in pixels."""
        area = float(height * width)
        for share, ratio in zip(self.share[place].tolist(), self.ratio[place].tolist(), strict=True):
            wide, tall = round(math.sqrt(area * share * ratio)), round(math.sqrt(area * share / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                down, across = self.place[:, place].tolist()
                return int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
        whole = width / height
        wide = width if whole <= RATIOS[1] else round(height * RATIOS[1])
        tall = height if whole >= RATIOS[0] else round(width / RATIOS[0])
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    def at(self, places: Array) -> RandomCrops:
        """The same for some images of the batch."""
        return replace(
            self,
            share=self.share[places],
            ratio=self.ratio[places],
            place=self.place[:, places],
            mirrored=self.mirrored[places],
        )


@dataclass(frozen=True)
class PlacedCrops:
    """Squares of a batch at random places of images whose shorter side is ``short``: ``Resize``, then ``RandomCrop``.

    Attributes:
        side: Of the result.
        short: Shorter side before the crop.
        interpolation: ``bilinear`` or ``bicubic``.
        place: Where the crop lies in [0, 1) of what is possible, ``(2, B)``.
        mirrored: Which images are mirrored afterwards, bool ``(B,)``.
    """

    side: int
    short: int
    interpolation: str
    place: Array
    mirrored: Array

    @property
    def constant(self) -> str:
        """Names the part that is the same every time: before the crop."""
        return f"short-{self.short}-{self.interpolation}"

    def __call__(self, place: int, image: Image) -> Image:
        """Cuts one image of a batch."""
        return self.drawn(place, self.prepared(image))

    def prepared(self, image: Image) -> Image:
        """An image after the constant part."""
        return shrink(image, geometry.resized(image.height, image.width, self.short), self.interpolation)

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do after that."""
        return False

    def drawn(self, place: int, image: Image) -> Image:
        """What is left to do with a prepared image: its own crop."""
        down, across = self.place[:, place].tolist()
        top, left = int(down * (image.height - self.side + 1)), int(across * (image.width - self.side + 1))
        return image.crop((left, top, left + self.side, top + self.side))

    def at(self, places: Array) -> PlacedCrops:
        """The same for some images of the batch."""
        return replace(self, place=self.place[:, places], mirrored=self.mirrored[places])


Drawn = RandomCrops | PlacedCrops
"""What is drawn for training."""
Cut = Fit | Drawn


def draw(
    count: int,
    generator: torch.Generator,
    *,
    side: int,
    area: tuple[float, float],
    interpolation: str,
    squash: int,
    flip: bool,
) -> RandomCrops:
    """Draws the crops of a batch.

    Args:
        count: Images.
        generator: On the CPU.
        side: Of the result.
        area: Range of the share of the area.
        interpolation: ``bilinear`` or ``bicubic``.
        squash: See `RandomCrops`.
        flip: Whether half of them are mirrored.
    """
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    share = torch.empty(count, ATTEMPTS).uniform_(area[0], area[1], generator=generator)
    ratio = torch.empty(count, ATTEMPTS).uniform_(*map(math.log, RATIOS), generator=generator).exp()
    place = torch.rand(2, count, generator=generator)
    drawn = (part.numpy() for part in (share, ratio, place, mirrored))
    return RandomCrops(side, interpolation, squash, *drawn)


def draw_places(
    count: int, generator: torch.Generator, *, side: int, short: int, interpolation: str, flip: bool
) -> PlacedCrops:
    """Draws the crops of a batch. See `draw`, and `PlacedCrops` for ``short``."""
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    place = torch.rand(2, count, generator=generator)
    return PlacedCrops(side, short, interpolation, place.numpy(), mirrored.numpy())


def shrink(image: Image, size: tuple[int, int], interpolation: str) -> Image:
    """Resizes an image to ``size`` (height, width): rows before columns, in every version of Pillow."""
    from PIL.Image import Resampling

    mode = Resampling.BILINEAR if interpolation == "bilinear" else Resampling.BICUBIC
    height, width = size
    if image.width != width:
        image = image.resize((width, image.height), mode)
    return image if image.height == height else image.resize((width, height), mode)
