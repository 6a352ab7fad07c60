"""Samples with labels: rows of a source that may be shared, so that subsets copy nothing (promised in `benchmark.api`).

Images are uint8 ``(B, 3, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class ImageSource(Protocol):
    """Anything that returns uint8 images by row: a tensor, a memory map, a decoder of files."""

    @property
    def shape(self) -> Sequence[int]:
        """``(N, 3, H, W)``."""

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Returns uint8 images ``(B, 3, H, W)`` for int64 ``rows`` (B,)."""


class ImageSet:
    """Images with labels: rows of a shared source, so subsets copy nothing.

    Args:
        source: Images of the whole data set, uint8 ``(M, 3, H, W)``.
        rows: Rows of the source that belong to this set, int64 ``(N,)``.
        labels: Remapped labels, int64 ``(N,)``.
        ids: Sample ids, int64 ``(N,)``, stable across runs (e.g. the raw index); default `rows`.
        domains: Domain of each image, int64 ``(N,)``, positions in the experience's ``sources``;
            None when they are of one domain or it does not matter.
    """

    def __init__(
        self,
        source: ImageSource,
        rows: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> None:
        self.source = source
        self.rows = rows.to(torch.int64)
        self.labels = labels.to(torch.int64)
        self.ids = self.rows if ids is None else ids.to(torch.int64)
        self.domains = None if domains is None else domains.to(torch.int64)
        if not len(self.rows) == len(self.labels) == len(self.ids):
            raise ValueError(f"rows, labels and ids differ in length: {len(rows)}, {len(labels)}, {len(self.ids)}")
        if domains is not None and len(domains) != len(self.rows):
            raise ValueError(f"rows and domains differ in length: {len(rows)}, {len(domains)}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(3, H, W)`` of the stored images, before any resizing."""
        _, channels, height, width = self.source.shape
        return channels, height, width

    def images(self, index: Tensor | slice) -> Tensor:
        """Returns uint8 images ``(B, 3, H, W)`` at positions ``index`` of this set."""
        return self.source[self.rows[index]]

    def subset(self, index: Tensor) -> ImageSet:
        """Returns the set of the given positions, in their order, on the same source."""
        domains = None if self.domains is None else self.domains[index]
        return ImageSet(self.source, self.rows[index], self.labels[index], self.ids[index], domains)

    def alone(self) -> ImageSet:
        """The same set on a copy of its own images, so that nothing else can be reached through it."""
        return ImageSet(self.images(slice(None)), torch.arange(len(self)), self.labels, self.ids, self.domains)

    def without_labels(self) -> ImageSet:
        """The same images on a copy of their own, labels -1: a target that leads to nothing else."""
        return ImageSet(self.images(slice(None)), torch.arange(len(self)), torch.full_like(self.labels, -1), self.ids)

    @staticmethod
    def concat(sets: Sequence[ImageSet]) -> ImageSet:
        """Joins sets; no image is copied when they share one source.

        Domains are kept when every set has them.
        """
        source = sets[0].source
        labels = torch.cat([part.labels for part in sets])
        ids = torch.cat([part.ids for part in sets])
        known = [part.domains for part in sets if part.domains is not None]
        domains = torch.cat(known) if len(known) == len(sets) else None
        if all(part.source is source for part in sets):
            return ImageSet(source, torch.cat([part.rows for part in sets]), labels, ids, domains)
        joined = torch.cat([part.images(slice(None)) for part in sets])
        return ImageSet(joined, torch.arange(len(joined)), labels, ids, domains)
