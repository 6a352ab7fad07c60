"""Visual prompts as a service: what is drawn, where it goes, what is left out; equal to the passes in full."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmark.backbones.prompted_vit import cls_feature
from benchmark.backbones.visual_prompts import (
    BorderPrompts,
    ChannelPrompts,
    PixelPrompts,
    TokenPrompts,
    VisualPrompts,
    bound,
    cls_states,
    prompted_features,
    resampled_table,
)
from benchmark.errors import UsageError
from benchmark.testing.toys import tiny_backbone


def vit_of(**architecture: Any) -> VisionTransformer:
    vit = tiny_backbone(**{"depth": 3, **architecture}).model.double()
    return vit.requires_grad_(False)


IMAGES = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def same(images: Tensor) -> Tensor:
    return images


def deep(vit: VisionTransformer, **options: Any) -> TokenPrompts:
    return TokenPrompts(vit, 4, **{"layers": range(3), **options}).double()


def in_full(vit: VisionTransformer, rows: Tensor) -> Tensor:
    """VPT-Deep as it is written down: prompts behind the class token, every token computed."""
    tokens = vit.pos_drop(vit._pos_embed(vit.patch_embed(IMAGES)))
    for index, block in enumerate(vit.blocks):
        patches = tokens[:, 1:] if index == 0 else tokens[:, 5:]
        tokens = block(torch.cat([tokens[:, :1], rows[index].expand(3, -1, -1), patches], dim=1))
    result: Tensor = vit.norm(tokens)[:, 0]
    return result


def test_what_is_left_out_changes_neither_features_nor_gradients() -> None:
    vit = vit_of()
    prompts = deep(vit)
    twin = prompts.rows.detach().clone().requires_grad_(True)
    mine, plain = prompted_features(vit, IMAGES, prompts), in_full(vit, twin)
    torch.testing.assert_close(mine, plain, atol=1e-12, rtol=0)
    mine.square().sum().backward()
    plain.square().sum().backward()
    torch.testing.assert_close(prompts.rows.grad, twin.grad, atol=1e-12, rtol=0)


def test_no_prompts_are_the_plain_pass() -> None:
    vit = vit_of()
    torch.testing.assert_close(prompted_features(vit, IMAGES, VisualPrompts()), cls_feature(vit, IMAGES))
    everything = vit.forward_features(IMAGES)
    torch.testing.assert_close(prompted_features(vit, IMAGES, VisualPrompts(), "image"), everything[:, 1:].mean(dim=1))
    with pytest.raises(UsageError, match="no prompt tokens"):
        prompted_features(vit, IMAGES, VisualPrompts(), "prompt")


def test_the_order_of_prompts_is_of_no_consequence() -> None:
    vit = vit_of()
    prompts = deep(vit)
    before = prompted_features(vit, IMAGES, prompts)
    prompts.set_rows(prompts.rows.detach().flip(1))
    torch.testing.assert_close(prompted_features(vit, IMAGES, prompts), before)


def test_one_prompted_block_is_the_shallow_form() -> None:
    vit = vit_of()
    torch.manual_seed(1)
    shallow = TokenPrompts(vit, 4).double()
    torch.manual_seed(1)
    one = deep(vit, layers=range(1))
    for readout in ("cls", "image", "prompt", "global"):
        found = [prompted_features(vit, IMAGES, prompts, readout) for prompts in (shallow, one)]  # type: ignore[arg-type]
        assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("options", "counts", "last"),
    [
        ({}, [21, 21, 21], 4),
        ({"layers": (0,)}, [21, 21, 21], 4),
        ({"layers": (0, 1), "expand": False}, [21, 21, 17], 0),
        ({"layers": (0, 1), "expand": True}, [21, 21, 21], 4),
        ({"layers": (1, 2)}, [17, 21, 21], 4),
        ({"layers": (1, 2), "lost": True}, [17, 17, 17], 4),
        ({"location": "add"}, [17, 17, 17], 0),
    ],
)
def test_tokens_that_every_block_sees(options: dict[str, Any], counts: list[int], last: int) -> None:
    vit = vit_of()
    prompts = deep(vit, **options)
    seen = []
    for block in vit.blocks:
        block.norm1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    prompted_features(vit, IMAGES, prompts, "image")
    assert seen == counts
    assert prompts.last == last


@pytest.mark.parametrize("project", [0, 8])
def test_initial_range(project: int) -> None:
    vit = vit_of()
    torch.manual_seed(0)
    prompts = TokenPrompts(vit, 200, layers=range(3), project=project)
    limit = math.sqrt(6 / (3 * 64 + (project or 32)))
    assert bound(vit, project) == pytest.approx(limit)
    assert 0.99 * limit < float(prompts.rows.detach().abs().max()) <= limit
    assert bound(tiny_backbone(patch_size=16, img_size=32, embed_dim=768, num_heads=2, depth=1).model) == 0.0625


def test_pixels_are_drawn_as_their_names_say() -> None:
    vit = vit_of()
    torch.manual_seed(0)
    limit = bound(vit)
    pixels = {
        init: PixelPrompts(vit, 40, init=init, normalize=same).pixels.detach()
        for init in ("uniform", "gaussian", "image")
    }  # type: ignore[arg-type]
    assert 0.99 * limit < float(pixels["uniform"].abs().max()) <= limit
    assert float(pixels["gaussian"].std()) == pytest.approx(1.0, abs=0.05)
    assert 0 <= float(pixels["image"].min()) < 0.01
    assert 0.99 < float(pixels["image"].max()) <= 1


def test_dropout_draws_a_mask_for_every_image_and_block() -> None:
    vit = vit_of()
    prompts = deep(vit, dropout=0.5, shared=True)
    seen: list[Tensor] = []
    prompts.dropout.register_forward_hook(lambda module, inputs, output: seen.append(output))
    prompts.train()
    prompted_features(vit, IMAGES, prompts)
    masks = [output[image] == 0 for output in seen for image in range(3)]
    assert len(seen) == 3
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 9
    prompts.eval()
    assert torch.equal(prompted_features(vit, IMAGES, prompts), prompted_features(vit, IMAGES, prompts))


def test_prompts_pass_norm_pre_with_all_other_tokens() -> None:
    vit = vit_of(pre_norm=True)
    assert isinstance(vit.norm_pre, nn.LayerNorm)
    prompts = TokenPrompts(vit, 2).double()
    tokens = prompts.tokens(vit, IMAGES)
    torch.testing.assert_close(tokens[:, -2:], vit.norm_pre(prompts.rows).expand(3, -1, -1))
    torch.testing.assert_close(prompted_features(vit, IMAGES, VisualPrompts()), cls_feature(vit, IMAGES))


def test_more_channels_are_one_convolution_of_all_of_them() -> None:
    vit = vit_of()
    prompts = ChannelPrompts(vit, 2).double()
    whole = nn.Conv2d(5, 32, 8, stride=8).double()
    with torch.no_grad():
        whole.weight.copy_(torch.cat([vit.patch_embed.proj.weight, prompts.kernels], dim=1))
        whole.bias.copy_(vit.patch_embed.proj.bias)  # type: ignore[union-attr]
        patches = whole(torch.cat([IMAGES, prompts.channels.expand(3, -1, -1, -1)], dim=1)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(prompts.tokens(vit, IMAGES)[:, 1:], patches + vit.pos_embed[:, 1:])


def test_a_frame_surrounds_the_image_and_what_fills_no_patch_is_cut() -> None:
    vit = vit_of()
    seen: list[Tensor] = []
    vit.patch_embed.proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    prompts = BorderPrompts(vit, 6, normalize=lambda pixels: 2 * pixels).double()
    assert prompts.tokens(vit, IMAGES).shape == (3, 1 + 25, 32)  # 44 pixels are 5 patches and a half
    framed = seen[0]
    assert framed.shape == (3, 3, 44, 44)
    assert torch.equal(framed[..., 6:-6, 6:-6], IMAGES)
    assert torch.equal(framed[1, :, :6], 2 * prompts.rows[0, :, :6])
    assert torch.equal(framed[1, :, -6:], 2 * prompts.rows[0, :, 6:])
    assert torch.equal(framed[1, :, 6:-6, :6], 2 * prompts.columns[0, :, :, :6])
    assert torch.equal(framed[1, :, 6:-6, -6:], 2 * prompts.columns[0, :, :, 6:])


def test_positions_are_resampled_from_corner_to_corner() -> None:
    vit = vit_of()
    table = resampled_table(vit, (7, 7))
    old = vit.pos_embed[0, 1:].view(4, 4, 32)
    new = table[0, 1:].view(7, 7, 32)
    torch.testing.assert_close(new[::2, ::2], old)
    torch.testing.assert_close(new[1, 0], (old[0, 0] + old[1, 0]) / 2)
    assert torch.equal(table[:, :1], vit.pos_embed[:, :1])


def test_class_tokens_before_and_behind_every_block() -> None:
    vit = vit_of()
    states = cls_states(vit, IMAGES)
    assert states.shape == (4, 3, 32)
    torch.testing.assert_close(states[0], (vit.cls_token + vit.pos_embed[:, :1])[0].expand(3, -1))
    torch.testing.assert_close(vit.norm(states[-1]), cls_feature(vit, IMAGES))


def test_a_backbone_that_is_too_small_is_refused() -> None:
    vit = vit_of()
    with pytest.raises(UsageError, match="this backbone has 3 blocks"):
        TokenPrompts(vit, 4, layers=range(4))
    with pytest.raises(UsageError, match="16 patches cannot be lost"):
        TokenPrompts(vit, 16, layers=(1,), lost=True)


def test_rows_that_came_from_data_come_back_from_a_state_dict() -> None:
    vit = vit_of()
    known, empty = TokenPrompts(vit, 0, layers=range(3)), TokenPrompts(vit, 0, layers=range(3))
    known.set_rows(torch.randn(3, 5, 32))
    empty.load_state_dict(known.state_dict())
    assert torch.equal(empty.rows, known.rows)
    with pytest.raises(RuntimeError, match="size mismatch"):
        TokenPrompts(vit, 2, layers=range(3)).load_state_dict(known.state_dict())
