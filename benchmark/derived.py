"""Samples that are changed as they are read, and what a data set was before.

A stream of twenty permutations of one data set needs the memory of one: each experience has a source that reads through
to the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmark.samples import Content, Kind, Raw, behind, digest_of, kind_of, read

if TYPE_CHECKING:
    from torch import Tensor


class Derived:
    """Samples of another source, changed as they are read: a permutation of pixels, a rotation, a corruption.

    It copies nothing, so a stream of twenty changes of one data set takes the memory of one.

    Args:
        base: The source.
        change: ``change(samples, rows)`` returns as many samples; a pure function of them and of their rows.
        name: What is done, with everything it depends on; equal names must mean equal changes.
    """

    def __init__(self, base: Content, change: Callable[[Raw, Tensor], Raw], name: str) -> None:
        self.base = base
        self.name = name
        self._change = change

    @property
    def kind(self) -> Kind:
        """What the base holds."""
        return kind_of(self.base)

    @property
    def digest(self) -> str:
        """Of the digest of the base and of the name."""
        return hashlib.sha256(f"{digest_of(self.base)} {self.name}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, rows: Tensor, /) -> Raw:
        return self._change(read(self.base, rows), rows)


def origin_of(content: Content) -> tuple[Content, str]:
    """The source that samples were read from, and what was done to them since (empty: nothing).

    The content of a data set is that of the first, whatever a seed makes of it; a fingerprint knows both.
    """
    own = behind(content)
    if not isinstance(own, Derived):
        return own, ""
    first, before = origin_of(own.base)
    return first, f"{before} {own.name}".strip()
