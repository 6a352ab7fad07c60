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
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter

LoRAInit = Literal["kaiming", "gaussian"]
PARTS = "qkv"  # the order in which timm's fused projection has them


class LoRA(BlockAdapter):
    """``W x + b`` becomes ``(W + alpha / r * B A) x + b`` for some of the four projections.

    Args:
        width: D.
        rank: r.
        alpha: Scale of the change times the rank.
        targets: Letters of ``qkvo``; ``o`` is the output projection.
        init: How A is drawn: ``kaiming`` (uniform, a = sqrt 5: the official code) or ``gaussian`` (the
            paper's word; standard deviation 1 / r). B starts at 0, so the model starts unchanged.
        learn_scale: Each target has a further factor that is learnt and starts at 1.
        stabilised: The scale is ``alpha / sqrt r`` (Kalajdzievski, 2023, arXiv 2312.03732).
        dropout: Rate on the input of a change, with a mask for each projection.
    """

    def __init__(
        self,
        width: int,
        *,
        rank: int,
        alpha: float | None = None,
        targets: str = "qv",
        init: LoRAInit = "kaiming",
        learn_scale: bool = False,
        stabilised: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.targets = tuple(part for part in f"{PARTS}o" if part in targets)
        self.scale = (rank if alpha is None else alpha) / (math.sqrt(rank) if stabilised else rank)
        self.dropout = nn.Dropout(dropout)
        # One matrix for all A, so that tokens are read once: rows i r ... (i + 1) r belong to target i.
        self.down = nn.Parameter(torch.empty(len(self.targets) * rank, width))
        self.up = nn.Parameter(torch.zeros(len(self.targets), width, rank))
        self.factors = nn.Parameter(torch.ones(len(self.targets))) if learn_scale else None
        if init == "kaiming":
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        else:
            nn.init.normal_(self.down, std=1 / rank)

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the changes; queries are ``(B, n, D)``, keys and values ``(B, N, D)``."""
        found = {"q": query, "k": key, "v": value}
        if wanted is normed and "o" not in self.targets and not self._drops:
            low = F.linear(normed, self.down).chunk(len(self.targets), dim=-1)  # each (B, N, r)
        else:
            rows = self.down.chunk(len(self.targets))
            low = tuple(
                F.linear(self._dropped(wanted if part == "q" else normed), row)
                for part, row in zip(self.targets, rows, strict=True)
                if part != "o"
            )
        for part, small, up, scale in zip(self.targets, low, self.up, self._scales(), strict=False):  # `o` is last
            found[part] = found[part] + scale * F.linear(small, up)
        return found["q"], found["k"], found["v"]

    def output(self, mixed: Tensor, branch: Tensor) -> Tensor:
        """Adds the change of the output projection."""
        if "o" not in self.targets:
            return branch
        row = self.down.chunk(len(self.targets))[-1]
        return branch + self._scales()[-1] * F.linear(F.linear(self._dropped(mixed), row), self.up[-1])

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout.p > 0

    def _dropped(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.dropout(tokens)
        return found

    def _scales(self) -> Sequence[float | Tensor]:
        if self.factors is None:
            return [self.scale] * len(self.targets)
        return (self.scale * self.factors).unbind()

    def delta(self) -> Tensor:
        """What the fused projection's weight ``(3 D, D)`` changes by; the output projection is not in it."""
        width = self.down.shape[1]
        down = self.down.chunk(len(self.targets))
        changes = [scale * (up @ low) for scale, up, low in zip(self._scales(), self.up, down, strict=True)]
        parts = dict(zip(self.targets, changes, strict=True))
        zero = self.down.new_zeros(width, width)
        return torch.cat([parts.get(part, zero) for part in PARTS])


class Branch(nn.Module):
    """The factors of one low-rank change of a block, for `Branches`.

    Args:
        width: D.
        rank: r.
        targets: How many projections it changes.
        shared: One A for all of them; else each has its own.
    """

    def __init__(self, width: int, *, rank: int, targets: int, shared: bool = False) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(1 if shared else targets, rank, width))  # A
        self.up = nn.Parameter(torch.zeros(targets, width, rank))  # B
        nn.init.uniform_(self.down, -1 / math.sqrt(width), 1 / math.sqrt(width))  # Kaiming, a = sqrt 5, of each A


class Branches(BlockAdapter):
    """``W x + sum over k of m_k B_k A_k x`` for some projections of one block, a term per experience.

    All terms are computed as one product of rank ``t r``. It holds no parameters of its own::

        sets = TaskModules(lambda: nn.ModuleList(Branch(width, rank=10, targets=2) for _ in vit.blocks))
        sets.open()
        adapters = [Branches(each, targets="kv") for each in zip(*sets)]

    Args:
        branches: Those of the block, in the order of experiences.
        targets: Letters of ``qkv``, in the order in which the branches have them.
        magnitudes: m, ``(t,)``; None: all 1.
        unit: With magnitudes: the terms of all but the last experience are divided by the Frobenius norms of their A
            and B.
    """

    def __init__(
        self, branches: Iterable[Branch], *, targets: str, magnitudes: Tensor | None = None, unit: bool = False
    ) -> None:
        super().__init__()
        self.branches = tuple(branches)  # a tuple: they are registered where they are kept
        self.targets = targets
        self._magnitudes = (magnitudes,)
        self.unit = unit

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds the changes; queries are ``(B, n, D)``, keys and values ``(B, N, D)``."""
        found = {"q": query, "k": key, "v": value}
        downs = torch.stack([branch.down for branch in self.branches], dim=1)  # (targets or 1, t, r, D)
        ups = torch.stack([branch.up for branch in self.branches], dim=1)  # (targets, t, D, r)
        (magnitudes,) = self._magnitudes
        if magnitudes is not None:
            scales = magnitudes.expand(len(ups), -1)
            if self.unit and len(self.branches) > 1:
                norms = downs[:, :-1].flatten(2).norm(dim=2) * ups[:, :-1].flatten(2).norm(dim=2)
                norms = norms.clamp(min=torch.finfo(norms.dtype).tiny)  # a term that never trained stays 0
                scales = torch.cat([scales[:, :-1] / norms, scales[:, -1:]], dim=1)
            ups = ups * scales[:, :, None, None]
        downs = downs.flatten(1, 2)  # (targets or 1, t r, D)
        ups = ups.transpose(1, 2).flatten(2)  # (targets, D, t r)
        for place, part in enumerate(self.targets):
            down = downs[place if len(downs) > 1 else 0]
            low = F.linear(wanted if part == "q" else normed, down)
            found[part] = found[part] + F.linear(low, ups[place])
        return found["q"], found["k"], found["v"]


def merge(vit: nn.Module, changes: Iterable[LoRA], *, sign: int = 1) -> None:
    """Adds the changes to the backbone's own projections, in place: no cost at test time is left.

    Args:
        vit: timm `VisionTransformer`, built of plain blocks.
        changes: One per block; use them no longer after the merge.
        sign: -1 takes them out again, to rounding.

    Raises:
        ValueError: A change is one of the output projection too.
    """
    changes = list(changes)
    if any("o" in change.targets for change in changes):
        raise ValueError("changes of the output projection cannot be merged into the fused one")
    with torch.no_grad():
        for block, change in zip(vit.blocks, changes, strict=True):  # type: ignore[arg-type]
            block.attn.qkv.weight += sign * change.delta()
