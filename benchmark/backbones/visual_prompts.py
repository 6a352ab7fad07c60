"""Prompts that are part of a frozen ViT's input: tokens in front of blocks, pixels, a border, channels.

Every kind is a module that turns images into the tokens of the first block, and says what is done before later
blocks; `prompted_features` runs it::

    prompts = TokenPrompts(vit, 10, layers=range(len(vit.blocks)))       # VPT-Deep
    features = prompted_features(vit, images, prompts, readout="cls")    # (B, D)

Prompt tokens stand *last*: ``[CLS, patches, prompts]``. They carry no positions, so the order is of no
consequence, and what is thrown away before the next block is not computed (``keep`` of
`benchmark.backbones.blocks.run_blocks`). The arithmetic is that of KMnP/vpt at 4410440,
``src/models/vit_prompt/vit_ablations.py`` (Jia et al., ECCV 2022, arXiv 2203.12119).

Shapes: B batch, N patches, D width, L blocks, P patch side, S image side, p prompt tokens, pixels or channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.blocks import Change, run_blocks
from benchmark.backbones.prompted_vit import embed, position_table
from benchmark.errors import UsageError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

TokenLocation = Literal["prepend", "add", "add-1"]
PixelInit = Literal["uniform", "gaussian", "image"]
Readout = Literal["cls", "image", "prompt", "global"]
Normalize = Callable[[Tensor], Tensor]


class VisualPrompts(nn.Module):
    """What stands in front of a ViT. This class itself stands for nothing: the plain pass."""

    @property
    def last(self) -> int:
        """Prompt tokens that come out of the last block, behind all others."""
        return 0

    def tokens(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Input of the first block ``(B, n, D)`` for normalised images ``(B, 3, S, S)``."""
        return embed(vit, images)

    def changes(self) -> Mapping[int, Change]:
        """``before`` of `run_blocks`."""
        return {}

    def keep(self) -> Mapping[int, slice]:
        """``keep`` of `run_blocks`."""
        return {}


