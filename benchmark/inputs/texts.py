"""Texts go to methods as they are: fields of examples.

Each method on a language model builds its own sequence of tokens from the fields (segments, patterns with masks, soft
prompts), so nothing is tokenized here: the tokenizer belongs to the language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

Fields = Mapping[str, str]


class TextPipeline:
    """Hands the fields of examples on.

    Args:
        tokenizer: Hash of the language model's tokenizer, which methods use; "" where there is none.
    """

    kind: Literal["text"] = "text"
    random = False

    def __init__(self, tokenizer: str = "") -> None:
        self.tokenizer = tokenizer

    def train(
        self, raw: Sequence[Fields], generator: torch.Generator, device: torch.device | None = None
    ) -> Sequence[Fields]:
        """The texts as they are; nothing is drawn."""
        return list(raw)

    def eval(self, raw: Sequence[Fields], device: torch.device | None = None) -> Sequence[Fields]:
        """The texts as they are."""
        return list(raw)

    def nothing(self, device: torch.device | None = None) -> Sequence[Fields]:
        """No text."""
        return []

    def facts(self) -> Mapping[str, Any]:
        """The hash of the tokenizer: it decides what a model reads."""
        return {"tokenizer_sha256": self.tokenizer} if self.tokenizer else {}
