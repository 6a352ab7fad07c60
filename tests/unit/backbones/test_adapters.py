"""Adapters and LoRA inside the blocks: the arithmetic by hand, what starts unchanged, what merges."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.adapters import AdapterInit, Bottleneck, HoulsbyAdapter, PfeifferAdapter, reduced
from benchmark.backbones.blocks import BlockAdapter, run_block, run_blocks
from benchmark.backbones.lora import LoRA, merge
from benchmark.errors import UsageError
from benchmark.testing.toys import tiny_backbone

READS = [None, slice(0, 1), slice(3, 9)]


def tokens_of(count: int = 3) -> Tensor:
    return torch.randn(count, 17, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def vit_of(**architecture: Any) -> Any:
    return tiny_backbone(**architecture).model.double()


def stir(module: nn.Module) -> None:
    """Draws every parameter anew, so that nothing is zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)


def by_hand(bottleneck: Bottleneck, tokens: Tensor) -> Tensor:
    down, up = bottleneck.down, bottleneck.up
    hidden = tokens @ down.weight.T + down.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return hidden @ up.weight.T + up.bias


@pytest.mark.parametrize("read", READS, ids=str)
def test_the_places_of_both_kinds(read: slice | None) -> None:
    block, tokens = vit_of().blocks[0], tokens_of()
    pfeiffer, houlsby = PfeifferAdapter(32, 4).double(), HoulsbyAdapter(32, 4).double()
    stir(pfeiffer)
    stir(houlsby)
    attended = block.attn(block.norm1(tokens))
    stream = tokens + attended
    branch = block.mlp(block.norm2(stream))
    wanted = stream + branch + by_hand(pfeiffer.bottleneck, branch)
    cut = slice(None) if read is None else read
    torch.testing.assert_close(run_block(block, tokens, read=read, adapter=pfeiffer), wanted[:, cut])
    stream = tokens + attended + by_hand(houlsby.behind_attention, attended)
    branch = block.mlp(block.norm2(stream))
    wanted = stream + branch + by_hand(houlsby.behind_mlp, branch)
    torch.testing.assert_close(run_block(block, tokens, read=read, adapter=houlsby), wanted[:, cut])


@pytest.mark.parametrize("init", ["kaiming", "zeros", "small"])
def test_initialisation(init: AdapterInit) -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(512, 64, init)
    deviations = {name: float(p.detach().std(correction=0)) for name, p in bottleneck.named_parameters()}
    assert deviations["down.bias"] == deviations["up.bias"] == 0.0
    assert not bottleneck.up.bias.any()
    # torch.nn.Linear draws uniformly within 1 / sqrt(fan in); a normal one cut at two deviations keeps 0.88 of its.
    down = {"kaiming": 512**-0.5 / 3**0.5, "zeros": 0.0, "small": 0.0088}[init]
    assert deviations["down.weight"] == pytest.approx(down, rel=0.02)
    assert deviations["up.weight"] == pytest.approx(0.0088 if init == "small" else 0.0, rel=0.02)
    if init == "small":
        assert float(bottleneck.down.weight.detach().abs().max()) <= 0.02


def test_zeros_are_a_saddle_point_and_the_default_is_not() -> None:
    vit, tokens = vit_of(), tokens_of()
    grown: dict[AdapterInit, set[str]] = {}
    for init in cast("tuple[AdapterInit, ...]", ("zeros", "kaiming")):
        adapters = [PfeifferAdapter(32, 4, init).double() for _ in vit.blocks]
        torch.testing.assert_close(run_blocks(vit, tokens, adapters=adapters), run_blocks(vit, tokens))
        optimizer = torch.optim.Adam([p for adapter in adapters for p in adapter.parameters()], lr=0.01)
        start = {name: p.detach().clone() for name, p in adapters[0].named_parameters()}
        for _ in range(5):
            optimizer.zero_grad()
            run_blocks(vit, tokens, adapters=adapters).pow(2)[..., 0].sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        grown[init] = {name for name, p in adapters[0].named_parameters() if not torch.equal(p, start[name])}
    assert grown["zeros"] == {"bottleneck.up.bias"}
    assert len(grown["kaiming"]) == 4


def test_a_reduction_that_leaves_nothing_is_refused() -> None:
    assert reduced(768, 256) == 3
    assert reduced(100, 8) == 12
    with pytest.raises(UsageError, match="reduction: 256 leaves nothing of this backbone's width 192"):
        reduced(192, 256)


