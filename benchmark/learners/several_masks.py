"""Choices of several tokens at several masks of one pattern: how likely each is, and losses that tell them apart.

Source: Schick and Schuetze, It's Not Just Size That Matters, arXiv 2009.07118, section 3; timoschick/pet at 21d32de9,
``pet/task_helpers.py`` (`MultiMaskTaskHelper`, `CopaTaskHelper`), for COPA, WSC and ReCoRD.

A choice of k tokens is asked for with k masks. The masks are filled one after the other, and the log-probabilities add
up: first where the choice's token is the likeliest (``best``), from left to right (``ltr``), or all at once
(``parallel``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.backbones.language import LanguageModel, Template
from benchmark.samples import Text

Order = Literal["best", "ltr", "parallel"]


@torch.no_grad()
def log_probabilities(
    language: LanguageModel, template: Template, text: Text, choices: Sequence[str], *, order: Order = "best"
) -> Tensor:
    """Log-probability of each choice at the masks of a pattern, ``(len(choices),)``.

    Args:
        language: A masked model, in eval mode.
        template: Has one ``{mask}``; it stands for as many masks as a choice has tokens.
        text: The example.
        choices: Texts of one token or more.
        order: In which masks are filled.

    Raises:
        UsageError: The example does not fit, or lacks a field.
    """
    return torch.stack([_log_probability(language, template, text, choice, order) for choice in choices])


def _log_probability(language: LanguageModel, template: Template, text: Text, choice: str, order: Order) -> Tensor:
    wanted = language.layout.ids(choice)
    tokens = language.batch([template.encode(text, masks=len(wanted))])
    places = tokens.marks["mask"]  # (1, k)
    goal = torch.tensor(wanted, device=places.device)
    left = list(range(len(wanted)))
    total = torch.zeros((), dtype=language.embedding.weight.dtype, device=places.device)
    while left:
        found = language.logits(tokens, places)[0].log_softmax(dim=1)  # (k, V)
        sure = found[torch.arange(len(goal), device=goal.device), goal]  # (k,)
        if order == "parallel":
            return sure.sum()
        filled = left[0] if order == "ltr" else max(left, key=lambda place: float(sure[place]))
        total = total + sure[filled]
        ids = tokens.ids.clone()
        ids[0, places[0, filled]] = goal[filled]
        tokens = replace(tokens, ids=ids)
        left.remove(filled)
    return total


def choice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of a choice, summed over its masks, ``(B,)``.

    Args:
        logits: At the masks, ``(B, k, V)``.
        wanted: Tokens of the choice, int64 ``(B, k)``; -100 behind the end of one that is shorter.
    """
    return F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").sum(dim=1)  # 0 at -100


def margin_loss(right: Tensor, wrong: Sequence[Tensor]) -> Tensor:
    """``max(0, 1 + right - wrong)``, summed over wrong choices, mean over examples.

    Args:
        right: `choice_loss` of the right choice, ``(B,)``.
        wrong: Likewise of each wrong one.
    """
    return torch.stack([F.relu(1 + right - loss) for loss in wrong]).sum(dim=0).mean()


def mean_margin_loss(logits: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """The same for one wrong choice as COPA has it: on means over all tokens of the batch, not for each example.

    Args:
        logits: At the masks, ``(B, k, V)``.
        right: Tokens of the right choices, int64 ``(B, k)``; -100 as for `choice_loss`.
        wrong: Likewise of the wrong ones.
    """
    return F.relu(
        1
        + F.cross_entropy(logits.flatten(0, 1), right.flatten())
        - F.cross_entropy(logits.flatten(0, 1), wrong.flatten())
    )
