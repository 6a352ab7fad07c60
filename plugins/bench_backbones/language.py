"""Small language models whose weights are in the package, trained on its own world of texts; each has a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench_backbones.bundled import WEIGHTS
from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources

if TYPE_CHECKING:
    from pathlib import Path

    from benchmark.backbones.language import LanguageModel

FOLDER = WEIGHTS / "language"
SUMMARIES = {
    "nano-lm": "tiny causal language model of reviews, news and places",
    "nano-mlm": "tiny masked language model of reviews, news and places",
}


def load(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> LanguageModel:
    """Loads one of them; the network is never asked."""
    return sources.load_language(FOLDER, name, weights=weights, image_size=image_size)


def describe(name: str) -> dict[str, Any]:
    """Its description and card."""
    return {**sources.language_described(FOLDER, name), "source": "bundled"}


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    """Registers the bundled language models."""
    return [
        BackboneSpec(name=name, load=load, describe=describe, summary=summary, reads="text")
        for name, summary in SUMMARIES.items()
    ]
