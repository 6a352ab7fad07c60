"""Pretrained backbones by name: bundled ones, any plain timm ViT with its full tag, and dual encoders.

::

    load("nano-vit")                                            bundled
    load("nano-clip")                                           bundled, with a text tower
    load("timm:vit_base_patch16_224.augreg_in21k")              Hugging Face hub, through its cache
    load("timm:vit_base_patch16_224.orig_in21k", weights=file)  a local .safetensors, .npz or .pt
    load("open_clip:ViT-B-16/openai")                           a CLIP of open_clip, through the same cache

Weights are always checked: every tensor of the model comes from the file, in its shape, or there is
one `DataMissing` that names the file and the first tensor that does not fit. Nothing is ever left at
random values. Nothing here imports torch, timm or open_clip before `load` is called.

A dual encoder (`benchmark.backbones.dual`) is a backbone like any other: its image tower is the backbone's ``model``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.backbones.backbone import Backbone
from benchmark.errors import DataMissing, UsageError, did_you_mean
from benchmark.files import sha256

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from benchmark.backbones.dual import DualEncoder

WEIGHTS = Path(__file__).parent / "weights"
TIMM = "timm:"
OPEN_CLIP = "open_clip:"


def bundled() -> list[str]:
    """Names of the backbones whose weights are in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def describe(name: str) -> dict[str, Any]:
    """What is known of a backbone without loading it: no torch, no network, milliseconds.

    Args:
        name: As for `load`.

    Returns:
        ``name``, ``source`` (``bundled``, ``timm`` or ``open_clip``), ``sha256`` (None where only the
        loaded file tells) and, for bundled ones, ``architecture``, ``mean``, ``std``, ``description``, ``licence``
        and, where the image tower is another bundled backbone, that one's name as ``images``.

    Raises:
        UsageError: Neither a bundled name nor one with ``timm:`` or ``open_clip:`` in front.
        DataMissing: The description in the package is damaged.
    """
    if name.startswith(TIMM):
        return {"name": name, "source": "timm", "sha256": None, "description": "timm vision transformer"}
    if name.startswith(OPEN_CLIP):
        return {"name": name, "source": "open_clip", "sha256": None, "description": "open_clip dual encoder"}
    if name not in bundled():
        if name.startswith(("vit_", "deit_", "hf")) or "." in name:
            known = f"e.g. `{TIMM}{name}`" if "." in name else f"and `--backbone {TIMM}{name}` lists the tags"
            raise UsageError(f"unknown backbone `{name}`", hint=f"timm models are written `{TIMM}NAME.TAG`, {known}")
        raise did_you_mean("backbone", name, [*bundled(), f"{TIMM}NAME.TAG", f"{OPEN_CLIP}MODEL/TAG"])
    path = WEIGHTS / f"{name}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {**known, "name": name, "source": "bundled", "sha256": str(known["sha256"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataMissing(f"{path}: not a backbone description: {error!r}", hint="reinstall adaptbench") from error


@cache
def image_towers() -> Mapping[str, tuple[str, str]]:
    """Bundled dual encoders whose image tower is, weight for weight, another bundled backbone.

    Returns:
        For the hash of their weights, name and hash of the weights of that backbone.

    Raises:
        DataMissing: A description in the package is damaged.
    """
    found = {}
    for name in bundled():
        about = describe(name)
        if "images" in about:
            found[str(about["sha256"])] = str(about["images"]), str(describe(about["images"])["sha256"])
    return found


def load(name: str, *, weights: Path | None = None, offline: bool = False, image_size: int | None = None) -> Backbone:
    """Loads a backbone. Random state is left as found.

    Args:
        name: One of `bundled`, ``timm:NAME.TAG`` or ``open_clip:MODEL/TAG``.
        weights: Local file to read instead of the bundled or the hub's one: ``.safetensors``,
            ``.npz`` (original JAX weights) or a ``.pt``/``.pth``/``.bin`` that needs no pickled code.
        offline: Never asks the network; the same as ``BENCH_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``.
        image_size: Side of the input in pixels, if it is not to be the checkpoint's own; the
            position table is resampled (bicubic), as timm does.

    Raises:
        UsageError: Unknown name, a name without its tag, a timm model that is no plain ViT, or a file
            of a kind that is refused.
        DataMissing: Weights are absent, damaged, altered, or do not fit the architecture.
    """
    import torch

    from benchmark.backbones import _timm, _weights

    resample = image_size is not None
    dual: DualEncoder | None = None
    classifier: nn.Linear | None = None
    with torch.random.fork_rng(devices=[]):  # building a model draws weights that are overwritten
        if name.startswith(OPEN_CLIP):
            from benchmark.backbones import _open_clip  # takes seconds

            tag = name.removeprefix(OPEN_CLIP)
            dual, about = _open_clip.create(tag, image_size=image_size, offline=offline)
            path = weights if weights is not None else _open_clip.fetch(tag, offline=offline)
            digest = _digest(path)
            _open_clip.fill(dual, path, resample=resample)
            model = _open_clip.image_tower(dual)
        elif name.startswith(TIMM):
            tag = name.removeprefix(TIMM)
            model, about = _timm.create(tag, image_size=image_size)
            path = weights if weights is not None else _timm.fetch(tag, offline=offline)
            digest = _digest(path)
            classifier = _weights.fill(model, path, resample=resample)
        else:
            about = describe(name)
            path = weights if weights is not None else WEIGHTS / f"{name}.safetensors"
            digest = _digest(path)
            if weights is None and digest != about["sha256"]:
                raise DataMissing(
                    f"{path}: SHA-256 is {digest[:12]}..., but {name}.json says {about['sha256'][:12]}...",
                    hint="the file is damaged or altered: reinstall adaptbench, or give the file with --weights",
                )
            model = _timm.build(about["architecture"], image_size=image_size, source=WEIGHTS / f"{name}.json")
            if "text" in about:
                dual = _bundled_dual(about, model, path, resample=resample)
            else:
                classifier = _weights.fill(model, path, resample=resample)
    if dual is not None:
        dual.requires_grad_(False).eval()
    return Backbone(
        name=name,
        model=model.eval(),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        sha256=digest,
        description=str(about.get("description", "")),
        licence=str(about.get("licence", "")),
        dual=dual,
        classifier=classifier,
    )


def _bundled_dual(about: dict[str, Any], vit: VisionTransformer, path: Path, *, resample: bool) -> DualEncoder:
    """A bundled dual encoder: a ViT, and a text tower over the words that its file keeps."""
    from benchmark.backbones import _weights
    from benchmark.backbones.dual import DualEncoder, ViTTower
    from benchmark.backbones.text import TextTower, WordTokenizer

    tokenizer = WordTokenizer(_weights.words(path))
    try:
        text = TextTower(vocabulary=len(tokenizer), **about["text"])
    except (TypeError, ValueError, AssertionError) as error:
        raise DataMissing(f"{WEIGHTS / about['name']}.json: text: {error}", hint="reinstall adaptbench") from error
    dual = DualEncoder(image=ViTTower(vit, about["text"]["features"]), text=text, tokenizer=tokenizer)
    state = _weights.read(path)
    if resample and "image.vit.pos_embed" in state:
        state["image.vit.pos_embed"] = _weights.resampled(state["image.vit.pos_embed"], vit)
    _weights.put(dual, state, path)
    return dual


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise DataMissing(
            f"weights {path}: {error.strerror or error}", hint="give the path of a .safetensors or .npz file"
        ) from error
