"""open_clip's side of `benchmark.backbones.sources`: configurations, tags, tokenizers, weight files.

A plain CLIP (ViT with a class token, causal text transformer) is not run by open_clip: its weights go
into timm's ViT and `benchmark.backbones.text.TextTower`, so that every method finds the same blocks.
Towers of other kinds (ResNets, attention pooling, bidirectional text, ...) are open_clip's own modules.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmark.backbones import _hub
from benchmark.backbones._timm import check_size
from benchmark.backbones.dual import DualEncoder, ViTTower
from benchmark.backbones.features import FeatureModel
from benchmark.backbones.prompted_vit import oddity
from benchmark.backbones.text import TextTower, Tokenizer, WholeText
from benchmark.errors import DataMissing, UsageError, did_you_mean

# In the order in which open_clip looks for them.
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Options of configurations, and the values that a plain tower may have (None: any).
PLAIN_TEXT: Mapping[str, tuple[Any, ...] | None] = {
    "context_length": None,
    "vocab_size": None,
    "width": None,
    "heads": None,
    "layers": None,
    "mlp_ratio": None,
    "tokenizer_kwargs": None,
    "pool_type": ("argmax",),
    "proj_type": ("linear",),
    "no_causal_mask": (False,),
    "embed_cls": (False,),
    "proj_bias": (False,),
    "output_tokens": (False,),
}
PLAIN_IMAGE: Mapping[str, tuple[Any, ...] | None] = {
    "image_size": None,
    "layers": None,
    "width": None,
    "head_width": None,
    "mlp_ratio": None,
    "patch_size": None,
    "patch_dropout": None,  # of training only
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
    "output_tokens": (False,),
}


# OpenAI's own split of a text (clip/simple_tokenizer.py), with its names of the two special tokens; open_clip has
# renamed them, and so reads `<|startoftext|>` within a text otherwise.
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class BytePairs:
    """CLIP's tokenizer, as the towers here want it: open_clip's tables, OpenAI's special tokens."""

    def __init__(self, tokenizer: Any) -> None:
        import regex  # of open_clip

        self._tokenizer = tokenizer
        self._words = regex.compile(PATTERN, regex.IGNORECASE)
        self.start = int(tokenizer.sot_token_id)
        self.end = int(tokenizer.eot_token_id)

    def encode(self, text: str) -> list[int]:
        """Ids of a text without start and end."""
        special = dict(zip(SPECIAL, (self.start, self.end), strict=True))
        table, found = self._tokenizer, []
        for word in self._words.findall(table.clean_fn(text)):
            if word in special:
                found.append(special[word])
                continue
            symbols = "".join(table.byte_encoder[byte] for byte in word.encode())
            found += [table.encoder[piece] for piece in table.bpe(symbols).split(" ")]
        return found


def create(
    tag: str, *, image_size: int | None, offline: bool = False, own: bool = False
) -> tuple[DualEncoder, dict[str, Any]]:
    """Builds the architecture of a full name, weights not loaded.

    Args:
        tag: ``ViT-B-16/openai``.
        image_size: Side of the input in pixels; None keeps the checkpoint's.
        offline: Never asks the network for a tokenizer.
        own: Whether the user brings weights: then the name of the model alone will do.

    Returns:
        The encoder, and ``mean``, ``std``, ``description``, ``licence``.

    Raises:
        UsageError: Unknown model, no tag, unknown tag, or a package is missing that it needs.
    """
    import open_clip

    name, variant, known = config(tag, own=own)
    architecture = open_clip.get_model_config(name)
    # OpenAI's weights need it under the plain model names too; versions differ in how they tell.
    quick = bool(architecture.get("quick_gelu") or known.get("quick_gelu") or variant == "openai")
    dual = build(architecture, name=name, quick_gelu=quick, image_size=image_size, offline=offline)
    return dual, {
        "mean": known.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        "std": known.get("std") or open_clip.OPENAI_DATASET_STD,
        "description": f"open_clip {name}" + (f", weights {variant}" if variant else ""),
        "licence": "",
        "width": int(architecture["embed_dim"]),
        "name": name,
    }


