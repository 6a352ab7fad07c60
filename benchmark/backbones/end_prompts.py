"""Prompt tokens at the end of the sequence, as RevisitingCIL, LAMDA-PILOT and RanPAC have them.

They stand behind the patches, start at zero and have no position; KMnP/vpt inserts its own behind the
class token. For `benchmark.backbones.blocks.run_blocks`::

    prompts = EndPrompts(width, count=5, depth=len(vit.blocks))
    tokens = run_blocks(vit, embed(vit, images), before=prompts.before(), keep=prompts.keep(), read=CLS)

Shapes: B batch, N tokens, D width, m prompts.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmark.backbones.blocks import Change


class EndPrompts(nn.Module):
    """Prompts ``(depth, m, D)``.

    Args:
        width: D.
        count: m.
        depth: 1: the prompts go through all blocks (shallow). As many as blocks: each block gets its own in
            place of what the block before made of its own (deep).
    """

    def __init__(self, width: int, *, count: int, depth: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.zeros(depth, count, width))

    def before(self) -> dict[int, Change]:
        """What happens to the tokens before a block: its prompts are appended."""
        return {index: partial(_append, prompts) for index, prompts in enumerate(self.prompts)}

    def keep(self) -> dict[int, slice]:
        """The tokens that go on from a block whose successor has prompts of its own: all but the prompts."""
        return {index: slice(0, -self.prompts.shape[1]) for index in range(len(self.prompts) - 1)}


def _append(prompts: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([tokens, prompts.expand(len(tokens), -1, -1)], dim=1)  # (B, N + m, D)
