"""Weight files of open_clip and OpenAI into a `DualEncoder`, by its names of the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from benchmark.backbones import _weight_files, _weights
from benchmark.backbones.dual import DualEncoder, ViTTower
from benchmark.backbones.text import TextTower

# In checkpoints, but in no model: facts of OpenAI's archives, an offset without effect on the order of
# classes, a buffer of old text models, the caption decoder of CoCa.
DROPPED = ("input_resolution", "context_length", "vocab_size", "logit_bias", "text.transformer.embeddings.position_ids")
DECODER = "text_decoder."
# Where the top level of a checkpoint holds the text tower itself (OpenAI's layout).
TEXT_PARTS = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")

# Our names and open_clip's, in the order in which they are replaced.
BLOCK_NAMES = (
    ("norm1", "ln_1"),
    ("norm2", "ln_2"),
    ("ls1.", "ls_1."),
    ("ls2.", "ls_2."),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj.", "attn.out_proj."),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)
VIT_NAMES = (
    *BLOCK_NAMES,
    ("image.projection.weight", "visual.proj"),
    ("image.vit.blocks.", "visual.transformer.resblocks."),
    ("image.vit.cls_token", "visual.class_embedding"),
    ("image.vit.pos_embed", "visual.positional_embedding"),
    ("image.vit.patch_embed.proj.", "visual.conv1."),
    ("image.vit.norm_pre.", "visual.ln_pre."),
    ("image.vit.norm.", "visual.ln_post."),
)
TEXT_NAMES = (
    *BLOCK_NAMES,
    ("text.blocks.", "text.transformer.resblocks."),
    ("text.projection.weight", "text.text_projection"),
    ("text.positions", "text.positional_embedding"),
    ("text.norm.", "text.ln_final."),
)
TRANSPOSED = ("image.projection.weight", "text.projection.weight")
POSITIONS = "image.vit.pos_embed"


def fill(dual: DualEncoder, path: Path, *, resample: bool) -> None:
    """Loads a weight file in open_clip's or OpenAI's layout, every tensor of it.

    Args:
        dual: As `build` made it.
        path: ``.safetensors``, ``.pt``, ``.pth`` or ``.bin``.
        resample: Whether the position table may be resampled to the image tower's grid.

    Raises:
        UsageError: The kind of file is refused.
        DataMissing: The file is damaged, or a tensor is missing, unknown or of another shape.
    """
    put(dual, _weight_files.read(path), path, resample=resample)


def put(dual: DualEncoder, found: Mapping[str, Tensor], path: Path | str, *, resample: bool = False) -> None:
    """Loads a state dict in open_clip's or OpenAI's layout; arguments and errors as of `fill`."""
    joined = any(name.startswith(TEXT_PARTS) for name in found)

    def named(name: str) -> str:
        theirs = _their_name(name, dual)
        return theirs.removeprefix("text.") if joined else theirs

    state = {name: v for name, v in found.items() if name not in DROPPED and not name.startswith(DECODER)}
    ours: dict[str, Tensor] = {}
    for name, wanted in dual.state_dict().items():
        value = state.pop(named(name), None)
        if value is None:
            continue  # named as missing below
        if name in TRANSPOSED and value.ndim == 2:
            value = value.T
        if value.numel() == 1 or value.shape == wanted.shape[wanted.ndim - value.ndim :]:
            value = value.reshape((1,) * (wanted.ndim - value.ndim) + value.shape) if wanted.ndim else value.reshape(())
        ours[name] = value
    if resample and isinstance(dual.image, ViTTower) and POSITIONS in ours:
        # A table of another grid had no leading axis added above.
        table = ours[POSITIONS] if ours[POSITIONS].ndim == 3 else ours[POSITIONS].unsqueeze(0)
        ours[POSITIONS] = _weights.resampled(table, dual.image.vit)
    _weights.put(dual, {**ours, **state}, path, named=named)


def _their_name(name: str, dual: DualEncoder) -> str:
    """What open_clip calls a tensor of ours, with ``text.`` in front of everything of the text tower."""
    rules: Sequence[tuple[str, str]]
    if name.startswith("image."):
        rules = VIT_NAMES if isinstance(dual.image, ViTTower) else (("image.", "visual."),)
    else:
        rules = TEXT_NAMES if isinstance(dual.text, TextTower) else (("text.model.", "text."),)
    for old, new in rules:
        if old in name:
            name = name.replace(old, new)
    return name
