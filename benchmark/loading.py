"""Pretrained models by name: what plugins register, loaded and checked.

::

    load("nano-vit")                                            one model
    load("timm:vit_base_patch16_224.augreg_in21k")              a model of a library, `name:TAG`
    load("timm:vit_base_patch16_224.orig_in21k", weights=file)  from a local file

Nothing here imports torch before `load` is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmark import registry
from benchmark.errors import PluginError, UsageError, did_you_mean, plain, shorten
from benchmark.guard import Guard
from benchmark.registry import Loaded
from benchmark.specs import BackboneSpec, MethodSpec

if TYPE_CHECKING:
    from benchmark.backbones.backbone import Pretrained


OWN = "custom"
"""First word of the names of weights that users bring."""


def find(name: str) -> Loaded:
    """The plugin that a backbone comes from.

    Args:
        name: ``nano-vit`` or ``library:TAG``.

    Raises:
        UsageError: No plugin has this name, a library is named without a model, or a model with a tag.
        PluginError: The plugin is broken.
    """
    base, colon, tag = name.partition(":")
    if base == OWN:
        raise UsageError(
            f"`{name}` names someone's own weights, and not what they fit",
            hint="--backbone timm:MODEL --weights FILE",
        )
    if base not in registry.names("backbones"):
        raise _unknown(name)
    loaded = registry.load_backbone(base)
    pattern = cast("BackboneSpec", loaded.spec).tag
    if pattern and not tag:
        raise UsageError(f"`{base}` is a library of backbones", hint=f"name one of them: {base}:{pattern}")
    if colon and not pattern:
        raise UsageError(f"backbone `{base}` is one model, but `:{tag}` was given", hint=f"use `{base}`")
    return loaded


def of_track(track: str, method: MethodSpec, *, generates: bool = False) -> str:
    """The name of the pretrained model that a method gets on a track.

    Args:
        track: Name of the track.
        method: Says what it reads, and which kinds of model it can use.
        generates: Whether texts are to be generated, which no masked model does.

    Raises:
        UsageError: It needs a kind of model that the track does not name.
    """
    if not method.pretrained:
        return "none"
    found = registry.load_track(track)
    if method.reads != "image":
        kinds = [kind for kind in method.models if not (generates and kind == "masked")]
        named = [found.language[kind] for kind in kinds if kind in found.language]
        if not named:
            raise UsageError(
                f"method `{method.name}` needs a {' or '.join(kinds)} language model, and track {track} names none",
                hint="give one with --backbone, e.g. hf:NAME",
            )
        return named[0]
    if method.text and not found.dual:
        raise UsageError(
            f"method `{method.name}` needs a backbone with a text tower, and track {track} names none",
            hint="give one, e.g. --backbone open_clip:ViT-B-16/openai",
        )
    return found.dual if method.text else found.backbone


def _guard(loaded: Loaded, name: str) -> Guard:
    return Guard(f"backbone `{name}` of `{loaded.entry.distribution}`", hint="-v shows where")


def _unknown(name: str) -> UsageError:
    written = [f"{spec.name}:{spec.tag}" for spec in _working() if spec.tag]
    error = did_you_mean("backbone", name, registry.names("backbones"))
    library = f"models of a library are written {' or '.join(f'`{one}`' for one in written)}" if written else ""
    return UsageError(error.message, hint="; ".join(part for part in (error.hint, library) if part))


def _working() -> list[BackboneSpec]:
    """Every backbone whose plugin is not broken."""
    found = []
    for name in registry.names("backbones"):
        try:
            found.append(cast("BackboneSpec", registry.load_backbone(name).spec))
        except PluginError:
            continue
    return found


def tokenless(name: str) -> str | None:
    """Why a model gives features but no tokens, as far as that is known without its weights; else None.

    Raises:
        UsageError: Unknown name.
        PluginError: The plugin is broken.
    """
    loaded = find(name)
    spec = cast("BackboneSpec", loaded.spec)
    if spec.tokenless is None:
        return None
    guard = _guard(loaded, name)
    with guard("tokenless"):
        why = spec.tokenless(name)
    if why is not None and not isinstance(why, str):
        raise guard.refuse("tokenless", why, hint="return None, or why as text")
    return why


def single() -> list[str]:
    """Names of the backbones that are one model each; imports their plugins."""
    return [spec.name for spec in _working() if not spec.tag]


def describe(name: str) -> dict[str, Any]:
    """What is known of a backbone without loading it: no torch, no network, milliseconds.

    Args:
        name: As for `load`.

    Returns:
        ``name``, ``sha256`` (None where only the loaded file tells) and what its plugin adds, e.g. ``description``,
        ``licence``, ``mean``, ``std``, and ``images``: the name of the backbone that its image tower is.

    Raises:
        UsageError: Unknown name.
        DataMissing: The description is damaged.
        PluginError: The plugin is broken.
    """
    loaded = find(name)
    spec = cast("BackboneSpec", loaded.spec)
    about: Any = {}
    if spec.describe is not None:
        guard = _guard(loaded, name)
        with guard("describe"):
            about = spec.describe(name)
        if not isinstance(about, Mapping):
            raise guard.refuse("describe", about, hint="return a mapping")
    return {"description": spec.summary, "sha256": None, **about, "name": name}


@cache
def image_towers() -> Mapping[str, tuple[str, str]]:
    """Dual encoders whose image tower is, weight for weight, another backbone.

    Returns:
        For the hash of their weights, name and hash of the weights of that backbone.

    Raises:
        DataMissing: A description is damaged.
    """
    found = {}
    for name in single():
        about = describe(name)
        if "images" in about:
            found[str(about["sha256"])] = str(about["images"]), str(describe(about["images"])["sha256"])
    return found


def load(name: str, *, weights: Path | None = None, offline: bool = False, image_size: int | None = None) -> Pretrained:
    """Loads a pretrained model, frozen and in eval mode. Random state is left as found.

    Args:
        name: A model, or ``library:TAG``.
        weights: Local file to read instead of the model's own. Libraries then need no tag, and the backbone is named
            after the file and its hash, unless the file is the model's own.
        offline: Never asks the network; the same as ``BENCH_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``.
        image_size: Side of the input in pixels, if it is not to be the model's own.

    Raises:
        UsageError: Unknown name, or a file of a kind that is refused.
        DataMissing: Weights are absent, damaged, altered, or do not fit the architecture.
        PluginError: The plugin fails otherwise, or returns something else than a `Pretrained`.
    """
    import torch

    from benchmark.backbones.backbone import Pretrained

    loaded = find(name)
    spec = cast("BackboneSpec", loaded.spec)
    guard = _guard(loaded, name)
    # Building a model draws weights that are overwritten.
    with torch.random.fork_rng(devices=[]), guard("load"):
        model = spec.load(name, weights=weights, offline=offline, image_size=image_size)
    if not isinstance(model, Pretrained):
        raise guard.refuse("load", model, hint="return a benchmark.backbones.backbone.Pretrained")
    model.module.requires_grad_(False).eval()
    if weights is None or model.sha256 == describe(name)["sha256"]:
        return model
    own = f"{OWN}:{shorten(plain(weights.stem), 60)}-{model.sha256[:8]}"
    return dataclasses.replace(model, name=own, own_weights=True)
