"""Both towers of a CLIP with something inside: deep prompts in their blocks, coupled or not, or low-rank changes.

    prompts = DeepPrompts(dual, text=(9, 4), vision=(9, 4))       # nine blocks of each tower, four vectors each
    v = image_features(dual, images, prompts=prompts.vision)      # (B, d), gradients reach the prompts
    t = texts.features(*prompts.for_texts())                      # `TextPrompts`: (C, d)

    prompts = DeepPrompts(dual, text=(9, 2), vision=None)         # MaPLe: vision prompts are made of the text's
    coupling = Coupling(dual, depth=9)
    v = image_features(dual, images, prompts=coupling(prompts.text))

    changes = lambda tower: nn.ModuleList(LoRA(...) for _ in blocks_of(dual, tower))
    v = image_features(dual, images, adapters=changes("vision"))
    t = text_features(dual, texts, adapters=changes("text"))      # (R, d)

In the text tower prompts stand behind the start token, in place of the first words of a text. In the image tower they
are appended to class token and patches behind the positions and before the first norm. The first prompts of a tower
pass through its blocks until others take their place at the entry of a later one; the last ones go on to the end.

Only a plain ViT and a causal text transformer have room for them (`check_towers`).

Shapes: B images, R texts, n prompts, J blocks with prompts, d_t text width, w vision width, d width of features.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter, Change, check_plain_blocks, run_blocks
from benchmark.backbones.dual import DualEncoder, ViTTower, check_text_prompts
from benchmark.backbones.prompted_vit import CLS
from benchmark.backbones.visual_prompts import patchify, positioned
from benchmark.errors import UsageError

Tower = Literal["text", "vision"]


def check_towers(dual: DualEncoder) -> None:
    """Makes sure that both towers take prompts and adapters in their blocks.

    Raises:
        UsageError: The image tower is no plain ViT, or the text tower takes no embedded prompts.
    """
    check_text_prompts(dual)
    if not isinstance(dual.image, ViTTower):
        raise UsageError(
            f"the image tower of this backbone ({type(dual.image).__name__}) has no blocks for prompts or adapters",
            hint="use a CLIP with a plain ViT, e.g. open_clip:ViT-B-16/openai",
        )
    check_plain_blocks(dual.image.vit)


def blocks_of(dual: DualEncoder, tower: Tower) -> Sequence[Any]:
    """The transformer blocks of a tower, in order."""
    found: Any = dual.text.blocks if tower == "text" else dual.image.vit.blocks  # type: ignore[union-attr]
    return list(found)


def width_of(dual: DualEncoder, tower: Tower) -> int:
    """Width of the tokens of a tower."""
    return dual.text_width if tower == "text" else int(dual.image.vit.embed_dim)  # type: ignore[union-attr, arg-type]


class DeepPrompts(nn.Module):
    """Prompts of some first blocks of each tower: parameters ``text`` ``(J, n, d_t)`` and ``vision`` ``(J, n, w)``.

    Args:
        dual: The dual encoder.
        text: J and n of the text tower.
        vision: J and n of the image tower; None for prompts that are made of those of the text (`Coupling`).
        first: Start of the first block's text prompts ``(n, d_t)``, e.g. embeddings of words; None: as the others.
        std: Of the normal distribution of the others.

    Raises:
        UsageError: A tower has fewer blocks, or has none that take prompts.
    """

    text: nn.Parameter
    vision: nn.Parameter

    def __init__(
        self,
        dual: DualEncoder,
        *,
        text: tuple[int, int],
        vision: tuple[int, int] | None,
        first: Tensor | None = None,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        check_towers(dual)
        asked: list[tuple[Tower, tuple[int, int] | None]] = [("text", text), ("vision", vision)]
        for tower, sizes in asked:
            if sizes is None:
                continue
            depth, count = sizes
            if depth > len(blocks_of(dual, tower)):
                raise UsageError(
                    f"prompts for {depth} blocks: the {tower} tower of this backbone has {len(blocks_of(dual, tower))}",
                    hint="use a smaller depth",
                )
            rows = nn.init.normal_(torch.empty(depth, count, width_of(dual, tower)), std=std)
            if tower == "text" and first is not None:
                rows[0] = first.to(rows)
            self.register_parameter(tower, nn.Parameter(rows))

    def for_texts(self) -> tuple[Tensor, Tensor]:
        """Context ``(n, d_t)`` and deep prompts ``(J - 1, n, d_t)`` of `TextPrompts.features`."""
        return self.text[0], self.text[1:]


class Coupling(nn.Module):
    """One linear map for each block, from the text prompts to those of the image tower (MaPLe).

    Args:
        dual: The dual encoder.
        depth: J.
        alike: Whether the maps of all blocks but the first start as copies of one draw, as in the official code.
    """

    def __init__(self, dual: DualEncoder, *, depth: int, alike: bool = True) -> None:
        super().__init__()
        sizes = width_of(dual, "text"), width_of(dual, "vision")
        first, later = nn.Linear(*sizes), nn.Linear(*sizes)
        rest = [copy.deepcopy(later) if alike else nn.Linear(*sizes) for _ in range(depth - 1)]
        self.maps = nn.ModuleList([first, *rest])

    def forward(self, rows: Tensor) -> list[Tensor]:
        """Prompts ``(n, w)`` of each block for those of the text ``(J, n, d_t)``."""
        return [project(row) for project, row in zip(self.maps, rows, strict=True)]


def image_features(
    dual: DualEncoder,
    images: Tensor,
    *,
    prompts: Sequence[Tensor] | Tensor = (),
    adapters: Sequence[BlockAdapter] | None = None,
) -> Tensor:
    """Features ``(B, d)``, not normalised, of normalised images, with gradients.

    Args:
        dual: Its image tower is a `ViTTower`.
        images: ``(B, 3, S, S)``.
        prompts: ``(n, w)`` for each of the first blocks.
        adapters: One for each block.
    """
    tower = dual.image
    if not isinstance(tower, ViTTower):
        raise TypeError("check_towers first")
    vit, count = tower.vit, len(prompts)
    tokens = positioned(vit, patchify(vit, images))
    if count:
        tokens = _append(prompts[0], tokens)
    tokens = vit.norm_pre(tokens)
    before: dict[int, Change] = {index: partial(_append, prompts[index]) for index in range(1, count)}
    # What another block's prompts take the place of is not computed.
    keep = {index: slice(0, -prompts[index].shape[0]) for index in range(count - 1)}
    read = run_blocks(vit, tokens, read=CLS, before=before, keep=keep, adapters=adapters)[:, 0]
    features: Tensor = tower.projection(read)
    return features.to(dual.logit_scale.dtype)


def _append(prompts: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([tokens, prompts.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)


def text_features(dual: DualEncoder, texts: Sequence[str], *, adapters: Sequence[BlockAdapter] | None = None) -> Tensor:
    """Features ``(R, d)``, not normalised, of texts, with gradients: all of them at once.

    Args:
        dual: Its text tower takes embedded prompts.
        texts: R texts.
        adapters: One for each block.
    """
    tokens = dual.tokenize(texts)
    return dual.encode_text(dual.embed(tokens.ids), tokens.ends, adapters=adapters).to(dual.logit_scale.dtype)
