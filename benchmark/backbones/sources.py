"""Where pretrained models come from: a folder with descriptions, timm, open_clip, transformers.

Services for plugins that register backbones (`benchmark.specs.BackboneSpec`); each function here is a
``load`` or ``describe``, but for a folder that comes first. Users load models by name: `benchmark.loading`.

Weights are always checked: every tensor of the model comes from the file, in its shape, or there is
one `DataMissing` that names the file and the first tensor that does not fit. Nothing is ever left at
random values. Nothing here imports torch, timm or open_clip before a model is loaded.

A dual encoder (`benchmark.backbones.dual`) is a backbone like any other: its image tower is the backbone's ``model``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.backbones.backbone import Backbone
from benchmark.errors import DataMissing, UsageError
from benchmark.files import sha256

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from benchmark.backbones.dual import DualEncoder
    from benchmark.backbones.features import FeatureModel
    from benchmark.backbones.language import LanguageModel

REINSTALL = "reinstall the package that it comes with"


def described(folder: Path, name: str) -> dict[str, Any]:
    """What ``NAME.json`` of a folder says: no torch, milliseconds.

    Args:
        folder: Holds ``NAME.json``, ``NAME.safetensors`` and perhaps ``NAME.md``, a card.
        name: Of the model.

    Returns:
        ``name``, ``sha256``, ``architecture`` (arguments of timm's `VisionTransformer`) or ``convolutions`` (those of
        `benchmark.backbones.convolutional.feature_model`), ``mean``, ``std``, ``description``, ``licence``, ``text``
        where there is a text tower, ``images`` where the image tower is another model, and ``card`` where there is one.

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
    """A model of a folder as `described` reads it: a ViT, a ViT with a text tower over words, or a CNN.

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
    if "convolutions" in about:
        net = _convolutional(about, image_size, folder / f"{name}.json")
        return _backbone(name, about, digest, net, classifier=_weights.fill(net.net, path, resample=False))
    model = _timm.build(about["architecture"], image_size=image_size, source=folder / f"{name}.json")
    resample = image_size is not None
    if "text" in about:
        dual = _described_dual(folder, about, model, path, resample=resample)
        return _backbone(name, about, digest, model, dual=dual)
    return _backbone(name, about, digest, model, classifier=_weights.fill(model, path, resample=resample))


def load_timm(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> Backbone:
    """Any image model of timm by its full name, ``timm:NAME.TAG``, weights through the Hugging Face cache.

    A plain ViT is itself, with tokens that prompts can join; every other network is a `FeatureModel`
    (`benchmark.backbones.features`).

    Args:
        name: What follows the first ``:`` is timm's name; with ``weights`` it needs no tag.
        weights: Local file: ``.safetensors``, ``.npz`` (original JAX weights) or a ``.pt``/``.pth``/``.bin`` that
            needs no pickled code.
        offline: Never asks the network.
        image_size: Side of the input in pixels, if it is not to be the checkpoint's own; position tables are
            resampled (bicubic), as timm does.

    Raises:
        UsageError: Unknown name, a name without its tag, a size that does not fit, or a file of a kind that is refused.
        DataMissing: Weights are absent, damaged, or do not fit the architecture.
    """
    from benchmark.backbones import _timm, _weights

    tag = name.partition(":")[2]
    model, about = _timm.create(tag, image_size=image_size, own=weights is not None)
    path = weights if weights is not None else _timm.fetch(tag, offline=offline)
    digest = _digest(path)
    classifier = _weights.fill(model, path, resample=image_size is not None, heads=about["heads"])
    return _backbone(name, about, digest, _timm.wrapped(model, tag, about), classifier=classifier)


def timm_tokenless(name: str) -> str | None:
    """Why ``timm:NAME`` has no tokens, for `benchmark.specs.BackboneSpec.tokenless`; no weights are read.

    Raises:
        UsageError: timm has no such architecture.
    """
    from benchmark.backbones import _timm

    return _timm.tokenless(name.partition(":")[2])


def load_open_clip(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> Backbone:
    """Any dual encoder of open_clip, ``open_clip:MODEL/TAG``; arguments and errors as of `load_timm`."""
    from benchmark.backbones import _open_clip, _open_clip_weights  # takes seconds

    tag = name.partition(":")[2]
    dual, about = _open_clip.create(tag, image_size=image_size, offline=offline, own=weights is not None)
    path = weights if weights is not None else _open_clip.fetch(tag, offline=offline)
    digest = _digest(path)
    _open_clip_weights.fill(dual, path, resample=image_size is not None)
    tower = _open_clip.image_tower(dual, about["name"], about["width"])
    return _backbone(name, about, digest, tower, dual=dual)


def open_clip_tokenless(name: str) -> str | None:
    """Why ``open_clip:MODEL/TAG`` has no tokens, as `timm_tokenless`."""
    from benchmark.backbones import _open_clip

    return _open_clip.tokenless(name.partition(":")[2], own=True)


def load_language(folder: Path, name: str, *, weights: Path | None, image_size: int | None) -> LanguageModel:
    """A language model of a folder: ``NAME/`` as transformers saves models, and ``NAME.json`` with hashes of its files.

    Raises:
        UsageError: An option that language models do not have.
        DataMissing: Files are absent, damaged or altered.
    """
    about = language_described(folder, name)
    _refuse(name, weights, image_size)
    for file, expected in about["files"].items():
        if (found := _digest(folder / name / file)) != expected:
            raise DataMissing(
                f"{folder / name / file}: SHA-256 is {found[:12]}..., but {name}.json says {expected[:12]}...",
                hint=f"the file is damaged or altered: {REINSTALL}",
            )
    from benchmark.backbones import _hugging_face

    return _hugging_face.from_folder(name, folder / name, description=about["description"], licence=about["licence"])


def language_described(folder: Path, name: str) -> dict[str, Any]:
    """What ``NAME.json`` says of a language model: as `described`, with ``files`` and their hashes."""
    path = folder / f"{name}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        files = {str(file): str(digest) for file, digest in known["sha256"].items()}
        about = {**known, "name": name, "files": files, "sha256": files["model.safetensors"]}
        card = folder / f"{name}.md"
        return {**about, "card": card.read_text(encoding="utf-8")} if card.exists() else about
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataMissing(f"{path}: not a description of a language model: {error!r}", hint=REINSTALL) from error


def load_hugging_face(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> LanguageModel:
    """Any language model of the Hugging Face hub or a local folder or GGUF file, ``hf:NAME`` or ``hf:PATH``.

    Args:
        name: What follows the first ``:`` is a path if there is such a file or folder, or if it looks like one.
        weights: Not used: a model comes with its tokenizer and configuration.
        offline: Never asks the network.
        image_size: Not used.

    Raises:
        UsageError: Pickled weights, a model of a kind that is not supported, or an option it does not have.
        DataMissing: Files are absent or damaged, or do not fit one another.
    """
    from benchmark.backbones import _hub, _hugging_face

    tag = name.partition(":")[2]
    _refuse(name, weights, image_size)
    path = Path(tag).expanduser()
    if not path.exists() and not tag.startswith((".", "/", "~")):
        folder = _hub.snapshot(name, tag, _hugging_face.PATTERNS, offline=offline)
        return _hugging_face.from_folder(name, folder, description=f"{tag} of the Hugging Face hub")
    if not path.exists():
        raise DataMissing(f"{name}: there is no {path}", hint="give a folder with config.json, or a .gguf file")
    load = _hugging_face.from_folder if path.is_dir() else _hugging_face.from_gguf
    found = load(name, path.resolve(), own_weights=True, description="a model of the user")
    # Where it lies on this machine is nobody's business.
    return replace(found, name=f"hf:{path.resolve().stem}-{found.sha256[:8]}")


def load_packaged(
    name: str, package: str, inside: str, *, command: str, weights: Path | None, image_size: int | None, **about: str
) -> LanguageModel:
    """A language model that another package of Python brings, found without importing it.

    Args:
        name: Of the backbone.
        package: Name of the package that is imported.
        inside: Path in it, of a folder or a GGUF file.
        command: What installs it, for the message.
        weights: Not used.
        image_size: Not used.
        **about: ``description`` and ``licence``.

    Raises:
        UsageError: An option that language models do not have.
        DataMissing: The package is not installed, or has no such file.
    """
    from benchmark.backbones import _hugging_face

    _refuse(name, weights, image_size)
    path = packaged(package, inside)
    if path is None:
        raise DataMissing(f"backbone `{name}` comes with the package {package}, which is not installed", hint=command)
    load = _hugging_face.from_folder if path.is_dir() else _hugging_face.from_gguf
    return load(name, path, **about)


def packaged(package: str, inside: str) -> Path | None:
    """Where a package keeps a file, or None where it is not installed; nothing is imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / inside
    return path if path.exists() else None


