"""Dual encoders as a service: images and texts in one feature space, with prompts between words.

A method asks for the one that belongs to its backbone (declare ``text`` in the `MethodSpec`, so that runs without
``--backbone`` get one)::

    dual = dual_of(context.backbone)                       # UsageError for a backbone without text
    v = dual.image_features(images)                        # (B, d), not normalised
    t = dual.text_features(["a photo of a dog."])          # (R, d), not normalised
    t = dual.class_features(names, ["a photo of a {}."])   # (C, d), ensemble of templates, normalised
    logits = dual.logits(v, t)                             # exp(s) * cosine, (B, R)

Prompt learning puts vectors between words::

    check_text_prompts(dual)
    tokens = dual.tokenize([f"X X X X {name}." for name in names])   # .ids (C, n), .ends (C,)
    e = dual.embed(tokens.ids)                                       # (C, n, d_t), frozen table
    rows = torch.cat([e[:, :1], ctx.expand(C, -1, -1), e[:, 1 + M :]], dim=1)
    t = dual.encode_text(rows, tokens.ends)                          # (C, d), gradients reach ctx

(`benchmark.backbones.text_prompts` does this for vectors in any place, per class, per image or per domain.)
``tokens.ids`` are padded to the longest text of the call, not to the context length: `encode_text` reads
nothing behind a row's end. Token ids and lengths: ``dual.tokenizer.encode(name)`` (without start and end),
``dual.tokenizer.start``, ``.end``.

Features of images and of all classes are constant while prompts train: compute them once. All parameters are
float32 (``dual.double()`` for tests), frozen, in eval mode.

Shapes: B images, R rows of text, C classes, n tokens, L context length, d_t text width, d feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter
from benchmark.backbones.frozen import frozen
from benchmark.backbones.prompted_vit import cls_feature
from benchmark.backbones.text import TextTower, Tokenizer, WholeText
from benchmark.errors import UsageError, shown

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

CHUNK = 256  # texts encoded at once


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids.

    Attributes:
        ids: int64 ``(R, n)``: start, text, end, zeros; n is the longest row.
        ends: Position of the end-of-text token, int64 ``(R,)``; on the CPU.
    """

    ids: Tensor
    ends: Tensor


class ViTTower(nn.Module):
    """A plain vision transformer and a projection of its class token.

    Args:
        vit: timm's, with a class token; also `Backbone.model`, so that image-only methods share it.
        features: d.
    """

    def __init__(self, vit: VisionTransformer, features: int) -> None:
        super().__init__()
        self.vit = vit
        self.projection = nn.Linear(vit.embed_dim, features, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, d)`` of normalised images ``(B, 3, S, S)``."""
        features: Tensor = self.projection(cls_feature(self.vit, images))
        return features


class DualEncoder(nn.Module):
    """An image tower and a text tower with one feature space.

    Args:
        image: Maps normalised images ``(B, 3, S, S)`` to features ``(B, d)``, or to a tuple that begins
            with them: a `ViTTower` where the tower is a plain ViT.
        text: The text tower; a `WholeText` takes no embedded prompts.
        tokenizer: Belongs to the text tower; None for a `WholeText`, which has its own.

    Attributes:
        logit_scale: s, a frozen scalar; the logits are exp(s) times the cosine.
    """

    def __init__(self, *, image: nn.Module, text: TextTower | WholeText, tokenizer: Tokenizer | None) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self._tokenizer = tokenizer
        self.logit_scale = nn.Parameter(torch.zeros(()))

    @property
    def tokenizer(self) -> Tokenizer:
        """Ids of words; ``start`` and ``end``."""
        check_text_prompts(self)
        if self._tokenizer is None:
            raise TypeError("a TextTower needs a tokenizer")
        return self._tokenizer

    @property
    def text_width(self) -> int:
        """Width d_t of token embeddings and prompts."""
        return self._tower.token_embedding.embedding_dim

    @property
    def feature_width(self) -> int:
        """Width d of the features of both towers."""
        return self._tower.projection.out_features

    @property
    def context_length(self) -> int:
        """Most tokens L of a text, start and end included."""
        return len(self._tower.positions)

    @property
    def _tower(self) -> TextTower:
        check_text_prompts(self)
        tower: TextTower = self.text  # type: ignore[assignment]
        return tower

    def image_features(self, images: Tensor) -> Tensor:
        """Features ``(B, d)``, not normalised, of normalised images ``(B, 3, S, S)``."""
        # The same, unless the run computes in half precision.
        return tower_features(self.image, images).to(self.logit_scale.dtype)

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> Tokens:
        """Token ids of texts, on the encoder's device; where they end, on the CPU.

        Args:
            texts: R texts.
            truncate: Cut what is longer than L; the last id stays the end-of-text token.

        Raises:
            UsageError: A text is longer than L and ``truncate`` is false, or the text tower takes no ids.
        """
        words, limit = self.tokenizer, self.context_length
        rows = [[words.start, *words.encode(text), words.end] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) <= limit:
                continue
            if not truncate:
                raise UsageError(
                    f"a text of {len(row)} tokens is longer than the {limit} of this text tower: {shown(text)}",
                    hint="use a shorter class name or template",
                )
            row[limit - 1 :] = [words.end]
        ids = torch.zeros(len(rows), max(map(len, rows), default=2), dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        # CLIP reads where the largest id first stands: an end within a text is its end.
        ends = torch.tensor([row.index(words.end) for row in rows])
        device = self.logit_scale.device
        return Tokens(ids.to(device, non_blocking=True), ends)

    def embed(self, ids: Tensor) -> Tensor:
        """Rows of the token table, ``(..., d_t)``, for ids of any shape; positions are added later."""
        embeddings: Tensor = self._tower.token_embedding(ids)
        return embeddings

    def encode_text(
        self,
        embeddings: Tensor,
        ends: Tensor,
        *,
        shared: Tensor | None = None,
        deep: Tensor | None = None,
        adapters: Sequence[BlockAdapter] | None = None,
    ) -> Tensor:
        """Features ``(R, d)``, not normalised, of embedded texts; `benchmark.backbones.text.TextTower.encode`.

        Args:
            embeddings: ``(R, n, d_t)``, start token first, without positions.
            ends: Position of each row's end-of-text token, int64 ``(R,)``.
            shared: First tokens ``(G, m, d_t)`` that R / G consecutive texts each have in common;
                ``embeddings`` then begin behind them.
            deep: Prompts of later blocks ``(J, k, d_t)``, in place of the last k shared tokens.
            adapters: One per block of the tower.
        """
        return self._tower.encode(embeddings, ends, shared=shared, deep=deep, adapters=adapters)

    def text_features(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """Features ``(R, d)``, not normalised, of texts; works with every text tower.

        Raises:
            UsageError: A text is too long and ``truncate`` is false.
        """
        parts = []
        for first in range(0, len(texts), CHUNK):
            some = texts[first : first + CHUNK]
            if isinstance(self.text, WholeText):
                parts.append(self.text(some, self.logit_scale.device))
            else:
                tokens = self.tokenize(some, truncate=truncate)
                parts.append(self.encode_text(self.embed(tokens.ids), tokens.ends))
        return torch.cat(parts).to(self.logit_scale.dtype)

    def class_features(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Zero-shot weights of classes: per template encoded and normalised, averaged, normalised again.

        Args:
            names: C class names; underscores count as blanks.
            templates: With ``{}`` where the name goes, e.g. ``a photo of a {}.``.

        Returns:
            ``(C, d)``, rows of length one.
        """
        mean = torch.stack(
            [
                F.normalize(self.text_features([template.replace("{}", spoken(name)) for name in names]), dim=1)
                for template in templates
            ]
        ).mean(dim=0)
        return F.normalize(mean, dim=1)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """exp(s) times the cosine of ``(B, d)`` and ``(R, d)``, neither of them normalised before: ``(B, R)``."""
        return self.logit_scale.exp() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T


