"""Families of scenarios: what a stream is, and how it is scored."""

from __future__ import annotations

from typing import Literal

Family = Literal["class-il", "domain-il", "task-il", "uda", "dg", "few-shot", "base-to-new", "cross-dataset"]
FAMILIES: tuple[Family, ...] = (
    "class-il",
    "domain-il",
    "task-il",
    "uda",
    "dg",
    "few-shot",
    "base-to-new",
    "cross-dataset",
)