def config(tag: str, *, own: bool = False) -> tuple[str, str, Mapping[str, Any]]:
    """Model name, pretrained tag, and what open_clip knows of its weights; without a tag for ``own`` ones.

    Raises:
        UsageError: Unknown model or tag, or no tag at all.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    models = open_clip.list_models()
    name, _, variant = tag.rpartition("/")
    if tag.replace("/", "-") in models:  # a name alone, perhaps written ViT-B/16
        name, variant = tag, ""
    name = name.replace("/", "-")
    if name not in models:
        raise did_you_mean("open_clip model", f"open_clip:{tag}", [f"open_clip:{n}/{t}" for n, t in _known()])
    tags = list_pretrained_tags_by_model(name)
    if not variant and own:
        return name, "", {}
    if not variant:
        raise UsageError(
            f"open_clip:{name} names no weights",
            hint="give one of " + ", ".join(f"open_clip:{name}/{known}" for known in tags)
            if tags
            else "open_clip has no weights for it",
        )
    if variant not in tags:
        raise did_you_mean("open_clip tag", f"open_clip:{tag}", [f"open_clip:{name}/{known}" for known in tags])
    return name, variant, get_pretrained_cfg(name, variant)


def _known() -> list[tuple[str, str]]:
    import open_clip

    found: list[tuple[str, str]] = open_clip.list_pretrained()
    return found


def build(
    architecture: Mapping[str, Any],
    *,
    name: str,
    quick_gelu: bool,
    image_size: int | None = None,
    offline: bool = False,
) -> DualEncoder:
    """Builds the encoder of an open_clip configuration with random weights.

    Args:
        architecture: ``embed_dim``, ``vision_cfg``, ``text_cfg``, as in open_clip's ``model_configs``.
        name: Of the model, for its tokenizer and for messages.
        quick_gelu: Activation of both towers.
        image_size: Side of the input in pixels; None keeps the configuration's.
        offline: As of `create`.

    Raises:
        UsageError: A package is missing, or the image tower has a size of its own.
    """
    features = int(architecture["embed_dim"])
    vision, words = dict(architecture["vision_cfg"]), dict(architecture["text_cfg"])
    odd_text = _odd(words, PLAIN_TEXT)
    plain_image = _odd(vision, PLAIN_IMAGE) is None and isinstance(vision.get("layers", 12), int)
    if image_size is not None:
        if not plain_image:
            raise UsageError(
                f"engine.image_size={image_size}: the image tower of open_clip:{name} cannot be resized",
                hint="leave the image size alone",
            )
        check_size(f"open_clip:{name}", image_size, int(vision.get("patch_size", 16)))
        vision["image_size"] = image_size
    whole: Any = None if plain_image and odd_text is None else _whole(features, vision, words, quick_gelu, name)
    image: nn.Module = _vit(vision, features, quick_gelu) if plain_image else whole.visual
    tokenizer: Tokenizer | None = None
    text: TextTower | WholeText
    if odd_text is None:
        text, tokenizer = _text(words, features, quick_gelu)
    else:
        text = WholeText(whole.text, _other_tokenizer(name, words, offline=offline), odd_text)
    return DualEncoder(image=image, text=text, tokenizer=tokenizer)


def _odd(given: Mapping[str, Any], plain: Mapping[str, tuple[Any, ...] | None]) -> str | None:
    """The first option that a plain tower does not have, or None."""
    for key, value in given.items():
        allowed = plain.get(key, (None,))
        if allowed is not None and value not in allowed:
            return f"{key}={value!r}"
    return None


def _vit(vision: Mapping[str, Any], features: int, quick_gelu: bool) -> ViTTower:
    width = int(vision.get("width", 768))
    vit = VisionTransformer(
        img_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 16),
        embed_dim=width,
        depth=int(vision.get("layers", 12)),
        num_heads=width // int(vision.get("head_width", 64)),
        mlp_ratio=float(vision.get("mlp_ratio", 4.0)),
        pre_norm=True,
        norm_layer=nn.LayerNorm,
        act_layer="quick_gelu" if quick_gelu else "gelu",
        num_classes=0,
    )
    return ViTTower(vit, features)


def _text(words: Mapping[str, Any], features: int, quick_gelu: bool) -> tuple[TextTower, BytePairs]:
    from open_clip.tokenizer import SimpleTokenizer

    context = int(words.get("context_length", 77))
    tokenizer = BytePairs(SimpleTokenizer(context_length=context, **words.get("tokenizer_kwargs", {})))
    tower = TextTower(
        vocabulary=int(words.get("vocab_size", 49408)),
        context=context,
        width=int(words.get("width", 512)),
        depth=int(words.get("layers", 12)),
        heads=int(words.get("heads", 8)),
        features=features,
        mlp_ratio=float(words.get("mlp_ratio", 4.0)),
        activation="quick_gelu" if quick_gelu else "gelu",
    )
    return tower, tokenizer


def _whole(features: int, vision: dict[str, Any], words: dict[str, Any], quick_gelu: bool, name: str) -> Any:
    """open_clip's own model with separate towers; a caption decoder is left out."""
    import open_clip

    if "hf_model_name" in words:
        _need_transformers(name)
        words["hf_model_pretrained"] = False
    try:
        return open_clip.CustomTextCLIP(embed_dim=features, vision_cfg=vision, text_cfg=words, quick_gelu=quick_gelu)
    except Exception as error:  # it asks other libraries for parts, which raise what they like
        raise UsageError(f"open_clip:{name} cannot be built here: {error}") from error


