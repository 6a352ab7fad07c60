"""timm's side of `benchmark.backbones.sources`: architectures, tags, and the Hugging Face cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.backbones import _hub
from benchmark.errors import DataMissing, UsageError, did_you_mean

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# In the order in which timm looks for them.
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def create(tag: str, *, image_size: int | None, own: bool = False) -> tuple[VisionTransformer, dict[str, Any]]:
    """Builds the architecture of a full timm tag, weights not loaded.

    Args:
        tag: ``vit_base_patch16_224.augreg_in21k``.
        image_size: Side of the input in pixels; None keeps the checkpoint's.
        own: Whether the user brings weights: then the name of the architecture alone will do, and its inputs are
            normalised to [-1, 1] unless a tag says otherwise.

    Returns:
        The model without a head, and ``mean``, ``std``, ``description``, ``licence``.

    Raises:
        UsageError: Unknown model, no tag, unknown tag, or not a `VisionTransformer`.
    """
    import timm
    from timm.models.vision_transformer import VisionTransformer

    name, _, variant = tag.partition(".")
    own = own and not variant
    known = None if own else config(tag)
    if own:
        check_model(name)
    size = {} if image_size is None else {"img_size": image_size}
    model = timm.create_model(tag, pretrained=False, num_classes=0, **size) if _is_vit(tag) else None
    if not isinstance(model, VisionTransformer):
        raise UsageError(
            f"timm:{tag} is not a plain vision transformer",
            hint="choose one of the names that `timm.list_pretrained('vit_*')` gives",
        )
    return model, {
        "mean": (0.5, 0.5, 0.5) if known is None else known.mean,
        "std": (0.5, 0.5, 0.5) if known is None else known.std,
        "description": f"timm {tag}" + ("" if known is None else f", {known.input_size[-1]} px"),
        "licence": "" if known is None else known.license or "",
    }


def build(architecture: dict[str, Any], *, image_size: int | None, source: Path) -> VisionTransformer:
    """Builds a `VisionTransformer` from keyword arguments, without a head.

    Raises:
        DataMissing: The arguments are not timm's; ``source`` is named.
    """
    from timm.models.vision_transformer import VisionTransformer

    arguments = {**architecture, "num_classes": 0}
    if image_size is not None:
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
        raise did_you_mean("timm model", f"timm:{name}", [f"timm:{known}" for known in timm.list_pretrained("vit_*")])


def _is_vit(tag: str) -> bool:
    """Whether timm defines the model beside its `VisionTransformer`, so that building it is worth trying."""
    from timm.models import model_entrypoint

    return model_entrypoint(tag.partition(".")[0]).__module__ in {
        "timm.models.vision_transformer",
        "timm.models.deit",
    }


def fetch(tag: str, *, offline: bool) -> Path:
    """Returns the weight file of a tag: from the Hugging Face cache, else from the hub.

    Raises:
        DataMissing: It is in neither; within seconds, with what to fetch and where to put it.
    """
    known = config(tag)
    files = (known.hf_hub_filename,) if known.hf_hub_filename else FILES
    return _hub.fetch(f"timm:{tag}", known.hf_hub_id, files, offline=offline)
