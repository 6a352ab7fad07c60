"""Prompts in pixel space: one trained pattern for all images, in front of a model that stays a black box.

::

    prompt = FramePrompt(size=224, width=30)
    features = cls_feature(vit, prompt(images))          # images are normalised, and nothing is clamped

`FramePrompt` and `PatchPrompt` are those of hjbahng/visual_prompting at 679e71f, ``models/prompters.py`` (Bahng et
al., arXiv 2203.17274); `AdditiveProgram` and `ExpansiveProgram` those of OPTML-Group/ILM-VP at 84ca042,
``models/visual_prompt.py`` (Chen et al., CVPR 2023, arXiv 2211.11635).

Shapes: B batch, S image side, p width of a frame or side of a patch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import UsageError

Place = tuple[int, int]


class FramePrompt(nn.Module):
    """A frame of p pixels on every side, added to normalised images; ``6 p (2 S - 2 p)`` numbers from N(0, 1).

    Args:
        size: S.
        width: p.

    Raises:
        UsageError: The frame has no hole.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        check_frame(size, width)
        self.up = nn.Parameter(torch.randn(1, 3, width, size))
        self.down = nn.Parameter(torch.randn(1, 3, width, size))
        self.left = nn.Parameter(torch.randn(1, 3, size - 2 * width, width))
        self.right = nn.Parameter(torch.randn(1, 3, size - 2 * width, width))

    def pattern(self) -> Tensor:
        """What is added, ``(1, 3, S, S)``."""
        hole = self.left.new_zeros(1, 3, self.left.shape[2], self.left.shape[2])
        middle = torch.cat([self.left, hole, self.right], dim=3)
        return torch.cat([self.up, middle, self.down], dim=2)

    def forward(self, images: Tensor) -> Tensor:
        """Returns prompted images ``(B, 3, S, S)``."""
        return images + self.pattern()


class PatchPrompt(nn.Module):
    """A square of p pixels, added to normalised images at a given place; ``3 p^2`` numbers from N(0, 1).

    Args:
        size: S.
        side: p.

    Raises:
        UsageError: The square is as large as the image.
    """

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        if side >= size:
            raise UsageError(f"prompt_size: {side} is too large for images of {size} pixels", hint=f"use 1..{size - 1}")
        self.size = size
        self.patch = nn.Parameter(torch.randn(1, 3, side, side))

    @property
    def places(self) -> int:
        """Rows, and columns, where the upper left corner can be: ``0 .. S - p - 1``, as drawn by the official code."""
        return self.size - self.patch.shape[2]

    def draw(self) -> Place:
        """A random place, from torch's generator; row first."""
        row, column = torch.randint(self.places, (2,)).tolist()
        return row, column

    def middle(self) -> Place:
        """The place in the middle of the image."""
        return self.places // 2, self.places // 2

    def place_of(self, images: Tensor) -> Place:
        """A place that follows from the content of a batch, all of it: looks random, and repeats itself."""
        whole = torch.int64 if images.element_size() == 8 else torch.int32
        bits = images.contiguous().view(whole).flatten().to(torch.int64)
        count = torch.arange(len(bits), device=bits.device)
        mixed = (bits * (2 * count + 1) * 2654435761).sum()  # modulo 2^64, so in whatever order
        return int((mixed >> 16) % self.places), int((mixed >> 40) % self.places)

    def pattern(self, place: Place) -> Tensor:
        """What is added, ``(1, 3, S, S)``."""
        row, column = place
        rest = self.size - self.patch.shape[2]
        return F.pad(self.patch, (column, rest - column, row, rest - row))

    def forward(self, images: Tensor, place: Place = (0, 0)) -> Tensor:
        """Returns prompted images ``(B, 3, S, S)``, the square in the upper left corner unless told otherwise."""
        return images + self.pattern(place)


class AdditiveProgram(nn.Module):
    """A frame of p pixels that starts at 0: ``x + W * M``, W ``(3, S, S)``, M 1 on the frame.

    Args:
        size: S.
        width: p.

    Raises:
        UsageError: The frame has no hole.
    """

    mask: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        check_frame(size, width)
        self.program = nn.Parameter(torch.zeros(3, size, size))
        self.register_buffer("mask", frame_mask(size, size - 2 * width, width), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns prompted images ``(B, 3, S, S)``."""
        return images + self.program * self.mask


class ExpansiveProgram(nn.Module):
    """A frame around a smaller image: ``pad(x) + sigmoid(W) * M`` with x in [0, 1], then normalised.

    Args:
        size: S.
        inner: Side of the image inside.
        normalize: How images in [0, 1] are normalised.

    Raises:
        UsageError: The image inside is not smaller.
    """

    mask: Tensor

    def __init__(self, size: int, inner: int, normalize: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not 0 < inner < size:
            raise UsageError(f"prompt_size: an image of {inner} pixels does not fit into a frame of {size}")
        self.program = nn.Parameter(torch.zeros(3, size, size))
        self.normalize = normalize
        first = (size - inner + 1) // 2
        self.register_buffer("mask", frame_mask(size, inner, first), persistent=False)
        self.padding = (first, size - inner - first) * 2

    def forward(self, images: Tensor) -> Tensor:
        """Returns normalised images ``(B, 3, S, S)`` for images ``(B, 3, inner, inner)`` in [0, 1]."""
        return self.normalize(F.pad(images, self.padding) + self.program.sigmoid() * self.mask)


def frame_mask(size: int, inner: int, first: int) -> Tensor:
    """1 on a frame, 0 on the square of side ``inner`` that begins at row and column ``first``; ``(1, S, S)``."""
    mask = torch.ones(1, size, size)
    mask[:, first : first + inner, first : first + inner] = 0
    return mask


def check_frame(size: int, width: int) -> None:
    """Makes sure that a frame has a hole.

    Raises:
        UsageError: It has none.
    """
    if 2 * width >= size:
        raise UsageError(
            f"prompt_size: a frame of {width} pixels leaves nothing of an image of {size}",
            hint=f"use 1..{(size - 1) // 2}, or 0 for the paper's 30 of 224, to scale",
        )
