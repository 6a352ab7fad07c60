"""Pools of key/value prefixes for the attention of several blocks, selected by keys.

A pool gives what ``prefixes`` of `benchmark.backbones.blocks.run_blocks` takes::

    pool = PrefixPool((2, 3, 4), size=10, length=5, width=768)
    index = top_k(pool.similarity(query), 1)               # (B, 1)
    prefixes = by_layer(pool.layers, pool.gather(index))   # {2: (keys, values), 3: ...}
    tokens = run_blocks(vit, embed(vit, images), prefixes=prefixes, read=CLS)

Shapes: B batch, S layers with prefixes, M slots, m rows per prefix, k slots selected, D width. In every
pair, index 0 are attention keys and index 1 attention values; *selection* keys are something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.backbones.blocks import Prefix
from benchmark.backbones.prompts import normalize
from benchmark.errors import UsageError

PrefixInit = Literal["uniform", "flax_uniform", "unit"]


class PrefixPool(nn.Module):
    """Prefixes ``(S, 2, M, m, D)`` and selection keys, one set for all layers or one per layer.

    Args:
        layers: Blocks that get a prefix.
        size: M.
        length: m, rows in front of the attention keys, and as many in front of the values.
        width: D.
        shared_keys: One set of selection keys ``(M, D)`` for all layers; else ``(S, M, D)``.
        prefix_init: ``uniform`` draws from [-1, 1], ``flax_uniform`` from [0, 0.01), ``unit`` from [0, 1).
        key_init: Likewise, for the selection keys.
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        size: int,
        length: int,
        width: int,
        shared_keys: bool = True,
        prefix_init: PrefixInit = "uniform",
        key_init: PrefixInit = "uniform",
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        sets = () if shared_keys else (len(self.layers),)
        self.prefixes = nn.Parameter(draw(torch.empty(len(self.layers), 2, size, length, width), prefix_init))
        self.keys = nn.Parameter(draw(torch.empty(*sets, size, width), key_init))

    @property
    def size(self) -> int:
        """M."""
        return self.keys.shape[-2]

    def similarity(self, query: Tensor) -> Tensor:
        """Cosine of every query ``(B, D)`` with every selection key: ``(B, M)``, or ``(S, B, M)`` per layer."""
        return normalize(query) @ normalize(self.keys).mT

    def gather(self, index: Tensor) -> Tensor:
        """Prefixes of the chosen slots, those of one image joined in the order of ``index``.

        Args:
            index: ``(B, k)`` for all layers, ``(1, k)`` for all images alike, or ``(S, B, k)`` per layer.

        Returns:
            ``(S, 2, B, k * m, D)``; see `by_layer`.
        """
        if index.ndim == 2:
            return self.prefixes[:, :, index].flatten(3, 4)
        chosen = [self.prefixes[place, :, part] for place, part in enumerate(index)]  # S times (2, B, k, m, D)
        return torch.stack(chosen).flatten(3, 4)

    def copy_slots(self, source: range, target: range) -> None:
        """Copies prefixes, keys and values, from one range of slots to another; selection keys stay."""
        with torch.no_grad():
            self.prefixes[:, :, target.start : target.stop] = self.prefixes[:, :, source.start : source.stop].clone()


def draw(tensor: Tensor, rule: PrefixInit) -> Tensor:
    """Fills a tensor with uniform random numbers: from [-1, 1], [0, 0.01) or [0, 1)."""
    low, high = {"uniform": (-1.0, 1.0), "flax_uniform": (0.0, 0.01), "unit": (0.0, 1.0)}[rule]
    return tensor.uniform_(low, high)


def by_layer(layers: Sequence[int], stacked: Tensor) -> dict[int, Prefix]:
    """Prefixes ``(S, 2, B or 1, m, D)`` as pairs of keys and values by block."""
    return {layer: (pair[0], pair[1]) for layer, pair in zip(layers, stacked, strict=True)}


def merge(*groups: Mapping[int, Prefix]) -> dict[int, Prefix]:
    """Joins groups of prefixes; where a block has several, they stand one after the other in the given order."""
    merged: dict[int, Prefix] = {}
    for group in groups:
        for layer, prefix in group.items():
            if layer not in merged:
                merged[layer] = prefix
                continue
            images = max(len(merged[layer][0]), len(prefix[0]))  # a prefix for all images alike has one row
            keys, values = (
                torch.cat([part.expand(images, -1, -1) for part in parts], dim=1)
                for parts in zip(merged[layer], prefix, strict=True)
            )
            merged[layer] = (keys, values)
    return merged


def check_layers(option: str, layers: Sequence[int], depth: int) -> None:
    """Makes sure that the backbone has the blocks that get prefixes.

    Args:
        option: Name of the option that holds the layers, for the message.
        layers: Blocks, from 0.
        depth: Blocks of the backbone.

    Raises:
        UsageError: One of them does not exist, or is named twice.
    """
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong:
        raise UsageError(f"{option}: this backbone has no block {wrong[0]}", hint=f"use blocks 0..{depth - 1}")
    if len(set(layers)) < len(layers):
        raise UsageError(f"{option}: a block is named twice: {', '.join(map(str, layers))}")
