"""Choices of several tokens, worked out by hand on a tiny masked model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmark.backbones.language import Tokens
from benchmark.learners import several_masks
from benchmark.testing.language import tiny_language

pytestmark = pytest.mark.usefixtures("one_thread")

LANGUAGE = tiny_language()
TEMPLATE = LANGUAGE.template("{text} it is {mask} .")
TEXT = {"text": "a thing1 in light7"}
CHOICES = ("some other words", "that", "no stream")


def at(tokens: Tokens) -> Tensor:
    """Log-probabilities ``(k, V)`` at the masks that were there at first."""
    return LANGUAGE.logits(tokens, tokens.marks["mask"])[0].log_softmax(dim=1)


def filled(choice: str, order: tuple[int, ...]) -> float:
    """The sum of log-probabilities when masks are filled in this order."""
    wanted = LANGUAGE.layout.ids(choice)
    tokens, total = LANGUAGE.batch([TEMPLATE.encode(TEXT, masks=len(wanted))]), 0.0
    for place in order:
        total += float(at(tokens)[place, wanted[place]])
        ids = tokens.ids.clone()
        ids[0, tokens.marks["mask"][0, place]] = wanted[place]
        tokens = replace(tokens, ids=ids)
    return total


def likeliest(choice: str) -> tuple[int, ...]:
    """The order in which the most likely of the choice's tokens comes first."""
    wanted = LANGUAGE.layout.ids(choice)
    for order in itertools.permutations(range(len(wanted))):
        tokens, fits = LANGUAGE.batch([TEMPLATE.encode(TEXT, masks=len(wanted))]), True
        for number, place in enumerate(order):
            sure = at(tokens)
            fits &= all(
                float(sure[place, wanted[place]]) >= float(sure[other, wanted[other]]) for other in order[number:]
            )
            ids = tokens.ids.clone()
            ids[0, tokens.marks["mask"][0, place]] = wanted[place]
            tokens = replace(tokens, ids=ids)
        if fits:
            return order
    raise AssertionError("no order is the likeliest")


@torch.no_grad()
def test_orders() -> None:
    best, ltr, parallel = (
        several_masks.log_probabilities(LANGUAGE, TEMPLATE, TEXT, CHOICES, order=order).tolist()
        for order in ("best", "ltr", "parallel")
    )
    for place, choice in enumerate(CHOICES):
        count = len(LANGUAGE.layout.ids(choice))
        assert best[place] == pytest.approx(filled(choice, likeliest(choice)), abs=1e-5)
        assert ltr[place] == pytest.approx(filled(choice, tuple(range(count))), abs=1e-5)
        tokens = LANGUAGE.batch([TEMPLATE.encode(TEXT, masks=count)])
        alone = sum(float(at(tokens)[mask, word]) for mask, word in enumerate(LANGUAGE.layout.ids(choice)))
        assert parallel[place] == pytest.approx(alone, abs=1e-5)
    assert best[1] == ltr[1] == pytest.approx(parallel[1], abs=1e-6)  # one token: no order
    assert best[0] != pytest.approx(parallel[0], abs=1e-4)


def test_losses() -> None:
    logits = torch.zeros(2, 2, 4)
    logits[0, 0, 1] = 2.0
    right, wrong = torch.tensor([[1, 2], [3, -100]]), torch.tensor([[0, -100], [2, 1]])
    sure = torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 3)
    even = torch.tensor(4.0).log()
    one, two = -sure.log() + even, even  # of the right choices
    three, four = 2.0 - sure.log(), 2 * even
    torch.testing.assert_close(several_masks.choice_loss(logits, right), torch.stack([one, two]))
    torch.testing.assert_close(several_masks.choice_loss(logits, wrong), torch.stack([three, four]))
    found = several_masks.margin_loss(torch.stack([one, two]), [torch.stack([three, four]), torch.tensor([9.0, 0.5])])
    by_hand = (max(0.0, 1 + one - three) + max(0.0, 1 + two - four) + 0.0 + (1 + two - 0.5)) / 2
    torch.testing.assert_close(found, torch.as_tensor(by_hand))
    mean = several_masks.mean_margin_loss(logits, right, wrong)
    torch.testing.assert_close(mean, 1 + (one + two) / 3 - (three + four) / 3)