class TokenPrompts(VisualPrompts):
    """Prompts ``(layers, p, D')`` in the embedding space, new ones for every prompted block.

    Args:
        vit: The model; only its sizes are read.
        length: p. ``add`` has ``1 + N`` rows and ``add-1`` has one, whatever it says. 0 for `set_rows`.
        location: ``prepend``: p tokens more; before a later prompted block their outputs give way to new ones.
            ``add``: added to all tokens, class token included. ``add-1``: one vector for all tokens.
        layers: Blocks that get prompts, one after the other.
        project: D', from which one linear map, the same for all blocks, leads to D; 0 for D' = D.
        dropout: Rate on prompts, with a mask for every image and block.
        shared: One prompt for all blocks.
        expand: Whether the last prompts' outputs go on as tokens; else they are removed.
        lost: At the first prompted block, p patches are removed, as KMnP/vpt does when prompts begin
            deeper: it drops prompts there that were never inserted.

    Raises:
        UsageError: The model has no such block, or not enough patches to lose.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        length: int,
        *,
        location: TokenLocation = "prepend",
        layers: Sequence[int] = (0,),
        project: int = 0,
        dropout: float = 0.0,
        shared: bool = False,
        expand: bool = True,
        lost: bool = False,
    ) -> None:
        super().__init__()
        depth, patches = len(vit.blocks), vit.patch_embed.num_patches
        if not layers or layers[0] < 0 or layers[-1] >= depth:
            raise UsageError(f"prompts before blocks {list(layers)}: this backbone has {depth} blocks")
        if lost and length >= patches:
            raise UsageError(f"{length} patches cannot be lost: this backbone has {patches}")
        self.location, self.layers, self.shared, self.lost = location, tuple(layers), shared, lost
        # Blocks after which prompts are thrown away: before the next prompts, or for good.
        self.dropped = tuple(
            layer for layer in self.layers if layer + 1 in self.layers or (not expand and layer + 1 < depth)
        )
        rows = {"prepend": length, "add": 1 + patches, "add-1": 1}[location]
        width = project or vit.embed_dim
        self.rows = nn.Parameter(torch.empty(1 if shared else len(self.layers), rows, width))
        nn.init.uniform_(self.rows, -bound(vit, width), bound(vit, width))
        self.project = nn.Linear(project, vit.embed_dim) if project else nn.Identity()
        if isinstance(self.project, nn.Linear):
            nn.init.kaiming_normal_(self.project.weight, a=0, mode="fan_out")
        self.dropout = nn.Dropout(dropout)

    @property
    def length(self) -> int:
        """p, or the number of rows that are added."""
        return int(self.rows.shape[1])

    @property
    def last(self) -> int:
        """Prompt tokens that come out of the last block."""
        ends = self.location == "prepend" and self.layers[-1] not in self.dropped
        return self.length if ends else 0

    def set_rows(self, values: Tensor) -> None:
        """Sets the prompts, and p, to given values ``(layers, p, D')``."""
        self.rows = nn.Parameter(values.to(self.rows).clone(), requires_grad=self.rows.requires_grad)

    def tokens(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Class token and patches, with the first block's prompts if it has any."""
        tokens = positioned(vit, patchify(vit, images))
        if 0 in self.layers:
            tokens = self._enter(0, tokens)
        result: Tensor = vit.norm_pre(tokens)
        return result

    def changes(self) -> Mapping[int, Change]:
        """Puts prompts into the input of later blocks."""
        return {layer: partial(self._enter, place) for place, layer in enumerate(self.layers) if layer > 0}

    def keep(self) -> Mapping[int, slice]:
        """Class token and patches, where the prompts' outputs are thrown away."""
        return {layer: slice(0, -self.length) for layer in self.dropped} if self.location == "prepend" else {}

    def _enter(self, place: int, tokens: Tensor) -> Tensor:
        prompts: Tensor = self.project(self.rows[0 if self.shared else place])
        prompts = self.dropout(prompts.expand(len(tokens), -1, -1))  # (B, p, D), a mask for each image
        if self.location != "prepend":
            return tokens + prompts
        if self.lost and place == 0:
            tokens = torch.cat([tokens[:, :1], tokens[:, 1 + self.length :]], dim=1)
        return torch.cat([tokens, prompts], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}rows")
        if isinstance(stored, Tensor) and stored.shape != self.rows.shape and self.length == 0:
            self.set_rows(stored)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class PixelPrompts(VisualPrompts):
    """p patches of trained pixels ``(1, 3, P, P p)``, embedded by the frozen patch embedding, without positions.

    Args:
        vit: The model; only its sizes are read.
        length: p.
        init: ``uniform`` within `bound`, ``gaussian``, or ``image``: uniform in [0, 1], normalised as images are.
        normalize: How images are normalised.
    """

    def __init__(self, vit: VisionTransformer, length: int, *, init: PixelInit, normalize: Normalize) -> None:
        super().__init__()
        high, wide = vit.patch_embed.patch_size
        self.pixels = nn.Parameter(torch.empty(1, 3, high, wide * length))
        self.length = length
        self.normalize = normalize if init == "image" else None
        if init == "gaussian":
            nn.init.normal_(self.pixels)
        elif init == "image":
            nn.init.uniform_(self.pixels, 0.0, 1.0)
        else:
            nn.init.uniform_(self.pixels, -bound(vit), bound(vit))

    @property
    def last(self) -> int:
        """Prompt tokens that come out of the last block."""
        return self.length

    def tokens(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Class token, patches, and the embedded prompt patches."""
        pixels = self.pixels if self.normalize is None else self.normalize(self.pixels)
        prompts = patchify(vit, pixels).expand(len(images), -1, -1)
        tokens = positioned(vit, patchify(vit, images))
        result: Tensor = vit.norm_pre(torch.cat([tokens, prompts], dim=1))
        return result


class BorderPrompts(VisualPrompts):
    """A frame of p trained pixels around the image, which grows to ``S + 2 p``; positions are resampled.

    Args:
        vit: The model; only its sizes are read.
        width: p.
        normalize: How images are normalised; the frame's pixels are in [0, 1] at first.
    """

    def __init__(self, vit: VisionTransformer, width: int, *, normalize: Normalize) -> None:
        super().__init__()
        high, wide = vit.patch_embed.img_size
        self.rows = nn.Parameter(torch.empty(1, 3, 2 * width, wide + 2 * width))  # top, then bottom
        self.columns = nn.Parameter(torch.empty(1, 3, high, 2 * width))  # left, then right
        self.normalize = normalize
        for part in (self.rows, self.columns):
            nn.init.uniform_(part, 0.0, 1.0)

    def tokens(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Class token and patches of the framed images. What is left of a patch at the end is cut off."""
        frame = [self.normalize(part).expand(len(images), -1, -1, -1) for part in (self.rows, self.columns)]
        (top, bottom), (left, right) = frame[0].chunk(2, dim=2), frame[1].chunk(2, dim=3)
        framed = torch.cat([top, torch.cat([left, images, right], dim=3), bottom], dim=2)
        grid = tuple(side // patch for side, patch in zip(framed.shape[-2:], vit.patch_embed.patch_size, strict=True))
        result: Tensor = vit.norm_pre(positioned(vit, patchify(vit, framed), resampled_table(vit, grid)))
        return result


class ChannelPrompts(VisualPrompts):
    """p trained channels ``(1, p, S, S)`` below the image's three, with new kernels of the patch embedding.

    The caller lets the patch embedding train (``vit.patch_embed.proj.requires_grad_(True)``); in KMnP/vpt it is
    one convolution of 3 + p channels, of which the first three and the bias come from the checkpoint.

    Args:
        vit: The model; only its sizes are read.
        channels: p.
    """

    def __init__(self, vit: VisionTransformer, channels: int) -> None:
        super().__init__()
        self.channels = nn.Parameter(torch.empty(1, channels, *vit.patch_embed.img_size))
        self.kernels = nn.Parameter(torch.empty(vit.embed_dim, channels, *vit.patch_embed.patch_size))
        for part in (self.channels, self.kernels):
            nn.init.uniform_(part, -bound(vit), bound(vit))

    def tokens(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Class token and patches of images with more channels."""
        # A convolution is a sum over channels, and the new ones are the same for all images.
        more = F.conv2d(self.channels, self.kernels, stride=vit.patch_embed.patch_size)
        patches = (vit.patch_embed.proj(images) + more).flatten(2).transpose(1, 2)
        result: Tensor = vit.norm_pre(positioned(vit, vit.patch_embed.norm(patches)))
        return result


def prompted_features(
    vit: VisionTransformer, images: Tensor, prompts: VisualPrompts, readout: Readout = "cls"
) -> Tensor:
    """Features ``(B, D)`` of normalised images ``(B, 3, S, S)``, after the final LayerNorm.

    Args:
        vit: The model.
        images: Normalised.
        prompts: What stands in front.
        readout: Class token, or the mean of the patch tokens (``image``), of the prompt tokens or of both (``global``).

    Raises:
        UsageError: No prompt token comes out of the last block, and ``readout`` is ``prompt``.
    """
    if readout == "prompt" and prompts.last == 0:
        raise UsageError("readout: no prompt tokens come out of the last block", hint="use cls, image or global")
    reads = {
        "cls": slice(0, 1),
        "image": slice(1, -prompts.last or None),
        "prompt": slice(-prompts.last, None),
        "global": slice(1, None),
    }
    tokens = prompts.tokens(vit, images)
    tokens = run_blocks(vit, tokens, read=reads[readout], before=prompts.changes(), keep=prompts.keep())
    return tokens.mean(dim=1)


def bound(vit: VisionTransformer, width: int = 0) -> float:
    """Prompts are drawn within it: ``sqrt(6 / (3 P^2 + D'))``.

    Args:
        vit: The model.
        width: D'; 0 for its own.
    """
    high, wide = vit.patch_embed.patch_size
    return math.sqrt(6 / (3 * high * wide + (width or vit.embed_dim)))


def patchify(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Patch tokens ``(B, n, D)`` of images of any size, without positions."""
    tokens: Tensor = vit.patch_embed.norm(vit.patch_embed.proj(images).flatten(2).transpose(1, 2))
    return tokens


def positioned(vit: VisionTransformer, patches: Tensor, table: Tensor | None = None) -> Tensor:
    """Class token and patches with positions ``(B, 1 + N, D)``, before ``norm_pre``.

    Args:
        vit: The model.
        patches: ``(B, N, D)``.
        table: Positions ``(1, 1 + N, D)`` instead of the model's.
    """
    table = position_table(vit) if table is None else table
    tokens: Tensor = vit.pos_drop(torch.cat([vit.cls_token.expand(len(patches), -1, -1), patches], dim=1) + table)
    return tokens


def resampled_table(vit: VisionTransformer, grid: tuple[int, ...]) -> Tensor:
    """The position table for another grid of patches, linear between corners (``scipy.ndimage.zoom``, order 1)."""
    table = position_table(vit)
    old: tuple[int, int] = vit.patch_embed.grid_size
    cells = table[:, 1:].transpose(1, 2).reshape(1, -1, *old)  # (1, D, rows, columns)
    cells = F.interpolate(cells, size=grid, mode="bilinear", align_corners=True)
    return torch.cat([table[:, :1], cells.flatten(2).transpose(1, 2)], dim=1)


def cls_states(vit: VisionTransformer, images: Tensor) -> Tensor:
    """The class token before every block and behind the last, ``(L + 1, B, D)``, without LayerNorm or autograd."""
    with torch.no_grad():
        tokens = embed(vit, images)
        states = [tokens[:, 0]]
        for block in vit.blocks:
            tokens = block(tokens)
            states.append(tokens[:, 0])
        return torch.stack(states)
