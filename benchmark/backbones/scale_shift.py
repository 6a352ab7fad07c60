"""SSF: outputs of a frozen ViT's layers are scaled and shifted.

Lian, Zhou, Feng, Wang, Scaling & Shifting Your Features, NeurIPS 2022, arXiv 2210.08823; drawn as in RanPAC/RanPAC at
012927f, ``petl/vision_transformer_ssf.py``. It works on any timm ViT: forward hooks are there during the pass and
at no other time, so the backbone can serve without them before and after::

    change = ScaleShift(vit)
    with change.inserted(vit):
        features = cls_feature(vit, images)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from benchmark.backbones.features import check_tokens

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_OTHER = ("patch_embed", "head", "head_drop", "fc_norm", "attn_pool")  # the first is one place as a whole


class ScaleShift(nn.Module):
    """``y`` becomes ``scale * y + shift`` behind the patch embedding, each LayerNorm and each linear layer.

    Trainable for width D, MLP width H and depth L: ``2 (L (7 D + H) + 2 D)``, e.g. 205,824 for ViT-B/16.

    Args:
        vit: timm `VisionTransformer`; it is read, not kept.
        std: Standard deviation around 1 (scales) and 0 (shifts).
    """

    def __init__(self, vit: VisionTransformer, *, std: float = 0.02) -> None:
        super().__init__()
        check_tokens(vit)
        found = dict(places(vit))
        self.places = tuple(found)
        self.scales = nn.ParameterList(torch.empty(width).normal_(1.0, std) for width in found.values())
        self.shifts = nn.ParameterList(torch.empty(width).normal_(0.0, std) for width in found.values())

    @contextmanager
    def inserted(self, vit: VisionTransformer) -> Iterator[None]:
        """Inside, every pass through the model is changed."""
        handles = []
        try:
            for name, scale, shift in zip(self.places, self.scales, self.shifts, strict=True):
                handles.append(vit.get_submodule(name).register_forward_hook(partial(_change, scale, shift)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _change(scale: Tensor, shift: Tensor, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output * scale + shift


def places(vit: VisionTransformer) -> Iterator[tuple[str, int]]:
    """Names of the modules whose outputs are changed, and the width of these outputs, in the order of the pass."""
    yield "patch_embed", int(vit.embed_dim)
    for name, module in vit.named_modules():
        if name.split(".")[0] in _OTHER:
            continue
        if isinstance(module, nn.LayerNorm):
            yield name, int(module.normalized_shape[-1])
        elif isinstance(module, nn.Linear):
            yield name, int(module.out_features)
