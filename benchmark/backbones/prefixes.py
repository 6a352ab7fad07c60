"""Key/value prefixes of single blocks without a pool: one set for all images, and one whose attention is compensated.

Shapes: B batch, N tokens, n of them queries, D width, H heads, d = D / H, S layers with prefixes, m rows per prefix.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter, Mixing, Prefix
from benchmark.backbones.prefix_pools import PrefixInit, draw


class Prefixes(nn.Module):
    """Prefixes of some blocks, the same for all images; their lengths may differ.

    Args:
        lengths: Per block, m: rows in front of the attention keys, and as many in front of the values.
        width: D.
        init: As of `benchmark.backbones.prefix_pools.PrefixPool`.
    """

    def __init__(self, lengths: Mapping[int, int], *, width: int, init: PrefixInit = "unit") -> None:
        super().__init__()
        self.layers = tuple(lengths)
        self.rows = nn.ParameterList(
            nn.Parameter(draw(torch.empty(2, length, width), init)) for length in lengths.values()
        )

    def forward(self) -> dict[int, Prefix]:
        """What ``prefixes`` of `benchmark.backbones.blocks.run_blocks` takes."""
        return {layer: (pair[:1], pair[1:]) for layer, pair in zip(self.layers, self.rows, strict=True)}


class CompensatedPrefix(BlockAdapter):
    """A prefix whose rows get as much attention, together, as tokens alone do: its part of the softmax has sum 1.

    LAE, Gao et al., ICCV 2023, arXiv 2303.10070 (gqk/LAE at 1680e49, ``libml/model/pet``): a row of attention then sums
    to more than 1, namely to exactly 1 over the prefix, beside what the softmax over everything leaves to the tokens.
    Not for causal attention.

    Args:
        width: D.
        length: m.
        heads: H.
    """

    def __init__(self, width: int, length: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.keys = nn.Parameter(draw(torch.empty(length, width), "flax_uniform"))
        self.values = nn.Parameter(draw(torch.empty(length, width), "flax_uniform"))
        self.key_scale = nn.Parameter(torch.ones(()))
        self.value_scale = nn.Parameter(torch.ones(()))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mixing: Mixing) -> Tensor:
        """Attention to tokens, under a softmax over everything, plus attention within the prefix."""
        keys, values = (
            (scale * rows).view(1, len(rows), self.heads, -1).transpose(1, 2).expand(len(key), -1, -1, -1)
            for scale, rows in ((self.key_scale, self.keys), (self.value_scale, self.values))
        )
        # Values of 0 keep the prefix in the denominator alone. The quotient is a softmax over the prefix.
        tokens = mixing(query, torch.cat([keys, key], dim=2), torch.cat([torch.zeros_like(values), value], dim=2))
        return tokens + mixing(query, keys, values)
