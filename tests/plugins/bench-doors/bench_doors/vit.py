"""doors-vit: a very small ViT whose weights are drawn from a seed; nobody trained it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones.backbone import Backbone
from benchmark.errors import UsageError


def load(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> Backbone:
    if weights is not None:
        raise UsageError(f"backbone `{name}` has no weight file", hint="leave --weights out")
    torch.manual_seed(4)  # the core puts the random state back
    model = VisionTransformer(
        img_size=image_size or 16, patch_size=8, embed_dim=16, depth=1, num_heads=2, mlp_ratio=2.0, num_classes=0
    )
    content = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return Backbone(
        name=name,
        model=model,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        sha256=hashlib.sha256(content).hexdigest(),
        description="random weights",
        licence="CC0-1.0",
    )


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name="doors-vit",
            load=load,
            describe=lambda name: {"licence": "CC0-1.0", "card": "# doors-vit\n\nNobody trained it."},
            summary="a very small ViT with random weights",
        )
    ]
