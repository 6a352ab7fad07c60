"""timm's side of `benchmark.backbones.loading`: architectures, tags, and the Hugging Face cache."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import DataMissing, UsageError, did_you_mean

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# In the order in which timm looks for them.
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMEOUT = 5.0  # seconds until a silent network counts as none


def create(tag: str, *, image_size: int | None) -> tuple[VisionTransformer, dict[str, Any]]:
    """Builds the architecture of a full timm tag, weights not loaded.

    Args:
        tag: ``vit_base_patch16_224.augreg_in21k``.
        image_size: Side of the input in pixels; None keeps the checkpoint's.

    Returns:
        The model without a head, and ``mean``, ``std``, ``description``, ``licence``.

    Raises:
        UsageError: Unknown model, no tag, unknown tag, or not a `VisionTransformer`.
    """
    import timm
    from timm.models.vision_transformer import VisionTransformer

    known = config(tag)
    size = {} if image_size is None else {"img_size": image_size}
    model = timm.create_model(tag, pretrained=False, num_classes=0, **size) if _is_vit(tag) else None
    if not isinstance(model, VisionTransformer):
        raise UsageError(
            f"timm:{tag} is not a plain vision transformer",
            hint="choose one of the names that `timm.list_pretrained('vit_*')` gives",
        )
    return model, {
        "mean": known.mean,
        "std": known.std,
        "description": f"timm {tag}, {known.input_size[-1]} px",
        "licence": known.license or "",
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
    from timm.models import get_pretrained_cfg, is_model

    name, _, variant = tag.partition(".")
    if not is_model(name):
        raise did_you_mean("timm model", f"timm:{tag}", [f"timm:{known}" for known in timm.list_pretrained("vit_*")])
    tags = timm.list_pretrained(f"{name}.*")
    if not variant:
        raise UsageError(
            f"timm:{name} names no weights: a bare name changes its checkpoint between timm versions",
            hint="give one of " + ", ".join(f"timm:{known}" for known in tags),
        )
    if tag not in tags:
        raise did_you_mean("timm tag", f"timm:{tag}", [f"timm:{known}" for known in tags])
    return get_pretrained_cfg(tag)


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
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    known = config(tag)
    repository = known.hf_hub_id
    files = (known.hf_hub_filename,) if known.hf_hub_filename else FILES
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    words = {"1", "true", "yes", "on"}
    forbidden = offline or any(
        os.environ.get(name, "").lower() in words for name in ("BENCH_OFFLINE", "HF_HUB_OFFLINE")
    )
    where = (
        f"fetch {files[0]} of https://huggingface.co/{repository} and give it with --weights FILE, "
        f"or run once with network: it is kept in {HF_HUB_CACHE}"
    )
    if forbidden:
        raise DataMissing(f"weights of timm:{tag} are not on this machine, and downloads are off", hint=where)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    for file in files:
        try:
            size = _size(f"{endpoint}/{repository}/resolve/main/{file}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                continue
            raise DataMissing(f"weights of timm:{tag}: {endpoint} answers {error.code}", hint=where) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise DataMissing(
                f"weights of timm:{tag} are not on this machine, and {endpoint} cannot be reached ({reason})",
                hint=where,
            ) from error
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the hub's client raises many kinds, its HTTP library's among them
            big = f" ({size / 2**20:.0f} MiB)" if size else ""
            raise DataMissing(f"weights of timm:{tag}: download of {file}{big} failed: {error}", hint=where) from error
    raise DataMissing(f"weights of timm:{tag}: {repository} holds none of {', '.join(files)}", hint=where)


def _size(url: str) -> int:
    """Asks for a file's size in bytes; 0 when the server does not say.

    One try. It runs in a thread because a name that resolves slowly, or to many silent addresses,
    would wait for each of them.

    Raises:
        OSError: No answer in time, or an error.
    """
    answers: list[int | OSError] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                size = answer.headers.get("X-Linked-Size") or answer.headers.get("Content-Length") or 0
                answers.append(int(size))
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            answers.append(error)
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * TIMEOUT)
    if not answers:
        raise TimeoutError(f"no answer within {2 * TIMEOUT:g} s")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]
