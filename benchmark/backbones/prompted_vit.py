"""Forward passes through any plain timm `VisionTransformer`, with or without prompt tokens.

`cls_feature` alone also takes models of another kind (`benchmark.backbones.features.FeatureModel`): it gives the
feature that they have.

Only public modules of timm are used (``patch_embed``, ``cls_token``, ``pos_embed``, ``pos_drop``,
``norm_pre``), so there is no second transformer here. Shapes: B batch, N
patches, D width, m prompt tokens.

A prompted pass and the query pass of prompt-pool methods can share the patch embedding::

    patches = patch_tokens(vit, images)                                # (B, N, D)
    query = query_feature(vit, patches)                                # (B, D)
    where = read_slice("prompt", prompts=m)
    tokens = run_blocks(vit, assemble(vit, patches, prompts), read=where)  # (B, m, D)
    features = tokens.mean(dim=1)                                      # (B, D)

What happens inside the blocks (prefixes, tokens before later blocks, adapters) is `benchmark.backbones.blocks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from benchmark.backbones.blocks import run_blocks
from benchmark.backbones.features import FeatureModel
from benchmark.backbones.frozen import frozen
from benchmark.errors import UsageError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

Layout = Literal["v1", "v2"]
Readout = Literal["prompt", "token", "token+prompt", "gap"]
Gelu = Literal["erf", "tanh"]

CLS = slice(0, 1)  # where the class token is, but in layout v2 with prompts


def check_promptable(vit: VisionTransformer | FeatureModel) -> None:
    """Makes sure that the passes of this module mean something on a model; methods call it first.

    A `FeatureModel` passes: it has features, and says itself, in `NoTokens`, that it has nothing else.

    Raises:
        UsageError: `oddity` of a model that is no `FeatureModel`.
    """
    if isinstance(vit, FeatureModel):
        return
    if (problem := oddity(vit)) is not None:
        raise UsageError(
            f"this backbone {problem}, which methods on the class token do not support",
            hint="use a ViT with one class token and learned positions, e.g. timm:vit_base_patch16_224.orig_in21k",
        )


def oddity(vit: nn.Module) -> str | None:
    """Why the passes of this module mean nothing on a model, as the end of a sentence; None where they do.

    Not timm's `VisionTransformer`, no class token, register or distillation tokens, no learned position table,
    attention pooling, or no LayerNorm before pooling. Features of such a model are its own affair: `FeatureModel`.
    """
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(vit, VisionTransformer):  # of some dual encoders
        return f"is a {type(vit).__name__}"
    if vit.cls_token is None:
        return "has no class token"
    if vit.num_prefix_tokens != 1:
        return f"has {vit.num_prefix_tokens - 1} register or distillation tokens"
    for strange, problem in (
        (vit.pos_embed is None, "has no learned position table"),
        (vit.attn_pool is not None, "pools by attention"),
        (isinstance(vit.norm, nn.Identity), "normalises after pooling only"),
        (vit.dynamic_img_size, "is built for changing image sizes"),
    ):
        if strange:
            return problem
    return None


def freeze(vit: VisionTransformer) -> VisionTransformer:
    """Switches off gradients and sets eval mode; returns the same model."""
    return vit.requires_grad_(False).eval()


def patch_tokens(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Embeds patches ``(B, N, D)`` of images ``(B, 3, S, S)``, without positions."""
    tokens: Tensor = vit.patch_embed(images)
    return tokens


def position_table(vit: VisionTransformer, prompts: int = 0) -> Tensor:
    """The position table with the class token's row repeated for prompts, ``(1, 1 + m + N, D)``.

    This is how the first release of google-research/l2p and l2p-pytorch extend it. A table without
    a row for the class token (``no_embed_class``) gets zeros there.
    """
    table: Tensor = vit.pos_embed
    if vit.no_embed_class:
        table = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    if prompts == 0:
        return table
    return torch.cat([table[:, :1].expand(-1, 1 + prompts, -1), table[:, 1:]], dim=1)


