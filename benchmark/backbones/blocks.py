"""The blocks of any plain timm ViT, with prefixes, inserted tokens and adapters, and nothing computed in vain.

`run_blocks` is what every prompted or adapted method calls. It uses timm's modules one by one
(``norm1``, ``attn.qkv``, ``attn.proj``, ``ls1``, ``norm2``, ``mlp``, ...), so there is no second transformer
here, and it leaves out exactly what nobody reads: given ``read``, the last block computes
queries, projection and MLP of those tokens alone (keys and values need all of them). Outputs and
gradients are those of the full pass to rounding.

Text towers use the same blocks with ``causal=True`` (`benchmark.backbones.text`).

Shapes: B batch, N tokens, D width, H heads, d = D / H, m prefix length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmark.errors import UsageError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

Prefix = tuple[Tensor, Tensor]
"""Keys and values, each ``(B, m, D)`` or ``(1, m, D)`` for all images alike."""

Change = Callable[[Tensor], Tensor]
"""What happens to the tokens ``(B, N, D)`` before a block; N may change."""

Mixing = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries ``(B, H, n, d)`` to keys and values ``(B, H, N, d)``: what it mixes, ``(B, H, n, d)``."""

Read = slice | Tensor
"""Tokens that are wanted: a slice for all rows alike, or one position per row, int64 ``(B,)``."""


class _Way(NamedTuple):
    """How blocks are computed: the same numbers, in less memory or less time."""

    again: bool = False
    compiled: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None = None


_USUAL = _Way()
_WAY: ContextVar[_Way] = ContextVar("way", default=_USUAL)


@contextlib.contextmanager
def computed(
    *, again: bool = False, compiled: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None = None
) -> Iterator[None]:
    """How blocks are computed inside, in this thread; without arguments as usual.

    Args:
        again: What a block computes is not kept for its gradients but computed again (`torch.utils.checkpoint`).
        compiled: Makes a faster function of one, e.g. `torch.compile`; asked for a block in parts and one as a whole.
    """
    token = _WAY.set(_Way(again, compiled))
    try:
        yield
    finally:
        _WAY.reset(token)


def compiled() -> bool:
    """Whether blocks are compiled, here and now; their last bits differ."""
    return _WAY.get().compiled is not None


