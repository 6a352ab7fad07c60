"""Pretrained backbones by name: bundled ones, and any plain timm ViT with its full tag.

::

    load("nano-vit")                                            bundled
    load("timm:vit_base_patch16_224.augreg_in21k")              Hugging Face hub, through its cache
    load("timm:vit_base_patch16_224.orig_in21k", weights=file)  a local .safetensors, .npz or .pt

Weights are always checked: every tensor of the model comes from the file, in its shape, or there is
one `DataMissing` that names the file and the first tensor that does not fit. Nothing is ever left at
random values. Nothing here imports torch or timm before `load` is called.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import DataMissing, UsageError, did_you_mean

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "weights"
TIMM = "timm:"


@dataclass(frozen=True)
class Backbone:
    """A pretrained vision transformer and the input it was trained on.

    Attributes:
        name: As given on the command line, e.g. ``timm:vit_base_patch16_224.augreg_in21k``.
        model: timm `VisionTransformer` without a head, in eval mode.
        mean: Per channel, the checkpoint's own, for values in [0, 1].
        std: Per channel, likewise.
        sha256: Hash of the weight file.
        description: One line: what it is and what it was trained on.
        licence: As its source states it.
    """

    name: str
    model: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    description: str = ""
    licence: str = ""

    @property
    def image_size(self) -> int:
        """Side S of the input in pixels."""
        return int(self.model.patch_embed.img_size[0])

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        """Token width D."""
        return int(self.model.embed_dim)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.model.blocks)

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def bundled() -> list[str]:
    """Names of the backbones whose weights are in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def describe(name: str) -> dict[str, Any]:
    """What is known of a backbone without loading it: no torch, no network, milliseconds.

    Args:
        name: As for `load`.

    Returns:
        ``name``, ``source`` (``bundled`` or ``timm``), ``sha256`` (None where only the loaded file
        tells) and, for bundled ones, ``architecture``, ``mean``, ``std``, ``description``, ``licence``.

    Raises:
        UsageError: Neither a bundled name nor one with ``timm:`` in front.
        DataMissing: The description in the package is damaged.
    """
    if name.startswith(TIMM):
        return {"name": name, "source": "timm", "sha256": None, "description": "timm vision transformer"}
    if name not in bundled():
        if name.startswith(("vit_", "deit_", "hf")) or "." in name:
            raise UsageError(
                f"unknown backbone `{name}`", hint=f"timm models are written `{TIMM}NAME.TAG`, e.g. `{TIMM}{name}`"
            )
        raise did_you_mean("backbone", name, [*bundled(), f"{TIMM}NAME.TAG"])
    path = WEIGHTS / f"{name}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {**known, "name": name, "source": "bundled", "sha256": str(known["sha256"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataMissing(f"{path}: not a backbone description: {error!r}", hint="reinstall adaptbench") from error


def load(name: str, *, weights: Path | None = None, offline: bool = False, image_size: int | None = None) -> Backbone:
    """Loads a backbone. Random state is left as found.

    Args:
        name: ``nano-vit``, ``mini-vit`` or ``timm:NAME.TAG``.
        weights: Local file to read instead of the bundled or the hub's one: ``.safetensors``,
            ``.npz`` (original JAX weights) or a ``.pt``/``.pth``/``.bin`` that needs no pickled code.
        offline: Never asks the network; the same as ``BENCH_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``.
        image_size: Side of the input in pixels, if it is not to be the checkpoint's own; the
            position table is resampled (bicubic), as timm does.

    Raises:
        UsageError: Unknown name, a timm name without its tag, not a plain ViT, or a file of a kind
            that is refused.
        DataMissing: Weights are absent, damaged, altered, or do not fit the architecture.
    """
    import torch

    from benchmark.backbones import _timm, _weights

    with torch.random.fork_rng(devices=[]):  # building a model draws weights that are overwritten
        if name.startswith(TIMM):
            tag = name.removeprefix(TIMM)
            model, about = _timm.create(tag, image_size=image_size)
            path = weights if weights is not None else _timm.fetch(tag, offline=offline)
            expected = None
        else:
            about = describe(name)
            model = _timm.build(about["architecture"], image_size=image_size, source=WEIGHTS / f"{name}.json")
            path = weights if weights is not None else WEIGHTS / f"{name}.safetensors"
            expected = about["sha256"] if weights is None else None
    digest = _digest(path)
    if expected is not None and digest != expected:
        raise DataMissing(
            f"{path}: SHA-256 is {digest[:12]}..., but {name}.json says {expected[:12]}...",
            hint="the file is damaged or altered: reinstall adaptbench, or give the file with --weights",
        )
    _weights.fill(model, path, resample=image_size is not None)
    return Backbone(
        name=name,
        model=model.eval(),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        sha256=digest,
        description=str(about.get("description", "")),
        licence=str(about.get("licence", "")),
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise DataMissing(
            f"weights {path}: {error.strerror or error}", hint="give the path of a .safetensors or .npz file"
        ) from error
    return digest.hexdigest()
