"""The text side of dual encoders: a causal transformer that takes embedded tokens, and a tokenizer of whole words.

The text transformer of CLIP is causal and only the row of the end-of-text token is read, so nothing behind the
last end of a batch can matter: `TextTower.encode` stops there, and in the last block it computes the one
row that is read. Outputs and gradients are those of the full pass to rounding, with 3 to 7 times less work than
over the usual 77 positions. Tokens that texts begin with alike, e.g. learned vectors in front of class names, are
computed once (``shared``), and the padding behind shorter texts takes part in nothing but attention. Its blocks are
timm's, run by `benchmark.backbones.blocks`.

Shapes: R rows of text, n tokens, L context length, d_t text width, d width of the common features.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from timm.layers import get_act_layer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from benchmark.backbones.blocks import BlockAdapter, Prefix, Ragged, run_block
from benchmark.errors import UsageError

WORTH_PACKING = 0.9  # share of tokens among padded ones below which the padding is taken out
Activation = Literal["gelu", "quick_gelu"]


class Tokenizer(Protocol):
    """Turns text into token ids."""

    @property
    def start(self) -> int:
        """Id of the start-of-text token."""

    @property
    def end(self) -> int:
        """Id of the end-of-text token."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text without start and end."""


class WordTokenizer:
    """One token per known word; letter case does not matter, every other word is the same unknown token.

    A word is a run of letters and digits; a run of other characters ("..") is a word as well. Ids:
    0 padding, 1 unknown, then the words in their order, then start and end (the largest, as in CLIP).

    Args:
        words: The vocabulary, lower case.
    """

    unknown = 1
    """Id of every word that is not in the vocabulary."""

    _PATTERN = re.compile(r"[^\W_]+|[^\w\s]+|_+")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: place + 2 for place, word in enumerate(self.words)}
        self.start = len(self.words) + 2
        self.end = len(self.words) + 3

    @classmethod
    def split(cls, text: str) -> list[str]:
        """The words of a text."""
        return cls._PATTERN.findall(text.lower())

    def __len__(self) -> int:
        return len(self.words) + 4

    def encode(self, text: str) -> list[int]:
        """Ids of a text without start and end."""
        return [self._ids.get(word, self.unknown) for word in self.split(text)]


class TextTower(nn.Module):
    """The text transformer of CLIP: token and position tables, causal pre-norm blocks, final norm, projection.

    Args:
        vocabulary: Number of token ids.
        context: L, number of positions, start and end included.
        width: d_t.
        depth: Number of blocks.
        heads: Attention heads per block.
        features: d, width of the output.
        mlp_ratio: Hidden width of the MLPs relative to d_t.
        activation: Of the MLPs; ``quick_gelu`` is ``x * sigmoid(1.702 x)``, which OpenAI's weights need.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        width: int,
        depth: int,
        heads: int,
        features: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "mlp_ratio": mlp_ratio,
            "qkv_bias": True,
            "act_layer": get_act_layer(activation),
            "norm_layer": nn.LayerNorm,
        }
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width).normal_(std=0.01))
        self.blocks = nn.ModuleList([Block(width, heads, **options) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, features, bias=False)

    def encode(
        self,
        embeddings: Tensor,
        ends: Tensor,
        *,
        shared: Tensor | None = None,
        deep: Tensor | None = None,
        adapters: Sequence[BlockAdapter] | None = None,
    ) -> Tensor:
        """Features of embedded texts, not normalised.

        Args:
            embeddings: Token embeddings without positions, start token first, ``(R, n, d_t)``; what is
                behind a row's end does not matter. n may be smaller than L.
            ends: Position of each row's end-of-text token, counted from the start token, int64 ``(R,)``; not
                among the shared tokens. Best on the CPU, where it is read.
            shared: First tokens that texts have in common, ``(G, m, d_t)``: each row of it for R / G consecutive
                texts, whose ``embeddings`` begin behind it. They see nothing of what follows, so they are
                computed once.
            deep: What takes the place of the last shared tokens at the entry of the second block, the third and so on,
                ``(J, k, d_t)``; without positions.
            adapters: One per block.

        Returns:
            ``(R, d)``.

        Raises:
            UsageError: A text is longer than L.
        """
        ends = ends.cpu()
        length = int(ends.max()) + 1
        if length > len(self.positions):
            raise UsageError(
                f"a prompt of {length} tokens does not fit the text tower, which takes {len(self.positions)}",
                hint="use fewer context vectors, or shorter class names",
            )
        first = 0 if shared is None else shared.shape[1]
        tokens = embeddings[:, : length - first] + self.positions[first:length]
        common = None if shared is None else shared + self.positions[:first]
        ragged: Ragged | None = None
        if int((ends + 1 - first).sum()) < WORTH_PACKING * tokens.shape[:2].numel():
            ragged = Ragged(ends + 1 - first, length - first, tokens.device)
            tokens = ragged.pack(tokens)
        inside = [None] * len(self.blocks) if adapters is None else list(adapters)
        for index, block in enumerate(self.blocks[:-1]):
            adapter, common = inside[index], _entering(common, deep, index)
            prefix = _prefix_of(block, common, len(ends), adapter)
            common = None if common is None else run_block(block, common, causal=True, adapter=adapter)
            tokens = run_block(block, tokens, prefix=prefix, causal=True, ragged=ragged, adapter=adapter)
        tokens = tokens if ragged is None else ragged.pad(tokens)
        common = _entering(common, deep, len(self.blocks) - 1)
        prefix = _prefix_of(self.blocks[-1], common, len(ends), inside[-1])
        where = (ends - first).to(tokens.device, non_blocking=True)
        last = run_block(self.blocks[-1], tokens, read=where, prefix=prefix, causal=True, adapter=inside[-1])[:, 0]
        features: Tensor = self.projection(self.norm(last))
        return features


def _entering(common: Tensor | None, deep: Tensor | None, block: int) -> Tensor | None:
    """Shared tokens ``(G, m, d_t)`` at the entry of a block: its own prompts stand last, if it has some."""
    if common is None or deep is None or not 1 <= block <= len(deep):
        return common
    rows = deep[block - 1].to(common.dtype).expand(len(common), -1, -1)
    return torch.cat([common[:, : -rows.shape[1]], rows], dim=1)


def _prefix_of(block: Any, tokens: Tensor | None, rows: int, adapter: BlockAdapter | None = None) -> Prefix | None:
    """Keys and values of a block for its input ``(G, m, d_t)``, repeated for R / G consecutive texts each."""
    if tokens is None:
        return None
    normed = block.norm1(tokens)
    query, key, value = block.attn.qkv(normed).chunk(3, dim=-1)
    if adapter is not None:
        _, key, value = adapter.project(normed, normed, query, key, value)
    if len(tokens) == 1:  # `attend` expands them without a copy
        return key, value
    times = rows // len(tokens)
    return key.repeat_interleave(times, dim=0), value.repeat_interleave(times, dim=0)


class WholeText(nn.Module):
    """A text tower of another kind, e.g. bidirectional: it takes texts, but no embedded prompts.

    Args:
        model: Maps ids ``(R, L)`` to features ``(R, d)``, or to a tuple that begins with them.
        tokenizer: Maps a list of texts to ids ``(R, L)``.
        kind: What is special about it, for messages.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, kind: str) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.kind = kind

    def forward(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Features ``(R, d)`` of texts; too long ones are cut, as this kind of tokenizer does."""
        found = self.model(self.tokenizer(list(texts)).to(device))
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features