def _computed(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    way = _WAY.get()
    if way.compiled is not None:
        function = way.compiled(function)
    if way.again and torch.is_grad_enabled():
        again: Tensor = checkpoint(function, *args, use_reentrant=False, **kwargs)
        return again
    return function(*args, **kwargs)


class Ragged:
    """Rows of different lengths one behind the other, so that what works token by token skips the padding.

    Args:
        lengths: Tokens of each of B rows, int64 ``(B,)``.
        longest: N, at least the largest of them.
        device: Where the rows are; default: where the lengths are. Lengths of the CPU are asked without waiting for it.
    """

    def __init__(self, lengths: Tensor, longest: int, device: torch.device | None = None) -> None:
        inside = torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
        places = inside.flatten().nonzero().squeeze(1)  # (T,) among B * N
        self._places = places if device is None else places.to(device, non_blocking=True)
        self._shape = tuple(inside.shape)

    def pack(self, padded: Tensor) -> Tensor:
        """``(1, T, D)`` from ``(B, N, D)``."""
        return padded.flatten(0, 1).index_select(0, self._places).unsqueeze(0)

    def pad(self, packed: Tensor) -> Tensor:
        """``(B, N, D)`` from ``(1, T, D)``, zeros behind each row's end."""
        rows, longest = self._shape
        empty = packed.new_zeros(rows * longest, packed.shape[-1])
        return empty.index_copy(0, self._places, packed[0]).view(rows, longest, -1)


class BlockAdapter(nn.Module):
    """A module inside one block. Subclasses override one place or more; the defaults change nothing."""

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Changes queries, keys and values before they are split into heads (and normed, where a model does).

        Args:
            normed: Input of the projections, ``(B, N, D)``.
            wanted: Those of them whose queries are wanted, ``(B, n, D)``; `normed` itself when all are.
            query: ``(B, n, D)``.
            key: ``(B, N, D)``.
            value: ``(B, N, D)``.
        """
        return query, key, value

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mixing: Mixing) -> Tensor:
        """Does what attention does between the projections, head by head.

        Args:
            query: ``(B, H, n, d)``.
            key: ``(B, H, N, d)``, a prefix first.
            value: ``(B, H, N, d)``.
            mixing: What the model does; where attention is not causal, with any number of keys.
        """
        return mixing(query, key, value)

    def output(self, mixed: Tensor, branch: Tensor) -> Tensor:
        """Changes the output projection of attention.

        Args:
            mixed: Its input: values mixed by attention, heads side by side, ``(B, n, D)``.
            branch: Its output, ``(B, n, D)``.
        """
        return branch

    def after_attention(self, branch: Tensor) -> Tensor:
        """Changes the output ``(B, N, D)`` of the attention branch before it is added to the stream."""
        return branch

    def beside_attention(self, branch: Tensor, normed: Tensor) -> Tensor:
        """Changes the same, later, knowing what entered the branch.

        Args:
            branch: What `after_attention` returned, ``(B, n, D)``.
            normed: ``LN1(stream)`` of these tokens.
        """
        return branch

    def after_mlp(self, branch: Tensor, stream: Tensor) -> Tensor:
        """Changes the output of the MLP branch before it is added.

        Args:
            branch: ``MLP(LN2(stream))``, ``(B, N, D)``.
            stream: The residual stream that entered the MLP branch, before its LayerNorm.
        """
        return branch


def check_plain_blocks(vit: VisionTransformer) -> None:
    """Makes sure that prefixes and adapters can be put into the blocks of a model.

    Raises:
        UsageError: Its blocks are not pre-norm blocks with joint attention (parallel, post-norm, gated).
    """
    for index, block in enumerate(vit.blocks):
        if not is_plain(block):
            raise UsageError(
                f"block {index} of this backbone ({type(block).__name__}) takes no prefixes and adapters",
                hint="use a plain ViT, e.g. timm:vit_base_patch16_224.orig_in21k",
            )


def is_plain(block: Any) -> bool:
    """Whether a block is timm's ``Block`` with its ``Attention``, of which the passes here are made."""
    attention = getattr(block, "attn", None)
    return (
        type(block).__name__ == "Block"
        and type(attention).__name__ == "Attention"
        and getattr(attention, "gate", None) is None
    )


def run_blocks(
    vit: VisionTransformer,
    tokens: Tensor,
    *,
    read: slice | None = None,
    prefixes: Mapping[int, Prefix] | None = None,
    before: Mapping[int, Change] | None = None,
    keep: Mapping[int, slice] | None = None,
    adapters: Sequence[BlockAdapter | None] | None = None,
) -> Tensor:
    """All blocks, then the final LayerNorm.

    Args:
        vit: The model.
        tokens: Input of the first block, ``(B, N, D)``.
        read: Tokens that are wanted, e.g. ``slice(0, 1)`` for the class token; None for all.
        prefixes: Per block, keys and values put in front of its own. They pass through neither LayerNorm nor
            ``qkv`` and have no positions; the number of tokens does not change.
        before: Per block, a change of its input tokens: insert, replace, remove.
        keep: Per block but the last, the tokens of its output that go on; the others are not computed. Prompts
            that stand last and are replaced before the next block cost keys and values only.
        adapters: One module per block, None for those that have none; or None.

    Returns:
        Normed tokens ``(B, n, D)``, n of them as ``read`` says.
    """
    prefixes, before, keep = prefixes or {}, before or {}, keep or {}
    last = len(vit.blocks) - 1
    for index, block in enumerate(vit.blocks):
        if index in before:
            tokens = before[index](tokens)
        adapter = adapters[index] if adapters is not None else None
        wanted = read if index == last else keep.get(index)
        if (index in prefixes or adapter is not None or wanted is not None) and is_plain(block):
            tokens = run_block(block, tokens, read=wanted, prefix=prefixes.get(index), adapter=adapter)
        else:
            tokens = _computed(_whole, block, tokens)
            tokens = tokens if wanted is None else tokens[:, wanted]
    result: Tensor = vit.norm(tokens)
    return result


def run_block(
    block: Any,
    tokens: Tensor,
    *,
    read: Read | None = None,
    prefix: Prefix | None = None,
    adapter: BlockAdapter | None = None,
    causal: bool = False,
    ragged: Ragged | None = None,
) -> Tensor:
    """One plain block; arguments as of `run_blocks` and `attend`."""
    return _computed(_in_parts, block, tokens, read=read, prefix=prefix, adapter=adapter, causal=causal, ragged=ragged)


def _whole(block: Any, tokens: Tensor) -> Tensor:
    result: Tensor = block(tokens)
    return result


def _in_parts(
    block: Any,
    tokens: Tensor,
    *,
    read: Read | None,
    prefix: Prefix | None,
    adapter: BlockAdapter | None,
    causal: bool,
    ragged: Ragged | None,
) -> Tensor:
    normed = block.norm1(tokens)
    branch = attend(block.attn, normed, read=read, prefix=prefix, adapter=adapter, causal=causal, ragged=ragged)
    if adapter is not None:
        branch = adapter.after_attention(branch)
        branch = adapter.beside_attention(branch, normed if read is None else take(normed, read))
    stream = tokens if read is None else take(tokens, read)
    stream = stream + block.drop_path1(block.ls1(branch))
    branch = block.mlp(block.norm2(stream))
    if adapter is not None:
        branch = adapter.after_mlp(branch, stream)
    result: Tensor = stream + block.drop_path2(block.ls2(branch))
    return result


def take(tokens: Tensor, read: Read) -> Tensor:
    """The wanted tokens, ``(B, n, D)``; n is 1 where each row has a position of its own."""
    if isinstance(read, slice):
        return tokens[:, read]
    return tokens[torch.arange(len(tokens), device=tokens.device), read].unsqueeze(1)


def attend(
    attention: Any,
    tokens: Tensor,
    *,
    read: Read | None = None,
    prefix: Prefix | None = None,
    adapter: BlockAdapter | None = None,
    causal: bool = False,
    ragged: Ragged | None = None,
) -> Tensor:
    """Multi-head attention of timm's ``Attention`` with a key/value prefix, for some of the queries.

    Args:
        attention: The module; its ``qkv`` may have been replaced by any module of the same shape.
        tokens: Normed, ``(B, N, D)``.
        read: Queries that are wanted; None for all.
        prefix: Keys and values put in front.
        adapter: Asked for its `project`, `mix` and `output`.
        causal: Whether a token sees only itself and those before it; it sees a whole prefix.
        ragged: Says that ``tokens`` are packed, ``(1, T, D)``. Only with ``causal`` and without ``read``: a row
            must not see its padding.

    Returns:
        ``(B, n, D)``, n as ``read`` says, after projection; packed if ``tokens`` are.
    """
    heads = attention.num_heads
    if ragged is not None and (read is not None or not causal):
        raise ValueError("packed rows need causal attention, and all of their tokens are computed")

    def split(values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], heads, attention.head_dim).transpose(1, 2)  # (B, H, N, d)

    qkv = attention.qkv
    # A module that was replaced, or that has hooks, is asked for everything.
    if read is not None and type(qkv) is nn.Linear and not qkv._forward_hooks:
        width = qkv.out_features // 3
        bias = (None, None) if qkv.bias is None else (qkv.bias[:width], qkv.bias[width:])
        query = F.linear(take(tokens, read), qkv.weight[:width], bias[0])
        key, value = F.linear(tokens, qkv.weight[width:], bias[1]).chunk(2, dim=-1)
    else:
        query, key, value = qkv(tokens).chunk(3, dim=-1)
        query = query if read is None else take(query, read)
    if adapter is not None:
        wanted = tokens if read is None else take(tokens, read)
        query, key, value = adapter.project(tokens, wanted, query, key, value)
    if ragged is not None:
        query, key, value = ragged.pad(query), ragged.pad(key), ragged.pad(value)
    batch, count = key.shape[:2]
    query, key, value = attention.q_norm(split(query)), attention.k_norm(split(key)), split(value)
    if prefix is not None:
        more_keys, more_values = (split(part).expand(batch, -1, -1, -1) for part in prefix)
        key, value = torch.cat([more_keys, key], dim=2), torch.cat([more_values, value], dim=2)
    rate = attention.attn_drop.p if attention.training else 0.0
    plain = causal and read is None and prefix is None
    mask = _causal_mask(batch, count, read, key) if causal and not plain else None

    def mixing(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=rate, is_causal=plain, scale=attention.scale
        )

    mixed = mixing(query, key, value) if adapter is None else adapter.mix(query, key, value, mixing)
    mixed = mixed.transpose(1, 2).flatten(2)
    if ragged is not None:
        mixed = ragged.pack(mixed)
    if hasattr(attention, "norm"):  # timm 1.0.10 and newer
        mixed = attention.norm(mixed)
    branch = attention.proj(mixed)
    if adapter is not None:
        branch = adapter.output(mixed, branch)
    result: Tensor = attention.proj_drop(branch)
    return result


def _causal_mask(batch: int, count: int, read: Read | None, key: Tensor) -> Tensor:
    """Which of the keys, a prefix first, each wanted query of ``count`` tokens sees: ``(1 or B, 1, n, keys)``."""
    places = torch.arange(count, device=key.device)
    queries = places.unsqueeze(0) if read is None else take(places.expand(batch, -1), read)
    seen = places <= queries.unsqueeze(-1)  # (1 or B, n, N)
    return F.pad(seen, (key.shape[2] - count, 0), value=True).unsqueeze(1)
