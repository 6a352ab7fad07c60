"""The backbones that are shipped: small enough, with their cards, and with the features that the cards promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_scenarios import glyph_world as world
from benchmark import loading
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.inputs.images import ImagePipeline


@pytest.mark.parametrize(("name", "most"), [("nano-vit", 2_000_000), ("mini-vit", 6_000_000)])
def test_size_and_card(name: str, most: int) -> None:
    backbone = loading.load(name)
    assert backbone.parameters <= most
    assert backbone.image_size == 32
    card = loading.describe(name)["card"]
    assert f"{backbone.parameters:,}" in card
    assert "linear probe" in card
    assert "nearest class mean" in card


@torch.no_grad()
def test_nano_vit_tells_characters_apart_that_it_never_saw() -> None:
    """Nearest class mean over the 100 evaluation classes: 0.970 with 100 images a class (its card), less with 12."""
    backbone = loading.load("nano-vit")
    pipeline = ImagePipeline("glyph32", size=32, mean=backbone.mean, std=backbone.std)

    def features(per_style: int, split: int) -> tuple[Tensor, Tensor]:
        images, labels, _ = world.load(range(100), per_style, range(4), seed=0, split=split)
        parts = [cls_feature(backbone.model, pipeline.eval(part)) for part in images.split(256)]
        return F.normalize(torch.cat(parts), dim=1), labels

    train, labels = features(3, split=0)
    means = F.normalize(torch.zeros(100, backbone.width).index_add_(0, labels, train), dim=1)
    test, truth = features(2, split=1)
    accuracy = ((test @ means.T).argmax(dim=1) == truth).float().mean().item()
    assert accuracy > 0.85
