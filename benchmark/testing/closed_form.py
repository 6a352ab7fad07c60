"""Tiny models whose weights are a formula, so that methods can be compared with published figures without a download.

`fill` gives any tensor from its name. `tiny_vit` is timm's ViT (32 px, patch 8, width 32, 3 blocks of 4 heads, MLP
ratio 2), filled by timm's names. `tiny_clip` is OpenAI's architecture with 2,585,265 weights (32 px, patch 16,
vision width 64, text width 48, 2 layers each, 49,408 tokens, QuickGELU), filled by OpenAI's names of the
parameters; its logits, losses and gradients under CLIP, CoOp, CoCoOp and DAPL are known from the official
implementations. `image_batch` are the images that belong to them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from benchmark.backbones import _open_clip, _open_clip_weights
from benchmark.backbones.backbone import Backbone

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}
NORMS = ("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight", "ln_final.weight")


def fill(name: str, shape: tuple[int, ...], *, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    """A float64 tensor that follows from its name: ``offset + scale * v``, v in [-1, 1).

    With i the flat index from 0: ``v = 2 * ((i + 1) * 2654435761 + crc32(name) mod 2^32) / 2^32 - 1``.
    """
    index = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    hashed = (index * np.uint64(2654435761) + np.uint64(zlib.crc32(name.encode()))) % np.uint64(2**32)
    values = 2.0 * hashed.astype(np.float64) / 2.0**32 - 1.0
    return torch.from_numpy(offset + scale * values).reshape(shape)


def tiny_vit() -> VisionTransformer:
    """The tiny ViT, without a head."""
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, mlp_ratio=2.0, num_classes=0)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            parameter.copy_(vit_weight(name, parameter.shape))
    return vit


def vit_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A parameter of the tiny ViT, or of a head on it (``head.weight``, ``head.bias``), float32."""
    if name.endswith("bias"):
        values = fill(name, shape, scale=0.05)
    elif "norm" in name:
        values = fill(name, shape, scale=0.1, offset=1.0)
    elif name in ("cls_token", "pos_embed"):
        values = fill(name, shape, scale=0.5)
    else:
        values = fill(name, shape, scale=math.sqrt(3 * shape[0] / math.prod(shape)))
    return values.to(torch.float32)


def tiny_clip_state() -> dict[str, Tensor]:
    """The weights in OpenAI's names and shapes, float32."""
    width, text, features = 64, 48, 32
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, text),
        "text_projection": (text, features),
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (5, width),
        "visual.proj": (width, features),
        "visual.conv1.weight": (width, 3, 16, 16),
        "token_embedding.weight": (49408, text),
    }
    for norm, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text)):
        shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    for tower, size in (("visual.transformer", width), ("transformer", text)):
        for block in (f"{tower}.resblocks.{index}" for index in range(2)):
            shapes |= {f"{block}.attn.in_proj_weight": (3 * size, size), f"{block}.attn.in_proj_bias": (3 * size,)}
            shapes |= {f"{block}.attn.out_proj.weight": (size, size), f"{block}.attn.out_proj.bias": (size,)}
            shapes |= {f"{block}.mlp.c_fc.weight": (4 * size, size), f"{block}.mlp.c_fc.bias": (4 * size,)}
            shapes |= {f"{block}.mlp.c_proj.weight": (size, 4 * size), f"{block}.mlp.c_proj.bias": (size,)}
            for norm in ("ln_1", "ln_2"):
                shapes |= {f"{block}.{norm}.weight": (size,), f"{block}.{norm}.bias": (size,)}
    return {name: _weight(name, shape).to(torch.float32) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    if name == "logit_scale":
        return torch.tensor(math.log(20.0), dtype=torch.float64)
    if name.endswith(NORMS):
        return fill(name, shape, scale=0.1, offset=1.0)
    if name.endswith("bias"):
        return fill(name, shape, scale=0.05)
    if "embedding" in name:
        return fill(name, shape, scale=0.1)
    rows = shape[0] if name in ("text_projection", "visual.proj") else math.prod(shape) / shape[0]
    return fill(name, shape, scale=math.sqrt(3.0 / rows))


def tiny_clip() -> Backbone:
    """The tiny CLIP, frozen and in eval mode, loaded as a file of open_clip would be; random state is left as found."""
    return clip_backbone(ARCHITECTURE, tiny_clip_state(), name="tiny-clip")


def clip_backbone(architecture: Mapping[str, Any], state: Mapping[str, Tensor], *, name: str) -> Backbone:
    """A CLIP of given weights, frozen and in eval mode; images are not normalised. Random state is left as found.

    Args:
        architecture: A configuration of open_clip.
        state: Weights in OpenAI's names.
        name: Of the backbone.
    """
    with torch.random.fork_rng(devices=[]):
        dual = _open_clip.build(architecture, name=name, quick_gelu=architecture["quick_gelu"])
    _open_clip_weights.put(dual, state, name)
    dual.requires_grad_(False).eval()
    return Backbone(
        name=name,
        model=_open_clip.image_tower(dual, name, architecture["embed_dim"]),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        sha256="0" * 64,
        dual=dual,
    )


def image_batch(name: str = "image", count: int = 2) -> Tensor:
    """Normalised images ``(count, 3, 32, 32)``; ``image`` are the labelled ones, ``image_u`` the unlabelled."""
    return fill(name, (count, 3, 32, 32)).to(torch.float32)
