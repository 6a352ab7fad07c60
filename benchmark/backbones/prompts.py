"""Pools of prompts with keys: selection by cosine similarity, pull term, selection counts.

Shapes: B batch, M pool size, Lp prompt length, k prompts selected, D width. The arithmetic is the
one that google-research/l2p (8cfb210 and dd8836e) and l2p-pytorch (f7bc994) share.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

PoolInit = Literal["uniform", "flax_uniform"]


class PromptPool(nn.Module):
    """Prompts ``(M, Lp, D)`` with one key ``(D,)`` each.

    Args:
        size: M.
        length: Lp.
        width: D.
        prompt_init: ``uniform`` draws from [-1, 1], ``flax_uniform`` from [0, 0.01) (flax's default).
        key_init: Likewise, for the keys.
    """

    def __init__(
        self, size: int, length: int, width: int, *, prompt_init: PoolInit = "uniform", key_init: PoolInit = "uniform"
    ) -> None:
        super().__init__()
        self.prompts = nn.Parameter(_draw(torch.empty(size, length, width), prompt_init))
        self.keys = nn.Parameter(_draw(torch.empty(size, width), key_init))

    @property
    def size(self) -> int:
        """M."""
        return len(self.keys)

    def similarity(self, query: Tensor) -> Tensor:
        """Cosine of every query ``(B, D)`` with every key, ``(B, M)``."""
        return normalize(query) @ normalize(self.keys).T

    def gather(self, index: Tensor) -> Tensor:
        """Prompts in the order of ``index`` (B, k), joined to ``(B, k * Lp, D)``."""
        return self.prompts[index].flatten(1, 2)

    def copy_slots(self, source: range, target: range) -> None:
        """Copies prompts from one range of slots to another, in place (``shared_prompt_pool``)."""
        with torch.no_grad():
            self.prompts[target.start : target.stop] = self.prompts[source.start : source.stop].clone()


def _draw(tensor: Tensor, rule: PoolInit) -> Tensor:
    return tensor.uniform_(-1.0, 1.0) if rule == "uniform" else tensor.uniform_(0.0, 0.01)


def normalize(vectors: Tensor) -> Tensor:
    """Rows divided by their length, ``x * rsqrt(max(sum x^2, 1e-12))``."""
    return vectors * vectors.square().sum(dim=-1, keepdim=True).clamp(min=1e-12).rsqrt()


def top_k(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest values of each row, best first; of equal ones the smaller index first.

    ``torch.topk`` promises nothing for ties; JAX prefers the smaller index, and so do we.
    """
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[..., :k]


def vote(index: Tensor, size: int, k: int, *, group: int = 0) -> Tensor:
    """Batchwise selection: the k prompts chosen most often serve every image of the batch.

    Args:
        index: Choices of each image, ``(B, k)``.
        size: Pool size M.
        k: Prompts to keep.
        group: Images that vote together, 0 for the whole batch. JAX code votes per device.

    Returns:
        ``(B, k)``, rows of a group equal, most frequent first, ties by smaller index.
    """
    groups = torch.split(index, group) if group else (index,)
    return torch.cat([top_k(count(part, size), k).expand(len(part), k) for part in groups])


def count(index: Tensor, size: int) -> Tensor:
    """How often each prompt occurs in ``index``, int64 ``(M,)``."""
    # `bincount` would make the host wait for a device: it asks for the largest index.
    return (index.reshape(-1, 1) == torch.arange(size, device=index.device)).sum(dim=0)


def pull(similarity: Tensor, index: Tensor) -> Tensor:
    """Batch mean of the sum, over the selected prompts, of cosine similarities: the term R.

    It is subtracted from the loss. Keys get gradient from nowhere else.
    """
    return similarity.gather(1, index).sum() / len(index)
