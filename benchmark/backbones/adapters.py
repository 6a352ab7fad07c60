"""Bottleneck adapters for the blocks of any plain timm ViT: `benchmark.backbones.blocks.BlockAdapter`.

One adapter per block goes to `run_blocks`::

    adapters = nn.ModuleList(PfeifferAdapter(width, reduced(width, 8)) for _ in vit.blocks)
    tokens = run_blocks(vit, embed(vit, images), adapters=adapters, read=CLS)

Shapes: B batch, N tokens, D width, r bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter
from benchmark.errors import UsageError

AdapterInit = Literal["kaiming", "zeros", "small"]


def reduced(width: int, reduction: int) -> int:
    """Bottleneck r of a reduction factor: ``floor(D / R)``.

    Raises:
        UsageError: Nothing is left.
    """
    if width // reduction < 1:
        raise UsageError(
            f"reduction: {reduction} leaves nothing of this backbone's width {width}", hint=f"use at most {width}"
        )
    return width // reduction


class Bottleneck(nn.Module):
    """``W_up gelu(W_down x + b_down) + b_up``, exact GELU.

    Args:
        width: D.
        bottleneck: r.
        init: ``kaiming``: W_down as `torch.nn.Linear` draws it (Kaiming uniform, a = sqrt 5), the rest 0; RanPAC and
            LAMDA-PILOT call it "lora". ``zeros``: all four tensors 0; every gradient but that of b_up is then 0 and
            stays 0. ``small``: weights normal with standard deviation 0.01, cut at two of them, biases 0 (Houlsby et
            al.).
    """

    def __init__(self, width: int, bottleneck: int, init: AdapterInit = "kaiming") -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        for layer in (self.down, self.up):
            nn.init.zeros_(layer.bias)
            nn.init.zeros_(layer.weight)
            if init == "small":
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        if init == "kaiming":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns ``(B, N, D)`` for tokens ``(B, N, D)``."""
        result: Tensor = self.up(F.gelu(self.down(tokens)))
        return result


class PfeifferAdapter(BlockAdapter):
    """One adapter behind the MLP, with its own residual, before the outer one: ``x + h + bottleneck(h)``.

    Args:
        width: D.
        bottleneck: r.
        init: As of `Bottleneck`.
    """

    def __init__(self, width: int, bottleneck: int, init: AdapterInit = "kaiming") -> None:
        super().__init__()
        self.bottleneck = Bottleneck(width, bottleneck, init)

    def after_mlp(self, branch: Tensor, stream: Tensor) -> Tensor:
        """Adds the adapter's output to that of the MLP, ``(B, N, D)``."""
        result: Tensor = branch + self.bottleneck(branch)
        return result


class HoulsbyAdapter(BlockAdapter):
    """Two adapters, behind the attention's projection and behind the MLP, each inside its residual branch.

    Args:
        width: D.
        bottleneck: r.
        init: As of `Bottleneck`.
    """

    def __init__(self, width: int, bottleneck: int, init: AdapterInit = "small") -> None:
        super().__init__()
        self.behind_attention = Bottleneck(width, bottleneck, init)
        self.behind_mlp = Bottleneck(width, bottleneck, init)

    def after_attention(self, branch: Tensor) -> Tensor:
        """Adds the first adapter's output to that of the attention, ``(B, N, D)``."""
        result: Tensor = branch + self.behind_attention(branch)
        return result

    def after_mlp(self, branch: Tensor, stream: Tensor) -> Tensor:
        """Adds the second adapter's output to that of the MLP, ``(B, N, D)``."""
        result: Tensor = branch + self.behind_mlp(branch)
        return result


class AdaptFormer(BlockAdapter):
    """A bottleneck beside the MLP: ``x + MLP(LN2 x) + scale * (W_up dropout(relu(W_down x + b_down)) + b_up)``.

    Chen et al., AdaptFormer, NeurIPS 2022, arXiv 2205.13535, as RanPAC/RanPAC (012927f) and LAMDA-PILOT have it: its
    input is the residual stream *before* the LayerNorm. Drawn as `Bottleneck` with ``kaiming``. A LayerScale of the
    backbone covers it as it covers the MLP.

    Args:
        width: D.
        bottleneck: r.
        scale: Factor of its output.
        dropout: Rate behind the non-linearity, in training.
    """

    def __init__(self, width: int, bottleneck: int, *, scale: float = 0.1, dropout: float = 0.0) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def after_mlp(self, branch: Tensor, stream: Tensor) -> Tensor:
        """Adds the adapter's view of the stream to the output of the MLP, ``(B, N, D)``."""
        result: Tensor = branch + self.scale * self.up(self.dropout(F.relu(self.down(stream))))
        return result


def adapt_formers(
    blocks: Iterable[nn.Module], width: int, bottleneck: int, *, scale: float, dropout: float
) -> nn.ModuleList:
    """An `AdaptFormer` for each block of a transformer.

    Args:
        blocks: Of the backbone.
        width: D.
        bottleneck: r.
        scale: Factor of their outputs.
        dropout: Rate behind the non-linearity, in training.
    """
    return nn.ModuleList(AdaptFormer(width, bottleneck, scale=scale, dropout=dropout) for _ in blocks)


class AttentionAdapter(BlockAdapter):
    """A bottleneck beside the attention, on the same input: ``x + attention(h) + s * bottleneck(h)``, ``h = LN1(x)``.

    LAE, Gao et al., ICCV 2023, arXiv 2303.10070 (gqk/LAE at 1680e49, ``libml/model/pet``), drawn as `Bottleneck` with
    ``kaiming``. A LayerScale of the backbone covers it as it covers the attention.

    Args:
        width: D.
        bottleneck: r.
        scale: s, constant; None: it is learnt and starts at 1.
    """

    def __init__(self, width: int, bottleneck: int, *, scale: float | None = None) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(width, bottleneck)
        self.scale = nn.Parameter(torch.ones(())) if scale is None else scale

    def beside_attention(self, branch: Tensor, normed: Tensor) -> Tensor:
        """Adds the adapter's view of the attention's input to its output, ``(B, n, D)``."""
        result: Tensor = branch + self.scale * self.bottleneck(normed)
        return result
