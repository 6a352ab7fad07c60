"""Low-rank changes of the query, key and value projections of any plain timm ViT, and their merge.

LoRA, Hu et al., ICLR 2022, arXiv 2106.09685; microsoft/LoRA at 0771c1e, ``loralib/layers.py``. One per block goes to
`benchmark.backbones.blocks.run_blocks` as an adapter; the backbone itself is left alone::

    changes = nn.ModuleList(LoRA(width, rank=8) for _ in vit.blocks)
    tokens = run_blocks(vit, embed(vit, images), adapters=changes, read=CLS)
    merge(vit, changes)                                     # from now on the plain ViT gives the same

Shapes: B batch, N tokens, n of them queries, D width, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter

LoRAInit = Literal["kaiming", "gaussian"]
PARTS = "qkv"  # the order in which timm's fused projection has them


class LoRA(BlockAdapter):
    """``W x + b`` becomes ``(W + alpha / r * B A) x + b`` for some of the three projections.

    Args:
        width: D.
        rank: r.
        alpha: Scale of the change times the rank.
        targets: Letters of ``qkv``.
        init: How A is drawn: ``kaiming`` (uniform, a = sqrt 5: the official code) or ``gaussian`` (the
            paper's word; standard deviation 1 / r). B starts at 0, so the model starts unchanged.
    """

    def __init__(
        self, width: int, *, rank: int, alpha: float | None = None, targets: str = "qv", init: LoRAInit = "kaiming"
    ) -> None:
        super().__init__()
        self.targets = tuple(part for part in PARTS if part in targets)
        self.scale = (rank if alpha is None else alpha) / rank
        # One matrix for all A, so that tokens are read once: rows i r ... (i + 1) r belong to target i.
        self.down = nn.Parameter(torch.empty(len(self.targets) * rank, width))
        self.up = nn.Parameter(torch.zeros(len(self.targets), width, rank))
        if init == "kaiming":
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        else:
            nn.init.normal_(self.down, std=1 / rank)

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the changes; queries are ``(B, n, D)``, keys and values ``(B, N, D)``."""
        found = {"q": query, "k": key, "v": value}
        if wanted is normed:
            low = F.linear(normed, self.down).chunk(len(self.targets), dim=-1)  # each (B, N, r)
        else:
            rows = self.down.chunk(len(self.targets))
            low = tuple(
                F.linear(wanted if part == "q" else normed, row) for part, row in zip(self.targets, rows, strict=True)
            )
        for part, small, up in zip(self.targets, low, self.up, strict=True):
            found[part] = found[part] + self.scale * F.linear(small, up)
        return found["q"], found["k"], found["v"]

    def delta(self) -> Tensor:
        """What the fused projection's weight ``(3 D, D)`` changes by."""
        width = self.down.shape[1]
        parts = dict(zip(self.targets, zip(self.up, self.down.chunk(len(self.targets)), strict=True), strict=True))
        zero = self.down.new_zeros(width, width)
        return torch.cat([self.scale * (parts[p][0] @ parts[p][1]) if p in parts else zero for p in PARTS])


def merge(vit: nn.Module, changes: Iterable[LoRA], *, sign: int = 1) -> None:
    """Adds the changes to the backbone's own projections, in place: no cost at test time is left.

    Args:
        vit: timm `VisionTransformer`, built of plain blocks.
        changes: One per block; use them no longer after the merge.
        sign: -1 takes them out again, to rounding.
    """
    with torch.no_grad():
        for block, change in zip(vit.blocks, changes, strict=True):  # type: ignore[arg-type]
            block.attn.qkv.weight += sign * change.delta()
