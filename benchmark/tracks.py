"""Tracks: sizes of the same code path. A number is only compared inside one track."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Track:
    """One track, as its plugin registers it.

    Attributes:
        name: Name on the command line; equal to the entry point's.
        backbone: Used when ``--backbone`` is not given.
        summary: One line.
        dual: The same for methods that need a text tower; "" where there is none of that size.
    """

    name: str
    backbone: str
    summary: str
    dual: str = ""
