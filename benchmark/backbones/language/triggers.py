"""Words of a question that are found by search: gradients at embeddings, candidates, and losses over sets of words.

The arithmetic of AutoPrompt (Shin et al., EMNLP 2020, arXiv 2010.15980; ucinlp/autoprompt at d6376759,
``autoprompt/create_trigger.py`` and ``label_search.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.language.model import LanguageModel
from benchmark.backbones.language.templates import Tokens, ids_on

BARRED = -1e32
"""Score of what may not be chosen."""


def word_losses(logits: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
    """Minus the log of the summed probability of the words of each class, ``(B, C)``.

    Args:
        logits: Of all words, ``(B, V)``.
        words: Ids of each class.
    """
    log = F.log_softmax(logits, dim=-1)
    columns = [ids_on(tuple(some), logits.device) for some in words]
    return torch.stack([-log[:, some].logsumexp(dim=-1) for some in columns], dim=1)


def right(losses: Tensor, labels: Tensor) -> Tensor:
    """1 where no other class has a loss as low as that of the label, else 0, ``(B,)``.

    Args:
        losses: ``(B, C)``.
        labels: ``(B,)``.
    """
    gold = losses.gather(1, labels.unsqueeze(1))
    return ((losses <= gold).sum(dim=1) <= 1).to(losses.dtype)


def barred_words(language: LanguageModel, labels: Iterable[int] = ()) -> Tensor:
    """Which words are no candidates, bool ``(V,)``: special tokens, capitalised words, and those of the classes.

    A word of one character is one unless it stands for a class. Tokenizers of bytes write a blank in front of what
    starts a word: only there does a capital count.

    Args:
        language: Its tokenizer.
        labels: Ids of the words of the classes.
    """
    tokenizer = language.tokenizer
    barred = torch.zeros(len(language.embedding.weight), dtype=torch.bool)
    barred[len(tokenizer) :] = True  # rows behind the vocabulary mean nothing
    barred[list(labels)] = True
    special = set(tokenizer.all_special_ids)
    spaced = str(tokenizer.convert_ids_to_tokens(list(language.layout.ids("a")))[0]).startswith("Ġ")
    for word, number in tokenizer.get_vocab().items():
        if len(word) > 1 and number < len(barred):
            barred[number] |= number in special or _capital(tokenizer.decode([number]), spaced=spaced)
    return barred.to(language.embedding.weight.device)


def _capital(text: str, *, spaced: bool) -> bool:
    if spaced:
        return text.startswith(" ") and text[1:2].isupper()
    return text[:1].isupper()


def best_words(language: LanguageModel, gradient: Tensor, count: int, barred: Tensor | None = None) -> Tensor:
    """Ids of the words whose embeddings lower the loss most, by its linear approximation, best first, ``(K,)``.

    Args:
        language: Its table of embeddings E.
        gradient: Of the loss at one position, ``(D,)``; the score of word w is ``-E_w . g``.
        count: K.
        barred: Words that may not be chosen, ``(V,)``.
    """
    scores = -(language.embedding.weight.detach() @ gradient)
    if barred is not None:
        scores = scores.masked_fill(barred, BARRED)
    return scores.topk(count).indices


def with_trigger(tokens: Tokens, trigger: Tensor) -> Tokens:
    """The examples with words at their trigger positions.

    Args:
        tokens: B examples with L trigger positions each.
        trigger: Ids ``(L,)``, or ``(B, L)``.
    """
    at = tokens.marks["trigger"]
    return dataclasses.replace(tokens, ids=tokens.ids.scatter(1, at, trigger.expand(len(tokens), -1)))


def repeated(tokens: Tokens, times: int) -> Tokens:
    """Each example so many times, one after the other."""
    ids, mask, segments = (part.repeat_interleave(times, dim=0) for part in (tokens.ids, tokens.mask, tokens.segments))
    marks = {name: places.repeat_interleave(times, dim=0) for name, places in tokens.marks.items()}
    return Tokens(ids, mask, segments, marks)


def features_of_words(language: LanguageModel, tokens: Tokens, at: Tensor) -> Tensor:
    """What the last layer of the head over words reads at one position of each example, ``(B, d)``.

    In BERT that is behind the transform of the head, in RoBERTa behind its layer norm.

    Args:
        language: A model with a head over words.
        tokens: B examples.
        at: Positions ``(B, 1)``.
    """
    seen: list[Tensor] = []
    decoder: nn.Module = language.model.get_output_embeddings()
    handle = decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        language.logits(tokens, at)
    finally:
        handle.remove()
    return seen[0][:, 0]


class LabelProjection:
    """A linear classifier on `features_of_words`, whose rows say which words are like a class.

    Args:
        language: Its head over words.
        classes: Number C of classes.
        lr: Of Adam.

    Attributes:
        linear: From d features to C classes, as torch draws it.
    """

    def __init__(self, language: LanguageModel, classes: int, *, lr: float) -> None:
        weight = language.model.get_output_embeddings().weight
        self._words: Tensor = weight.detach()
        self.linear = nn.Linear(weight.shape[1], classes).to(weight)
        self._optimizer: Any = torch.optim.Adam(self.linear.parameters(), lr=lr)

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """One step down the cross-entropy; returns it."""
        loss = F.cross_entropy(self.linear(features), labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def scores(self) -> Tensor:
        """Softmax over classes of the likeness of each word, ``(C, V)``."""
        return (self.linear.weight.detach() @ self._words.T).softmax(dim=0)
