"""Names of classes as what the decoder of an encoder-decoder is to write (T5's text-to-text form of classification).

In training the loss of the decoder on the text of the right class; at test time classes are ranked by the
log-probability of their texts, so that every one of them has a score. (The official codes decode greedily and compare
strings; what is no class counts as wrong there.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.backbones.language import LanguageModel, Prefix, Tokens
from benchmark.errors import UsageError

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class SequenceLoss:
    """Loss of a batch of targets.

    Attributes:
        total: Cross-entropy and z-loss.
        z: The z-loss in it.
    """

    total: Tensor
    z: Tensor


def sequence_loss(
    logits: Tensor, target: Tensor, mask: Tensor, *, z_loss: float = 0.0, reduction: Reduction = "sum"
) -> SequenceLoss:
    """Cross-entropy of tokens, plus ``z_loss`` times the squared log of the partition function of each.

    Source: google-research/t5x, ``t5x/losses.py``: the sum over the tokens of the batch (``LOSS_NORMALIZING_FACTOR`` is
    None). transformers takes the mean over the tokens of the batch, without a z-loss.

    Args:
        logits: ``(B, m, V)``.
        target: int64 ``(B, m)``.
        mask: 1 for tokens and 0 for padding, ``(B, m)``.
        z_loss: Factor.
        reduction: Of the tokens.
    """
    log_z = logits.logsumexp(dim=2)
    weight = mask.to(logits.dtype)
    if reduction == "mean":
        weight = weight / weight.sum()
    gold = logits.gather(2, target.unsqueeze(2)).squeeze(2)
    z = z_loss * (log_z.square() * weight).sum()
    return SequenceLoss(((log_z - gold) * weight).sum() + z, z.detach())


class Targets:
    """A text for each class, and the tokens that a decoder reads and is to write for it.

    Args:
        texts: In label order.
        language: An encoder-decoder.

    Raises:
        UsageError: Two classes have the same text, or one has none.
    """

    def __init__(self, texts: Sequence[str], language: LanguageModel) -> None:
        self._language = language
        rows = [language.layout.write(language.layout.ids(text), None)[0] for text in texts]
        owner: dict[tuple[int, ...], int] = {}
        for label, (text, row) in enumerate(zip(texts, rows, strict=True)):
            if not language.layout.ids(text) or owner.setdefault(row, label) != label:
                raise UsageError(
                    f"target {text!r} is empty, or the text of two classes ({owner.get(row, label)} and {label})",
                    hint="give each class a word of its own (option `words`)",
                )
        longest = max(map(len, rows), default=0)
        padded = [[*row, *[language.pad] * (longest - len(row))] for row in rows]
        kept = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        device = language.embedding.weight.device
        self.written, self.mask = (
            torch.tensor(part, dtype=torch.int64, device=device).reshape(len(rows), longest) for part in (padded, kept)
        )
        start = torch.full((len(rows), 1), int(language.model.config.decoder_start_token_id), device=device)
        self.read = torch.cat([start, self.written[:, :-1]], dim=1)

    def logits(self, tokens: Tokens, labels: Tensor, embeds: Tensor | None, prefix: Prefix | None) -> Tensor:
        """Logits of words ``(B, m, V)`` where the decoder is given the text of a label."""
        return self._language.target_logits(tokens, self.read[labels], embeds=embeds, prefix=prefix)

    def loss(
        self,
        tokens: Tokens,
        labels: Tensor,
        *,
        embeds: Tensor | None = None,
        prefix: Prefix | None = None,
        z_loss: float = 0.0,
        reduction: Reduction = "sum",
    ) -> SequenceLoss:
        """Loss of the decoder on the texts of B labels (`sequence_loss`)."""
        logits = self.logits(tokens, labels, embeds, prefix)
        return sequence_loss(logits, self.written[labels], self.mask[labels], z_loss=z_loss, reduction=reduction)

    def scores(self, tokens: Tokens, *, embeds: Tensor | None = None, prefix: Prefix | None = None) -> Tensor:
        """Log-probability of the text of each class, ``(B, C)``; the encoder reads the input once."""
        hidden = self._language.hidden(tokens, embeds=embeds, prefix=prefix)
        found = []
        for read, written, mask in zip(self.read, self.written, self.mask, strict=True):
            given = read.expand(len(tokens), -1)
            logits = self._language.target_logits(tokens, given, prefix=prefix, hidden=hidden)
            right = F.log_softmax(logits, dim=2).gather(2, written.expand(len(tokens), -1).unsqueeze(2)).squeeze(2)
            found.append((right * mask).sum(dim=1))
        return torch.stack(found, dim=1)