@frozen
def tower_features(tower: nn.Module, images: Tensor) -> Tensor:
    """Features ``(B, d)`` of an image tower, some of which give tokens beside them."""
    found = tower(images)
    features: Tensor = found[0] if isinstance(found, tuple) else found
    return features


def spoken(name: str) -> str:
    """A class name as it is put into a text: underscores become blanks."""
    return name.replace("_", " ")


def unclear_names(dual: DualEncoder, names: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Class names whose texts do not tell the classes apart, whatever stands around the name.

    Args:
        dual: The encoder.
        names: Of classes that are told from one another.

    Returns:
        Groups of names that are the same tokens; and names without a single token that is known.
    """
    texts = [spoken(name) for name in names]
    if isinstance(dual.text, WholeText):
        rows = [tuple(row) for row in dual.text.tokenizer([*texts, ""]).tolist()]
        empty, nothing = rows.pop(), set[int]()
    else:
        rows = [tuple(dual.tokenizer.encode(text)) for text in texts]
        empty, nothing = (), {getattr(dual.tokenizer, "unknown", -1)}
    blank = tuple(name for name, row in zip(names, rows, strict=True) if row == empty or set(row) <= nothing)
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, row in zip(names, rows, strict=True):
        if name not in blank:
            alike.setdefault(row, []).append(name)
    return tuple(tuple(group) for group in alike.values() if len(group) > 1), blank


class HasDual(Protocol):
    """As much of a backbone as `dual_of` reads."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def dual(self) -> DualEncoder | None:
        """The dual encoder that its image tower is a part of."""


def dual_of(backbone: HasDual) -> DualEncoder:
    """The dual encoder of a backbone, whose image tower is a part of it.

    Raises:
        UsageError: The backbone has no text tower.
    """
    if backbone.dual is None:
        raise UsageError(
            f"backbone `{backbone.name}` has no text tower, which this method needs",
            hint="use --backbone nano-clip, or e.g. open_clip:ViT-B-16/openai",
        )
    return backbone.dual


def check_text_prompts(dual: DualEncoder) -> None:
    """Makes sure that a text tower takes embedded prompts; methods that learn prompts call it first.

    Raises:
        UsageError: It does not.
    """
    if isinstance(dual.text, WholeText):
        raise UsageError(
            f"the text tower of this backbone takes no learned prompts: {dual.text.kind}",
            hint="use a CLIP with a causal text transformer, e.g. open_clip:ViT-B-16/openai",
        )
