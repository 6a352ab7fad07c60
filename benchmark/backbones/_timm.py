"""timm's side of `benchmark.backbones.sources`: architectures, tags, and the Hugging Face cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.backbones import _hub
from benchmark.backbones.features import FeatureModel
from benchmark.backbones.prompted_vit import oddity
from benchmark.errors import DataMissing, UsageError, did_you_mean, shorten

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

# In the order in which timm looks for them.
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def create(tag: str, *, image_size: int | None, own: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """Builds the architecture of a full timm tag, weights not loaded.

    Args:
        tag: ``vit_base_patch16_224.augreg_in21k``.
        image_size: Side of the input in pixels; None keeps the checkpoint's.
        own: Whether the user brings weights: then the name of the architecture alone will do. Inputs of a
            `VisionTransformer` are then normalised to [-1, 1] unless a tag says otherwise, those of other
            architectures as timm does by default.

    Returns:
        The network without a head, and ``mean``, ``std``, ``description``, ``licence``, ``width`` (D of its features),
        ``size`` (S) and ``heads``, what its classifiers are called in weight files.

    Raises:
        UsageError: Unknown model, no tag, unknown tag, or a size that does not fit the architecture.
    """
    from timm.models.vision_transformer import VisionTransformer

    name, _, variant = tag.partition(".")
    own = own and not variant
    known = None if own else config(tag)
    if own:
        check_model(name)
    model = _made(tag, image_size)
    facts = model.pretrained_cfg
    half = own and isinstance(model, VisionTransformer)
    size = image_size or int(facts["input_size"][-1])
    heads = facts.get("classifier") or ()
    return model, {
        "mean": (0.5, 0.5, 0.5) if half else tuple(facts["mean"]),
        "std": (0.5, 0.5, 0.5) if half else tuple(facts["std"]),
        "description": f"timm {tag}" + ("" if known is None else f", {size} px"),
        "licence": "" if known is None else known.license or "",
        "width": _width(tag, model, size, asked=image_size is not None),
        "size": size,
        "heads": (heads,) if isinstance(heads, str) else tuple(heads),
    }


def _made(tag: str, image_size: int | None) -> Any:
    """An architecture for inputs of a size; networks of convolutions alone take any.

    Raises:
        UsageError: It takes no inputs of this size.
    """
    import timm

    make = partial(timm.create_model, tag, pretrained=False, num_classes=0)
    if image_size is None:
        return make()
    try:
        model = make(img_size=image_size)
    except TypeError:
        model = make()
    except Exception as error:  # each architecture has checks of its own
        raise _no_size(tag, image_size, shorten(str(error))) from error
    check_size(f"timm:{tag}", image_size, getattr(getattr(model, "patch_embed", None), "patch_size", 1))
    return model


def check_size(name: str, size: int, patch: int | Sequence[int]) -> None:
    """Makes sure that an image is made of whole patches.

    Raises:
        UsageError: It is not; with the nearest sizes that are.
    """
    side = patch if isinstance(patch, int) else max(int(part) for part in patch)
    if size % side:
        near = [one for one in (size // side * side, (size // side + 1) * side) if one]
        raise UsageError(
            f"engine.image_size={size}: {name} reads patches of {side} px, and {size} is no multiple of that",
            hint="use e.g. " + " or ".join(map(str, near)),
        )


def _no_size(tag: str, size: int, reason: str) -> UsageError:
    return UsageError(
        f"engine.image_size={size}: timm:{tag} takes no images of {size} px: {reason}",
        hint="leave the image size alone, or use another one",
    )


def _width(tag: str, model: Any, size: int, *, asked: bool) -> int:
    """Width of the features of an architecture, from a pass without numbers.

    Raises:
        UsageError: It has no single feature per image, or takes no images of the size that was asked for.
    """
    import torch

    if oddity(model) is None:
        return int(model.embed_dim)
    try:
        with torch.device("meta"), torch.no_grad():
            twin = _made(tag, size if asked else None).eval()
            shape = tuple(twin(torch.zeros(1, 3, size, size)).shape)
    except NotImplementedError:  # a few operations need numbers
        shape = (1, int(getattr(model, "head_hidden_size", model.num_features)))
    except UsageError:
        raise
    except Exception as error:
        if not asked:
            raise UsageError(f"timm:{tag} gives no features of images: {shorten(str(error))}") from error
        raise _no_size(tag, size, shorten(str(error))) from error
    if len(shape) != 2:
        raise UsageError(
            f"timm:{tag} gives features of shape {shape[1:]}, not one vector per image",
            hint="choose a model that pools, e.g. timm:resnet50.a1_in1k",
        )
    return int(shape[1])


def wrapped(model: Any, tag: str, about: Mapping[str, Any]) -> VisionTransformer | FeatureModel:
    """A plain vision transformer as it is; any other network as one that gives features alone.

    Args:
        model: As `create` made it.
        tag: Its full tag.
        about: What `create` told of it.
    """
    if (why := missing_tokens(model)) is None:
        return model
    name = tag.partition(".")[0]
    return FeatureModel(model, name=name, why=why, width=about["width"], image_size=about["size"])


def tokenless(tag: str) -> str | None:
    """Why the models of a tag have no tokens of a plain vision transformer, as the end of a sentence; else None.

    Nothing is read: the architecture is built without numbers.

    Raises:
        UsageError: timm has no such architecture.
    """
    import torch

    name = tag.partition(".")[0]
    check_model(name)
    with torch.device("meta"):
        return missing_tokens(_made(name, None))


def missing_tokens(model: nn.Module) -> str | None:
    """As `tokenless`, of a network."""
    from timm.models.vision_transformer import VisionTransformer

    problem = oddity(model)
    return "has none" if problem and not isinstance(model, VisionTransformer) else problem


def build(architecture: dict[str, Any], *, image_size: int | None, source: Path) -> VisionTransformer:
    """Builds a `VisionTransformer` from keyword arguments, without a head.

    Raises:
        DataMissing: The arguments are not timm's; ``source`` is named.
    """
    from timm.models.vision_transformer import VisionTransformer

    arguments = {**architecture, "num_classes": 0}
    if image_size is not None:
        check_size(source.stem, image_size, arguments.get("patch_size", 16))
        arguments["img_size"] = image_size
    try:
        return VisionTransformer(**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise DataMissing(f"{source}: architecture: {error}", hint="reinstall adaptbench") from error


def config(tag: str) -> Any:
    """Timm's `PretrainedCfg` of a full tag.

    Raises:
        UsageError: Unknown model or tag, or no tag at all: a bare name has changed its weights
            between timm versions.
    """
    import timm
    from timm.models import get_pretrained_cfg

    name, _, variant = tag.partition(".")
    check_model(name)
    tags = timm.list_pretrained(f"{name}.*")
    if not variant:
        raise UsageError(
            f"timm:{name} names no weights: a bare name changes its checkpoint between timm versions",
            hint="give one of " + ", ".join(f"timm:{known}" for known in tags) + "; or your own with --weights FILE",
        )
    if tag not in tags:
        raise did_you_mean("timm tag", f"timm:{tag}", [f"timm:{known}" for known in tags])
    return get_pretrained_cfg(tag)


def check_model(name: str) -> None:
    """Sees to it that timm has an architecture.

    Raises:
        UsageError: It has not.
    """
    import timm
    from timm.models import is_model

    if not is_model(name):
        near = timm.list_pretrained(f"{name.partition('_')[0]}*") or timm.list_pretrained()
        raise did_you_mean("timm model", f"timm:{name}", [f"timm:{known}" for known in near])


def fetch(tag: str, *, offline: bool) -> Path:
    """Returns the weight file of a tag: from the Hugging Face cache, else from the hub.

    Raises:
        DataMissing: It is in neither; within seconds, with what to fetch and where to put it.
    """
    known = config(tag)
    files = (known.hf_hub_filename,) if known.hf_hub_filename else FILES
    return _hub.fetch(f"timm:{tag}", known.hf_hub_id, files, offline=offline)
