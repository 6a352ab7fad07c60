"""Passes through timm ViTs, with and without prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmark.backbones import prompted_vit
from benchmark.backbones.blocks import run_blocks
from benchmark.errors import UsageError
from benchmark.testing.toys import tiny_backbone


def whole(where: slice | None) -> slice:
    return slice(None) if where is None else where


@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"embed_dim": 48, "num_heads": 3, "depth": 1, "patch_size": 16},
        {"no_embed_class": True},
        {"pre_norm": True},
        {"img_size": 16, "patch_size": 4},
    ],
    ids=str,
)
def test_without_prompts_the_pass_is_timms_own(architecture: dict[str, Any]) -> None:
    vit = tiny_backbone(**architecture).model.double()
    size = vit.patch_embed.img_size[0]
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        tokens = run_blocks(vit, prompted_vit.embed(vit, images))
        torch.testing.assert_close(tokens, vit.forward_features(images), atol=1e-9, rtol=0)
        torch.testing.assert_close(prompted_vit.cls_feature(vit, images), vit(images), atol=1e-9, rtol=0)
        none = torch.zeros(3, 0, vit.embed_dim, dtype=torch.float64)
        for layout in ("v1", "v2"):
            patches = prompted_vit.patch_tokens(vit, images)
            again = prompted_vit.assemble(vit, patches, none, layout=layout)
            torch.testing.assert_close(run_blocks(vit, again), tokens, atol=1e-9, rtol=0)


def test_a_v1_prompt_is_a_v2_prompt_plus_the_position_of_the_class_token() -> None:
    vit = tiny_backbone().model
    images, prompts = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 32)
    with torch.no_grad():
        patches = prompted_vit.patch_tokens(vit, images)
        first = run_blocks(vit, prompted_vit.assemble(vit, patches, prompts, layout="v1"))
        moved = prompts + vit.pos_embed[:, :1]
        second = run_blocks(vit, prompted_vit.assemble(vit, patches, moved, layout="v2"))
    assert first.shape == second.shape == (2, 1 + 4 + 16, 32)
    for kind in ("token", "prompt", "token+prompt", "gap"):
        one = first[:, whole(prompted_vit.read_slice(kind, prompts=4, layout="v1"))].mean(dim=1)
        two = second[:, whole(prompted_vit.read_slice(kind, prompts=4, layout="v2"))].mean(dim=1)
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    plain = run_blocks(vit, prompted_vit.assemble(vit, patches, prompts, layout="v2"))
    assert not torch.allclose(plain[:, 4], first[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "layout", "mean"),
    [
        ("token", "v1", 0.0),
        ("prompt", "v1", 1.5),
        ("token+prompt", "v1", 1.0),
        ("gap", "v1", 2.5),
        ("token", "v2", 2.0),
        ("prompt", "v2", 0.5),
    ],
)
def test_readouts_take_the_tokens_they_name(kind: Any, layout: Any, mean: float) -> None:
    tokens = torch.arange(6.0).view(1, 6, 1)  # v1: CLS, two prompts, three patches
    where = whole(prompted_vit.read_slice(kind, prompts=2, layout=layout))
    assert tokens[:, where].mean(dim=1).item() == mean


def test_frozen_weights_get_no_gradient_buffers_but_prompts_do() -> None:
    vit = prompted_vit.freeze(tiny_backbone().model)
    prompts = torch.randn(2, 3, 32, requires_grad=True)
    tokens = prompted_vit.assemble(vit, prompted_vit.patch_tokens(vit, torch.randn(2, 3, 32, 32)), prompts)
    run_blocks(vit, tokens)[:, 0, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert prompts.grad is not None
    assert prompts.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in vit.parameters())


def test_gelu_switch_changes_the_features_by_what_the_approximation_is_worth() -> None:
    vit = tiny_backbone().model
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        exact = prompted_vit.cls_feature(vit, images)
        prompted_vit.set_gelu(vit, "tanh")
        approximate = prompted_vit.cls_feature(vit, images)
        prompted_vit.set_gelu(vit, "erf")
        again = prompted_vit.cls_feature(vit, images)
    assert torch.equal(exact, again)
    assert 0 < float((exact - approximate).abs().max()) < 1e-2


def test_gelu_switch_refuses_other_activations() -> None:
    vit = tiny_backbone(act_layer=nn.ReLU).model
    with pytest.raises(UsageError, match="block 0 of this backbone uses ReLU"):
        prompted_vit.set_gelu(vit, "tanh")


@pytest.mark.parametrize(
    ("architecture", "problem"),
    [
        ({"class_token": False, "global_pool": "avg"}, "has no class token"),
        ({"reg_tokens": 4}, "has 4 register or distillation tokens"),
        ({"pos_embed": "none"}, "has no learned position table"),
        ({"global_pool": "map"}, "pools by attention"),
        ({"global_pool": "avg"}, "normalises after pooling only"),
        ({"dynamic_img_size": True}, "changing image sizes"),
    ],
)
def test_models_without_a_meaning_for_prompts_are_refused(architecture: dict[str, Any], problem: str) -> None:
    shape = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0}
    vit = VisionTransformer(**{**shape, **architecture})
    with pytest.raises(UsageError, match=problem):
        prompted_vit.check_promptable(vit)


def test_distilled_models_are_refused() -> None:
    from timm.models.deit import VisionTransformerDistilled

    vit = VisionTransformerDistilled(img_size=32, patch_size=16, embed_dim=16, depth=1, num_heads=2, num_classes=0)
    with pytest.raises(UsageError, match="has 1 register or distillation tokens"):
        prompted_vit.check_promptable(vit)