class Explicit(BlockAdapter):
    """LoRA as a change of the weight itself: ``(W + alpha / r B A) x + b``, everything computed."""

    def __init__(self, block: Any, change: LoRA) -> None:
        super().__init__()
        self.block, self.change = [block], change

    def project(
        self, normed: Tensor, wanted: Tensor, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.block[0].attn.qkv
        full = F.linear(normed, qkv.weight + self.change.delta(), qkv.bias)
        query, key, value = full.chunk(3, dim=-1)
        if wanted is not normed:
            query = F.linear(wanted, (qkv.weight + self.change.delta())[: len(qkv.weight) // 3], qkv.bias[:32])
        return query, key, value


def changed(vit: Any, **options: Any) -> list[LoRA]:
    changes = [LoRA(32, **{"rank": 3, "alpha": 5.0, **options}).double() for _ in vit.blocks]
    for change in changes:
        stir(change)
    return changes


@pytest.mark.parametrize("read", READS, ids=str)
@pytest.mark.parametrize("targets", ["qv", "qkv", "k", "v"])
def test_lora_is_a_change_of_the_weight_with_its_gradients(targets: str, read: slice | None) -> None:
    vit = vit_of()
    vit.requires_grad_(False)
    changes = changed(vit, targets=targets)
    found = []
    for adapters in (changes, [Explicit(block, change) for block, change in zip(vit.blocks, changes, strict=True)]):
        for change in changes:
            change.zero_grad()
        out = run_blocks(vit, tokens_of(), read=read, adapters=adapters)
        (out * torch.arange(32.0)).sum().backward()  # type: ignore[no-untyped-call]
        found.append((out.detach(), [cast("Tensor", p.grad).clone() for c in changes for p in c.parameters()]))
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-9)
    assert all(float(gradient.abs().max()) > 0 for gradient in found[0][1])


def test_delta_is_alpha_over_rank_times_b_a_for_the_targets_only() -> None:
    change = LoRA(32, rank=4, alpha=2.0, targets="vq")
    stir(change)
    assert change.targets == ("q", "v")
    query, key, value = change.delta().chunk(3)
    torch.testing.assert_close(query, 0.5 * change.up[0] @ change.down[:4])
    torch.testing.assert_close(value, 0.5 * change.up[1] @ change.down[4:])
    assert not key.any()
    assert LoRA(32, rank=4).scale == 1.0


@pytest.mark.parametrize("targets", ["qv", "qkv"])
def test_a_merged_backbone_computes_the_same_alone(targets: str) -> None:
    vit = vit_of()
    changes = changed(vit, targets=targets)
    plain = run_blocks(vit, tokens_of()).detach()
    adapted = run_blocks(vit, tokens_of(), adapters=changes).detach()
    assert float((adapted - plain).abs().max()) > 0.01
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    merge(vit, changes)
    torch.testing.assert_close(vit.norm(vit.blocks(tokens_of())), adapted, atol=1e-10, rtol=1e-10)
    touched = {name for name, value in vit.state_dict().items() if not torch.equal(value, before[name])}
    assert touched == {f"blocks.{index}.attn.qkv.weight" for index in range(len(vit.blocks))}
    merge(vit, changes, sign=-1)
    torch.testing.assert_close(run_blocks(vit, tokens_of()), plain, atol=1e-10, rtol=1e-10)


def test_lora_starts_unchanged_and_draws_a_as_said() -> None:
    torch.manual_seed(0)
    vit = vit_of()
    fresh = [LoRA(32, rank=4).double() for _ in vit.blocks]
    torch.testing.assert_close(run_blocks(vit, tokens_of(), adapters=fresh), run_blocks(vit, tokens_of()))
    kaiming, gaussian = LoRA(512, rank=64).down, LoRA(512, rank=64, init="gaussian").down
    assert float(kaiming.detach().std()) == pytest.approx(512**-0.5 / 3**0.5, rel=0.02)
    assert float(gaussian.detach().std()) == pytest.approx(1 / 64, rel=0.02)


def test_a_merge_needs_a_change_for_every_block() -> None:
    vit = vit_of()
    with pytest.raises(ValueError, match="zip"):
        merge(vit, changed(vit)[:1])
