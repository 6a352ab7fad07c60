"""The pass through the blocks: equal to timm's own, and to the full pass where something is left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from torch import Tensor, nn

from benchmark.backbones import blocks
from benchmark.backbones.blocks import BlockAdapter, Ragged, run_block, run_blocks
from benchmark.errors import UsageError
from benchmark.testing.toys import tiny_backbone

ARCHITECTURES: list[dict[str, Any]] = [
    {},
    {"depth": 1},
    {"qkv_bias": False},
    {"qk_norm": True},
    {"init_values": 0.1},
]
READS = [slice(0, 1), slice(1, 4), slice(4, None), slice(0, 17)]


def tokens_of(count: int = 3) -> Tensor:
    return torch.randn(count, 17, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def vit_of(**architecture: Any) -> Any:
    return tiny_backbone(**architecture).model.double()


def by_hand(vit: Any, tokens: Tensor, prefixes: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
    """The plain computation: explicit softmax attention, every token of every block."""
    for index, block in enumerate(vit.blocks):
        normed, attention = block.norm1(tokens), block.attn
        heads, width = attention.num_heads, tokens.shape[-1]
        query, key, value = (attention.qkv(normed)[..., i * width : (i + 1) * width] for i in range(3))
        if index in prefixes:
            keys, values = (part.expand(len(tokens), -1, -1) for part in prefixes[index])
            key, value = torch.cat([keys, key], dim=1), torch.cat([values, value], dim=1)
        mixed = torch.empty_like(query)
        size = width // heads
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            scores = query[..., cut] @ key[..., cut].transpose(1, 2) / size**0.5
            mixed[..., cut] = scores.softmax(dim=-1) @ value[..., cut]
        tokens = tokens + attention.proj(mixed)
        tokens = tokens + block.mlp(block.norm2(tokens))
    result: Tensor = vit.norm(tokens)
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("read", READS, ids=str)
def test_reading_few_tokens_gives_their_outputs_and_gradients(architecture: dict[str, Any], read: slice) -> None:
    vit = vit_of(**architecture)
    found = []
    for part in (read, None):
        tokens = tokens_of().requires_grad_(True)
        vit.zero_grad()
        out = run_blocks(vit, tokens, read=part)
        out = out if part is not None else out[:, read]
        (out * torch.arange(32.0)).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [tokens.grad, *(p.grad for p in vit.blocks.parameters())]
        found.append((out.detach(), [None if g is None else g.clone() for g in gradients]))
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_the_whole_pass_is_timms_own(architecture: dict[str, Any]) -> None:
    vit = vit_of(**architecture)
    expected = vit.norm(vit.blocks(tokens_of()))
    torch.testing.assert_close(run_blocks(vit, tokens_of()), expected)
    torch.testing.assert_close(run_blocks(vit, tokens_of(), read=slice(2, 5)), expected[:, 2:5])
    nothing = torch.empty(1, 0, 32, dtype=torch.float64)
    empty = {index: (nothing, nothing) for index in range(len(vit.blocks))}
    torch.testing.assert_close(run_blocks(vit, tokens_of(), prefixes=empty), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_prefixes_are_keys_and_values_without_projection(batch: int) -> None:
    vit = vit_of()
    draw = torch.Generator().manual_seed(2)
    prefixes = {
        index: tuple(torch.randn(batch, 2, 32, generator=draw, dtype=torch.float64) for _ in range(2))
        for index in (0, 1)
    }
    expected = by_hand(vit, tokens_of(), prefixes)  # type: ignore[arg-type]
    torch.testing.assert_close(run_blocks(vit, tokens_of(), prefixes=prefixes), expected)  # type: ignore[arg-type]
    few = run_blocks(vit, tokens_of(), prefixes=prefixes, read=slice(0, 1))  # type: ignore[arg-type]
    torch.testing.assert_close(few, expected[:, :1])
    assert not torch.allclose(expected, run_blocks(vit, tokens_of()))


def test_tokens_can_be_changed_before_any_block() -> None:
    vit = vit_of()
    extra = torch.randn(3, 2, 32, dtype=torch.float64)
    change = {1: lambda tokens: torch.cat([tokens, extra], dim=1)}
    out = run_blocks(vit, tokens_of(), before=change)
    assert out.shape == (3, 19, 32)
    step = torch.cat([vit.blocks[0](tokens_of()), extra], dim=1)
    torch.testing.assert_close(out, vit.norm(vit.blocks[1](step)))


def joined(later: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([tokens, later], dim=1)


def test_tokens_that_are_thrown_away_are_not_computed_and_nobody_notices() -> None:
    vit = vit_of()
    start, fresh = tokens_of(), torch.randn(3, 4, 32, dtype=torch.float64)
    grads, outs = [], []
    for exact in (False, True):
        first, later = start.clone().requires_grad_(True), fresh.clone().requires_grad_(True)
        if exact:
            change = {1: partial(joined, later)}
            out = run_blocks(vit, first, before=change, keep={0: slice(0, -4)}, read=slice(0, 1))
        else:
            out = vit.norm(vit.blocks[1](joined(later, vit.blocks[0](first)[:, :-4])))[:, :1]
        out.square().sum().backward()
        outs.append(out)
        grads += [first.grad, later.grad]
    torch.testing.assert_close(outs[0], outs[1], atol=1e-12, rtol=0)
    torch.testing.assert_close(grads[:2], grads[2:], atol=1e-12, rtol=0)
    assert grads[0] is not None
    assert grads[0][:, -4:].abs().amin() > 0  # they are seen by the others


class Doubled(BlockAdapter):
    """Adds the stream to the MLP branch and doubles the attention branch."""

    def after_attention(self, branch: Tensor) -> Tensor:
        return 2 * branch

    def after_mlp(self, branch: Tensor, stream: Tensor) -> Tensor:
        return branch + stream


@pytest.mark.parametrize("read", [None, slice(0, 1)])
def test_adapters_sit_inside_the_residual_branches(read: slice | None) -> None:
    block = vit_of().blocks[0]
    tokens = tokens_of()
    middle = tokens + 2 * block.attn(block.norm1(tokens))
    expected = 2 * middle + block.mlp(block.norm2(middle))
    out = run_block(block, tokens, read=read, adapter=Doubled())
    torch.testing.assert_close(out, expected if read is None else expected[:, read])


def test_a_neutral_adapter_changes_nothing() -> None:
    vit = vit_of()
    adapters = [BlockAdapter() for _ in vit.blocks]
    torch.testing.assert_close(run_blocks(vit, tokens_of(), adapters=adapters), vit.norm(vit.blocks(tokens_of())))


def test_a_replaced_projection_is_asked_as_a_whole() -> None:
    class Shifted(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, tokens: Tensor) -> Tensor:
            result: Tensor = self.inner(tokens) + 0.5
            return result

    vit = vit_of()
    vit.blocks[-1].attn.qkv = Shifted(vit.blocks[-1].attn.qkv)
    expected = vit.norm(vit.blocks(tokens_of()))
    torch.testing.assert_close(run_blocks(vit, tokens_of(), read=slice(0, 1)), expected[:, :1])


def test_other_blocks_run_whole_and_refuse_what_cannot_be_put_into_them() -> None:
    vit = vit_of(block_fn=ParallelScalingBlock)
    expected = vit.norm(vit.blocks(tokens_of()))
    torch.testing.assert_close(run_blocks(vit, tokens_of(), read=slice(0, 1)), expected[:, :1])
    with pytest.raises(UsageError, match="block 0 of this backbone \\(ParallelScalingBlock\\)"):
        blocks.check_plain_blocks(vit)
    blocks.check_plain_blocks(vit_of())


def causal_by_hand(block: Any, tokens: Tensor) -> Tensor:
    """One block in which token i is computed from tokens 0 to i alone, one at a time."""
    rows = [run_block(block, tokens[:, : end + 1])[:, -1] for end in range(tokens.shape[1])]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("read", [None, *READS, torch.tensor([3, 0, 16])], ids=str)
def test_causal_attention_sees_only_what_is_before(read: Any) -> None:
    block, tokens = vit_of().blocks[0], tokens_of()
    expected = causal_by_hand(block, tokens)
    found = run_block(block, tokens, read=read, causal=True)
    wanted = expected if read is None else blocks.take(expected, read)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("read", [None, slice(2, 5), torch.tensor([3, 0, 16])], ids=str)
def test_every_token_sees_a_whole_prefix(read: Any) -> None:
    block, tokens = vit_of().blocks[0], tokens_of()
    prefix = (tokens[:, :4] * 0.5, tokens[:, 4:8])
    rows = [run_block(block, tokens[:, : end + 1], prefix=prefix)[:, -1] for end in range(17)]
    expected = torch.stack(rows, dim=1)
    found = run_block(block, tokens, read=read, prefix=prefix, causal=True)
    torch.testing.assert_close(found, expected if read is None else blocks.take(expected, read))


def test_one_position_per_row() -> None:
    tokens = tokens_of()
    found = blocks.take(tokens, torch.tensor([2, 0, 5]))
    assert found.shape == (3, 1, 32)
    assert torch.equal(found[:, 0], torch.stack([tokens[0, 2], tokens[1, 0], tokens[2, 5]]))


@pytest.mark.parametrize("with_prefix", [False, True])
def test_packed_rows_give_the_outputs_and_gradients_of_padded_ones(with_prefix: bool) -> None:
    block, lengths = vit_of().blocks[0], torch.tensor([5, 17, 1])
    ragged, found = Ragged(lengths, 17), []
    for packed in (True, False):
        tokens = tokens_of().requires_grad_(True)
        prefix = (tokens[:, :4] * 0.5, tokens[:, 4:8]) if with_prefix else None
        if packed:
            out = run_block(block, ragged.pack(tokens), prefix=prefix, causal=True, ragged=ragged)
            assert out.shape == (1, 23, 32)
            out = ragged.pad(out)
            assert not out[2, 1:].any()
        else:
            out = run_block(block, tokens, prefix=prefix, causal=True)
        rows = torch.cat([out[row, :length] for row, length in enumerate(lengths.tolist())])
        rows.sin().sum().backward()
        found.append((rows.detach(), tokens.grad))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_packed_rows_are_never_read_in_part() -> None:
    block, ragged = vit_of().blocks[0], Ragged(torch.tensor([5, 17, 1]), 17)
    tokens = ragged.pack(tokens_of())
    for options in ({"causal": False}, {"causal": True, "read": slice(0, 1)}):
        with pytest.raises(ValueError, match="packed rows need causal attention"):
            run_block(block, tokens, ragged=ragged, **options)
