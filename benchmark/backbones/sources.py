"""Where pretrained models come from: a folder with descriptions, timm, open_clip.

Services for plugins that register backbones (`benchmark.specs.BackboneSpec`); each function here is a
``load`` or ``describe``, but for a folder that comes first. Users load models by name: `benchmark.loading`.

Weights are always checked: every tensor of the model comes from the file, in its shape, or there is
one `DataMissing` that names the file and the first tensor that does not fit. Nothing is ever left at
random values. Nothing here imports torch, timm or open_clip before a model is loaded.

A dual encoder (`benchmark.backbones.dual`) is a backbone like any other: its image tower is the backbone's ``model``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.backbones.backbone import Backbone
from benchmark.errors import DataMissing
from benchmark.files import sha256

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from benchmark.backbones.dual import DualEncoder

REINSTALL = "reinstall the package that it comes with"


def described(folder: Path, name: str) -> dict[str, Any]:
    """What ``NAME.json`` of a folder says: no torch, milliseconds.

    Args:
        folder: Holds ``NAME.json``, ``NAME.safetensors`` and perhaps ``NAME.md``, a card.
        name: Of the model.

    Returns:
        ``name``, ``sha256``, ``architecture`` (arguments of timm's `VisionTransformer`), ``mean``, ``std``,
        ``description``, ``licence``, ``text`` where there is a text tower, ``images`` where the image tower is another
        model, and ``card`` where there is one.

    Raises:
        DataMissing: It cannot be read.
    """
    path = folder / f"{name}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        about = {**known, "name": name, "sha256": str(known["sha256"])}
        card = folder / f"{name}.md"
        return {**about, "card": card.read_text(encoding="utf-8")} if card.exists() else about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataMissing(f"{path}: not a backbone description: {error!r}", hint=REINSTALL) from error


def load_described(folder: Path, name: str, *, weights: Path | None, image_size: int | None) -> Backbone:
    """A model of a folder as `described` reads it: a ViT, or a ViT with a text tower over words.

    Raises:
        UsageError: A file of a kind that is refused.
        DataMissing: Weights are absent, damaged, altered, or do not fit the architecture.
    """
    from benchmark.backbones import _timm, _weights

    about = described(folder, name)
    path = weights if weights is not None else folder / f"{name}.safetensors"
    digest = _digest(path)
    if weights is None and digest != about["sha256"]:
        raise DataMissing(
            f"{path}: SHA-256 is {digest[:12]}..., but {name}.json says {about['sha256'][:12]}...",
            hint=f"the file is damaged or altered: {REINSTALL}, or give the file with --weights",
        )
    model = _timm.build(about["architecture"], image_size=image_size, source=folder / f"{name}.json")
    resample = image_size is not None
    if "text" in about:
        dual = _described_dual(folder, about, model, path, resample=resample)
        return _backbone(name, about, digest, model, dual=dual)
    return _backbone(name, about, digest, model, classifier=_weights.fill(model, path, resample=resample))


def load_timm(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> Backbone:
    """Any plain ViT of timm by its full name, ``timm:NAME.TAG``, weights through the Hugging Face cache.

    Args:
        name: What follows the first ``:`` is timm's name; with ``weights`` it needs no tag.
        weights: Local file: ``.safetensors``, ``.npz`` (original JAX weights) or a ``.pt``/``.pth``/``.bin`` that
            needs no pickled code.
        offline: Never asks the network.
        image_size: Side of the input in pixels, if it is not to be the checkpoint's own; the position table is
            resampled (bicubic), as timm does.

    Raises:
        UsageError: Unknown name, a name without its tag, no plain ViT, or a file of a kind that is refused.
        DataMissing: Weights are absent, damaged, or do not fit the architecture.
    """
    from benchmark.backbones import _timm, _weights

    tag = name.partition(":")[2]
    model, about = _timm.create(tag, image_size=image_size, own=weights is not None)
    path = weights if weights is not None else _timm.fetch(tag, offline=offline)
    digest = _digest(path)
    classifier = _weights.fill(model, path, resample=image_size is not None)
    return _backbone(name, about, digest, model, classifier=classifier)


def load_open_clip(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> Backbone:
    """Any dual encoder of open_clip, ``open_clip:MODEL/TAG``; arguments and errors as of `load_timm`."""
    from benchmark.backbones import _open_clip  # takes seconds

    tag = name.partition(":")[2]
    dual, about = _open_clip.create(tag, image_size=image_size, offline=offline, own=weights is not None)
    path = weights if weights is not None else _open_clip.fetch(tag, offline=offline)
    digest = _digest(path)
    _open_clip.fill(dual, path, resample=image_size is not None)
    return _backbone(name, about, digest, _open_clip.image_tower(dual), dual=dual)


def _backbone(
    name: str,
    about: Mapping[str, Any],
    digest: str,
    model: VisionTransformer,
    *,
    dual: DualEncoder | None = None,
    classifier: nn.Linear | None = None,
) -> Backbone:
    return Backbone(
        name=name,
        model=model.eval(),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        sha256=digest,
        description=str(about.get("description", "")),
        licence=str(about.get("licence", "")),
        dual=None if dual is None else dual.requires_grad_(False).eval(),
        classifier=classifier,
    )


def _described_dual(
    folder: Path, about: dict[str, Any], vit: VisionTransformer, path: Path, *, resample: bool
) -> DualEncoder:
    """A ViT, and a text tower over the words that its file keeps."""
    from benchmark.backbones import _weights
    from benchmark.backbones.dual import DualEncoder, ViTTower
    from benchmark.backbones.text import TextTower, WordTokenizer

    tokenizer = WordTokenizer(_weights.words(path))
    try:
        text = TextTower(vocabulary=len(tokenizer), **about["text"])
    except (TypeError, ValueError, AssertionError) as error:
        raise DataMissing(f"{folder / about['name']}.json: text: {error}", hint=REINSTALL) from error
    dual = DualEncoder(image=ViTTower(vit, about["text"]["features"]), text=text, tokenizer=tokenizer)
    state = _weights.read(path)
    if resample and "image.vit.pos_embed" in state:
        state["image.vit.pos_embed"] = _weights.resampled(state["image.vit.pos_embed"], vit)
    _weights.put(dual, state, path)
    return dual


def _digest(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise DataMissing(f"weights {path}: not a file", hint="give the path of a .safetensors or .npz file")
    try:
        return sha256(path)
    except OSError as error:
        raise DataMissing(
            f"weights {path}: {error.strerror or error}", hint="give the path of a .safetensors or .npz file"
        ) from error
