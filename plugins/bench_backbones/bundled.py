"""Small backbones whose weights are in the package; each has a card, ``bench info NAME``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources

if TYPE_CHECKING:
    from benchmark.backbones.backbone import Backbone

WEIGHTS = Path(__file__).parent / "weights"
SUMMARIES = {
    "mini-vit": "small ViT distilled from ImageNet features",
    "nano-clip": "nano-vit with a text tower over names of characters",
    "nano-cnn": "tiny CNN with BatchNorm trained on pictures of characters",
    "nano-vit": "tiny ViT trained on pictures of characters",
}


def load(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> Backbone:
    """Loads one of them; the network is never asked."""
    return sources.load_described(WEIGHTS, name, weights=weights, image_size=image_size)


def describe(name: str) -> dict[str, Any]:
    """Its description and card."""
    return {**sources.described(WEIGHTS, name), "source": "bundled"}


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    """Registers the bundled backbones."""
    return [
        BackboneSpec(name=name, load=load, describe=describe, summary=summary) for name, summary in SUMMARIES.items()
    ]