def _other_tokenizer(name: str, words: Mapping[str, Any], *, offline: bool) -> Any:
    import open_clip

    repository = words.get("hf_tokenizer_name")
    if repository:
        _need_transformers(name)
        _hub.fetch(f"open_clip:{name} (tokenizer)", repository, ("tokenizer_config.json",), offline=offline)
    return open_clip.get_tokenizer(name)


def _need_transformers(name: str) -> None:
    if importlib.util.find_spec("transformers") is None:
        raise UsageError(
            f"open_clip:{name} has a text tower of the package `transformers`, which is not installed",
            hint="pip install transformers, or choose a model with CLIP's text tower, e.g. open_clip:ViT-B-16/openai",
        )


def fetch(tag: str, *, offline: bool) -> Path:
    """Returns the weight file of a name: from the Hugging Face cache, else from the hub.

    Raises:
        DataMissing: It is in neither; within seconds, with what to fetch and where to put it.
    """
    name, variant, known = config(tag)
    label = f"open_clip:{name}/{variant}"
    repository, _, file = str(known.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise DataMissing(
            f"weights of {label} are not on the Hugging Face hub",
            hint=f"fetch {known.get('url', 'them')} and give the file with --weights FILE",
        )
    files = (re.sub(r"\.(bin|pth?)$", ".safetensors", file), file) if file else FILES
    return _hub.fetch(label, repository, tuple(dict.fromkeys(files)), offline=offline)


def image_tower(dual: DualEncoder, name: str, features: int) -> Any:
    """What image-only methods are given: timm's ViT if there is a plain one, else the tower with all that pools.

    Args:
        dual: The encoder.
        name: Of the model, for messages.
        features: d, the width of its feature space.
    """
    for part in ("vit", "trunk"):  # ours, open_clip's
        inner = getattr(dual.image, part, None)
        if isinstance(inner, VisionTransformer) and oddity(inner) is None:
            return inner
    side: Any = dual.image.image_size
    size = int(side[0] if isinstance(side, tuple) else side)
    return FeatureModel(dual.image, name=name, width=features, image_size=size)


def tokenless(tag: str, *, own: bool = False) -> str | None:
    """Why models of a name have no tokens of a plain vision transformer, as the end of a sentence; None: may be.

    Towers of timm inside open_clip are looked at when they are loaded.
    """
    import open_clip

    name, _, _ = config(tag, own=own)
    vision = open_clip.get_model_config(name)["vision_cfg"]
    return "has none" if _is_resnet(vision) else None


def _is_resnet(vision: Mapping[str, Any]) -> bool:
    return not isinstance(vision.get("layers", 12), int) and "timm_model_name" not in vision
