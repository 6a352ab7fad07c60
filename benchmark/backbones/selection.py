"""Which of a backbone's own weights train: the last blocks, the biases.

A method freezes the backbone and then switches on what it trains::

    for parameter in last_blocks(freeze(vit), 1):
        parameter.requires_grad_(True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from benchmark.errors import UsageError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def last_blocks(vit: VisionTransformer, count: int, *, norm: bool = True) -> list[nn.Parameter]:
    """All parameters of the last blocks, by position and not by name: ``blocks.1`` is not ``blocks.10``.

    Args:
        vit: The model.
        count: Number of blocks.
        norm: Whether the final LayerNorm belongs to them.

    Raises:
        UsageError: The model has fewer blocks.
    """
    depth = len(vit.blocks)
    if count > depth:
        raise UsageError(f"k: {count} is more than this backbone has blocks ({depth})", hint=f"use 0..{depth}")
    found = [parameter for block in vit.blocks[depth - count :] for parameter in block.parameters()]
    return found + (list(vit.norm.parameters()) if norm else [])


def biases(vit: VisionTransformer) -> list[nn.Parameter]:
    """Every parameter with ``bias`` in its name: patch embedding, LayerNorms, attention and MLPs, final LayerNorm."""
    return [parameter for name, parameter in vit.named_parameters() if "bias" in name]