def _refuse(name: str, weights: Path | None, image_size: int | None) -> None:
    """Raises: UsageError where an option is given that a language model does not have."""
    if weights is not None:
        raise UsageError(
            f"--weights: the language model `{name}` comes with its tokenizer, so a file alone is not enough",
            hint="give a whole folder: --backbone hf:FOLDER",
        )
    if image_size is not None:
        raise UsageError(f"engine.image_size: the language model `{name}` reads no images", hint="leave it out")


def _backbone(
    name: str,
    about: Mapping[str, Any],
    digest: str,
    model: VisionTransformer | FeatureModel,
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


def _convolutional(about: Mapping[str, Any], image_size: int | None, source: Path) -> FeatureModel:
    """A CNN with random weights; it takes images of any size."""
    from benchmark.backbones import convolutional

    try:
        known = dict(about["convolutions"])
        return convolutional.feature_model(
            str(about["name"]), known["widths"], known["strides"], image_size or int(known["image_size"])
        )
    except (TypeError, ValueError, KeyError) as error:
        raise DataMissing(f"{source}: convolutions: {error!r}", hint=REINSTALL) from error


def _described_dual(
    folder: Path, about: dict[str, Any], vit: VisionTransformer, path: Path, *, resample: bool
) -> DualEncoder:
    """A ViT, and a text tower over the words that its file keeps."""
    from benchmark.backbones import _weight_files, _weights
    from benchmark.backbones.dual import DualEncoder, ViTTower
    from benchmark.backbones.text import TextTower, WordTokenizer

    tokenizer = WordTokenizer(_weight_files.words(path))
    try:
        text = TextTower(vocabulary=len(tokenizer), **about["text"])
    except (TypeError, ValueError, AssertionError) as error:
        raise DataMissing(f"{folder / about['name']}.json: text: {error}", hint=REINSTALL) from error
    dual = DualEncoder(image=ViTTower(vit, about["text"]["features"]), text=text, tokenizer=tokenizer)
    state = _weight_files.read(path)
    if resample and "image.vit.pos_embed" in state:
        state["image.vit.pos_embed"] = _weights.resampled(state["image.vit.pos_embed"], vit)
    _weights.put(dual, state, path)
    return dual


def own_digest(path: Path) -> str:
    """SHA-256 of weights that a user brings: of a file, or of the hashes of the ``.safetensors`` files in a folder.

    Raises:
        DataMissing: There is nothing, or it cannot be read.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise DataMissing(f"{path}: no *.safetensors", hint="give the folder of a complete model")
    digests = [_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _digest(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise DataMissing(f"weights {path}: not a file", hint="give the path of a .safetensors or .npz file")
    try:
        return sha256(path)
    except OSError as error:
        raise DataMissing(
            f"weights {path}: {error.strerror or error}", hint="give the path of a .safetensors or .npz file"
        ) from error