def assemble(
    vit: VisionTransformer,
    patches: Tensor,
    prompts: Tensor | None = None,
    *,
    layout: Layout = "v1",
    table: Tensor | None = None,
) -> Tensor:
    """Puts class token, prompts and patches together, with positions: the input of the first block.

    Args:
        vit: The model.
        patches: ``(B, N, D)`` of `patch_tokens`.
        prompts: ``(B, m, D)`` or None.
        layout: ``v1`` gives [CLS, prompts, patches], the class token's position added to every
            prompt; ``v2`` gives [prompts, CLS, patches], prompts without position.
        table: Position table to add instead of the model's: as of `position_table`, with m prompts
            in ``v1`` and without in ``v2``.

    Returns:
        ``(B, 1 + m + N, D)``. ``norm_pre`` (identity in most models) covers all tokens.
    """
    cls = vit.cls_token.expand(len(patches), -1, -1)
    inside = [prompts] if prompts is not None and layout == "v1" else []
    if table is None:
        table = position_table(vit, inside[0].shape[1] if inside else 0)
    tokens = vit.pos_drop(torch.cat([cls, *inside, patches], dim=1) + table)
    if prompts is not None and layout == "v2":
        tokens = torch.cat([prompts, tokens], dim=1)
    result: Tensor = vit.norm_pre(tokens)
    return result


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Tokens before the first block, ``(B, 1 + N, D)``, for images ``(B, 3, S, S)``."""
    return assemble(vit, patch_tokens(vit, images))


@frozen
def cls_feature(vit: VisionTransformer | FeatureModel, images: Tensor) -> Tensor:
    """The feature of each image, ``(B, D)``: class token after the final LayerNorm; of a `FeatureModel` its own."""
    if isinstance(vit, FeatureModel):
        features: Tensor = vit(images)
        return features
    return run_blocks(vit, embed(vit, images), read=CLS)[:, 0]


def query_feature(vit: VisionTransformer, patches: Tensor) -> Tensor:
    """The frozen query ``(B, D)`` of prompt-pool methods: class token of the pass without prompts, no autograd.

    Args:
        vit: The model, in eval mode.
        patches: ``(B, N, D)`` of `patch_tokens`, which the prompted pass uses again.
    """
    with torch.no_grad():
        return run_blocks(vit, assemble(vit, patches), read=CLS)[:, 0]


def read_slice(kind: Readout, *, prompts: int, layout: Layout = "v1") -> slice | None:
    """The tokens whose mean, after the final LayerNorm, is the head's input; for ``read`` of `run_blocks`.

    Args:
        kind: ``prompt`` (the m prompt tokens), ``token`` (class token), ``token+prompt`` (both) or
            ``gap`` (all tokens: None).
        prompts: m.
        layout: As given to `assemble`.
    """
    if kind == "gap":
        return None
    if kind == "token+prompt":
        return slice(0, prompts + 1)  # both layouts begin with these tokens
    first = 1 if layout == "v1" else 0
    cls = 0 if layout == "v1" else prompts
    return slice(cls, cls + 1) if kind == "token" else slice(first, first + prompts)


def set_gelu(vit: VisionTransformer, kind: Gelu) -> None:
    """Switches the GELUs of all block MLPs, in place.

    Args:
        vit: The model.
        kind: ``tanh`` (the approximation flax uses by default) or ``erf`` (exact: timm and all
            PyTorch ports). The same weights differ by about 1e-3 in activations.

    Raises:
        UsageError: A block uses another activation.
    """
    from timm.layers import GELU, GELUTanh

    for index, block in enumerate(vit.blocks):
        if not isinstance(block.mlp.act, (nn.GELU, GELU, GELUTanh)):
            raise UsageError(
                f"gelu: block {index} of this backbone uses {type(block.mlp.act).__name__}, not GELU",
                hint="leave `gelu` at `erf`, or choose another backbone",
            )
    for block in vit.blocks:
        block.mlp.act = nn.GELU(approximate="tanh" if kind == "tanh" else "none")


def set_dropout(vit: VisionTransformer, rate: float) -> None:
    """Sets the dropout behind the position table and behind both layers of every block's MLP, in place.

    Active in train mode only. The attention's dropout is left alone: KMnP/vpt trains with 0.1 here and 0
    there.

    Raises:
        UsageError: A block has another MLP.
    """
    for index, block in enumerate(vit.blocks):
        if not all(isinstance(getattr(block.mlp, name, None), nn.Dropout) for name in ("drop1", "drop2")):
            raise UsageError(
                f"dropout: block {index} of this backbone has an MLP without dropout ({type(block.mlp).__name__})",
                hint="leave `dropout` at 0, or choose another backbone",
            )
    for dropout in (vit.pos_drop, *(part for block in vit.blocks for part in (block.mlp.drop1, block.mlp.drop2))):
        dropout.p = rate
