"""Prefixes in the attention of any transformer of the library transformers, and what its attention was given.

Every model there calls its attention through one table of functions; `install` names ours. It is scaled dot-product
attention, in front of whose keys and values a *prefix* may stand: for each attention of the model P keys and P values
that every position sees and that have no queries (Li and Liang, arXiv 2101.00190; P-tuning v2, arXiv 2110.07602). One
code path serves BERT, ModernBERT, GPT-2, Llama, T5 and BART, in training and in generation, with any cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "adaptbench"

Pair = tuple[Tensor, Tensor]
Observer = Callable[[nn.Module, Tensor, Tensor, Tensor], None]

_PREFIXES: WeakKeyDictionary[nn.Module, Pair] = WeakKeyDictionary()
_OBSERVERS: list[Observer] = []


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention behind the prefix of a module.

    Args:
        module: The attention that calls.
        query: ``(B, h, n, d)``.
        key: ``(B, g, m, d)``; g divides h where heads share keys.
        value: Likewise.
        attention_mask: Added to the scores, ``(B or 1, 1, n, m)``; None: every position sees every other.
        scaling: Of the scores; default: ``d ** -0.5``.
        dropout: Of the weights.
        position_bias: Added to the scores, ``(1, h, n, m)`` (T5).

    Returns:
        ``(B, n, h, d)``, and None for the weights.
    """
    for observe in _OBSERVERS:
        observe(module, query, key, value)
    bias = attention_mask
    if position_bias is not None:
        bias = position_bias if bias is None else position_bias + bias
    if (prefix := _PREFIXES.get(module)) is not None:
        before = [part.expand(len(key), -1, -1, -1) for part in prefix]
        key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        if bias is not None:
            bias = F.pad(bias, (prefix[0].shape[2], 0))
    if key.shape[1] != query.shape[1]:
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling)
    return found.transpose(1, 2).contiguous(), None


def install(model: Any) -> None:
    """Makes a model of transformers use `attend`, with masks that are added to the scores."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)


@contextmanager
def prefixed(prefix: Mapping[nn.Module, Pair]) -> Iterator[None]:
    """Within it, the keys and values of each module stand in front of its own.

    Args:
        prefix: For an attention, keys and values ``(1 or B, g, P, d)``.
    """
    _PREFIXES.update(prefix)
    try:
        yield
    finally:
        for module in prefix:
            _PREFIXES.pop(module, None)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Within it, an observer is shown each attention with its queries, keys and values, in the order of the calls."""
    _OBSERVERS.append(observer)
    try:
        yield
    finally:
        _OBSERVERS.remove(observer)


def stacked(pairs: Sequence[Pair]) -> Tensor:
    """Keys and values of L layers as one tensor ``(L, 2, B, g, n, d)``."""
    return torch.stack([torch.stack(pair) for pair in pairs])
