"""Tracks: sizes of the same code path. A number is only compared inside one track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Track:
    """One track, as its plugin registers it.

    Attributes:
        name: Name on the command line; equal to the entry point's.
        backbone: Used when ``--backbone`` is not given.
        summary: One line.
        dual: The same for methods that need a text tower; "" where there is none of that size.
        language: The same for methods that read texts, by the kind of language model: ``masked``, ``causal``,
            ``encoder-decoder``.
    """

    name: str
    backbone: str
    summary: str
    dual: str = ""
    language: Mapping[str, str] = field(default_factory=dict)
