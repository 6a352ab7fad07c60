"""Scales and shifts, end prompts and AdaptFormer: neutral settings, definitions, nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmark.backbones.adapters import AdaptFormer
from benchmark.backbones.blocks import run_blocks
from benchmark.backbones.end_prompts import EndPrompts
from benchmark.backbones.prompted_vit import CLS, cls_feature, embed
from benchmark.backbones.scale_shift import ScaleShift
from benchmark.testing.toys import tiny_backbone


def backbone(**changes: Any) -> tuple[VisionTransformer, Tensor]:
    vit = tiny_backbone(depth=3, **changes).model.double().requires_grad_(False).eval()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return vit, images


def by_hand(vit: VisionTransformer, images: Tensor, change: ScaleShift) -> Tensor:
    """Class token of the changed pass, written out, on a timm without LayerScale."""

    def put(name: str, value: Tensor) -> Tensor:
        place = change.places.index(name)
        return value * change.scales[place] + change.shifts[place]

    tokens = put("patch_embed", vit.patch_embed(images))
    tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + vit.pos_embed
    for index, block in enumerate(vit.blocks):
        at = f"blocks.{index}."
        attention = block.attn
        normed = put(f"{at}norm1", block.norm1(tokens))
        qkv = put(f"{at}attn.qkv", nn.functional.linear(normed, attention.qkv.weight, attention.qkv.bias))
        split = qkv.reshape(*qkv.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = (split[0] @ split[1].mT / split[0].shape[-1] ** 0.5).softmax(dim=-1)
        mixed = (scores @ split[2]).transpose(1, 2).flatten(2)
        tokens = tokens + put(f"{at}attn.proj", attention.proj(mixed))
        hidden = put(f"{at}mlp.fc1", block.mlp.fc1(put(f"{at}norm2", block.norm2(tokens))))
        tokens = tokens + put(f"{at}mlp.fc2", block.mlp.fc2(nn.functional.gelu(hidden)))
    return put("norm", vit.norm(tokens))[:, 0]


def test_scale_and_shift_as_written_out_with_and_without_trimming() -> None:
    vit, images = backbone()
    change = ScaleShift(vit, std=0.3).double()
    assert len(change.places) == 2 + 3 * 6
    with change.inserted(vit):
        trimmed = cls_feature(vit, images)
        full = run_blocks(vit, embed(vit, images))[:, 0]
    torch.testing.assert_close(trimmed, by_hand(vit, images, change))
    torch.testing.assert_close(trimmed, full)


def test_neutral_scales_and_shifts_change_nothing_and_hooks_are_gone_afterwards() -> None:
    vit, images = backbone(init_values=1e-1, qk_norm=True)  # LayerScale, norms of queries and keys
    plain = cls_feature(vit, images)
    neutral, real = ScaleShift(vit, std=0.0).double(), ScaleShift(vit).double()
    assert sum("q_norm" in name for name in real.places) == 3
    with neutral.inserted(vit):
        torch.testing.assert_close(cls_feature(vit, images), plain)
    with real.inserted(vit):
        assert not torch.allclose(cls_feature(vit, images), plain)
    with pytest.raises(RuntimeError), real.inserted(vit):
        cls_feature(vit, images[:, :2])  # fails in the middle of a pass
    assert torch.equal(cls_feature(vit, images), plain)
    assert not any(module._forward_hooks for module in vit.modules())


def test_only_scales_and_shifts_get_gradients() -> None:
    vit, images = backbone()
    change = ScaleShift(vit).double()
    with change.inserted(vit):
        cls_feature(vit, images).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in change.parameters())
    assert all(parameter.grad is None for parameter in vit.parameters())


@pytest.mark.parametrize("deep", [True, False])
def test_end_prompts_stand_last_and_are_replaced_when_deep(deep: bool) -> None:
    vit, images = backbone()
    prompts = EndPrompts(32, count=2, depth=3 if deep else 1).double()
    assert not prompts.prompts.any()
    nn.init.normal_(prompts.prompts)
    found = run_blocks(vit, embed(vit, images), before=prompts.before(), keep=prompts.keep(), read=CLS)
    tokens = embed(vit, images)
    count = tokens.shape[1]
    for index, block in enumerate(vit.blocks):
        if deep or index == 0:
            own = prompts.prompts[index].expand(3, -1, -1)
            tokens = torch.cat([tokens[:, :count], own], dim=1)
        tokens = block(tokens)
        assert tokens.shape[1] == count + 2
    torch.testing.assert_close(found, vit.norm(tokens)[:, :1])
    found.square().sum().backward()
    assert prompts.prompts.grad is not None
    assert all(part.any() for part in prompts.prompts.grad.flatten(0, 1))


def test_adaptformer_starts_neutral_and_reads_the_stream_before_the_norm() -> None:
    vit, images = backbone()
    torch.manual_seed(0)
    adapters = [AdaptFormer(32, 5, scale=0.7).double() for _ in vit.blocks]
    torch.testing.assert_close(
        run_blocks(vit, embed(vit, images), adapters=adapters, read=CLS)[:, 0], cls_feature(vit, images)
    )
    for adapter in adapters:
        nn.init.normal_(adapter.up.weight)
        nn.init.normal_(adapter.up.bias)
    tokens = embed(vit, images)
    for block, adapter in zip(vit.blocks, adapters, strict=True):
        stream = tokens + block.attn(block.norm1(tokens))
        low = (stream @ adapter.down.weight.T + adapter.down.bias).clamp(min=0)
        tokens = stream + block.mlp(block.norm2(stream)) + 0.7 * (low @ adapter.up.weight.T + adapter.up.bias)
    found = run_blocks(vit, embed(vit, images), adapters=adapters, read=CLS)
    torch.testing.assert_close(found, vit.norm(tokens)[:, :1])


def test_adaptformer_drops_out_behind_its_non_linearity_in_training_only() -> None:
    torch.manual_seed(0)
    adapter = AdaptFormer(8, 400, scale=1.0, dropout=0.5).requires_grad_(False)
    nn.init.ones_(adapter.up.weight)
    stream = torch.randn(1, 1, 8)
    low = torch.relu(adapter.down(stream)).sum()
    nothing = torch.zeros(1, 1, 8)
    torch.testing.assert_close(adapter.eval().after_mlp(nothing, stream)[0, 0, 0], low)
    noisy = adapter.train().after_mlp(nothing, stream)[0, 0, 0]
    assert not torch.isclose(noisy, low)
    assert float(noisy / low) == pytest.approx(1.0, abs=0.25)
