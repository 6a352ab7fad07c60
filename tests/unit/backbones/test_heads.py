"""Growing heads and class masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmark.backbones.heads import VPT_BIAS, ClassHead, mask_logits


def test_growing_keeps_old_rows_and_draws_new_ones() -> None:
    head = ClassHead(8, 2)
    with torch.no_grad():
        head.bias.fill_(3.0)
    old = head.weight.detach().clone()
    assert head.grow(5)
    assert not head.grow(5)
    assert not head.grow(3)
    assert head.classes == 5
    assert torch.equal(head.weight[:2], old)
    assert head.weight[2:].abs().min() > 0
    assert head.bias.tolist() == [3.0, 3.0, 0.0, 0.0, 0.0]
    assert head(torch.randn(4, 8)).shape == (4, 5)


def test_an_empty_head_can_be_made_and_moved() -> None:
    head = ClassHead(8).double()
    head.grow(3)
    assert head.weight.dtype == torch.float64
    assert head(torch.zeros(2, 8, dtype=torch.float64)).shape == (2, 3)


def test_initialisation_rules() -> None:
    torch.manual_seed(0)
    assert float(ClassHead(512, 100).weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    zeros = ClassHead(4, 3, init="zeros")
    assert not zeros.weight.any()
    assert not zeros.bias.any()
    plain = ClassHead(64, 500, init="torch")
    reference = nn.Linear(64, 500)
    assert float(plain.weight.detach().abs().max()) <= 1 / 8
    assert float(plain.weight.detach().std()) == pytest.approx(float(reference.weight.detach().std()), rel=0.03)
    assert float(plain.bias.detach().std()) == pytest.approx(float(reference.bias.detach().std()), rel=0.1)
    vpt = ClassHead(512, 100, init="vpt")
    wanted = torch.empty(100, 512)
    nn.init.kaiming_normal_(wanted, a=0, mode="fan_out")
    assert float(vpt.weight.detach().std()) == pytest.approx(float(wanted.std()), rel=0.02)
    assert vpt.bias.tolist() == [pytest.approx(-4.59512, abs=1e-5)] * 100
    assert pytest.approx(0.01) == 1 / (1 + math.exp(-VPT_BIAS))


@pytest.mark.parametrize("start", [0, 2, 9])
def test_a_state_dict_of_another_size_can_be_loaded(start: int) -> None:
    source = ClassHead(4, 5, init="torch")
    target = nn.ModuleDict({"head": ClassHead(4, start)})
    target.load_state_dict({f"head.{name}": value for name, value in source.state_dict().items()})
    head = target["head"]
    assert isinstance(head, ClassHead)
    assert torch.equal(head.weight, source.weight)
    assert torch.equal(head.bias, source.bias)
    assert head.weight.requires_grad


def test_masks_are_out_of_place_and_keep_the_allowed() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    masked = mask_logits(logits, (0, 2))
    assert masked.tolist() == [[1.0, -math.inf, 3.0]]
    assert logits.tolist() == [[1.0, 2.0, 3.0]]
    assert mask_logits(logits, torch.tensor([1])).tolist() == [[-math.inf, 2.0, -math.inf]]
    assert mask_logits(logits, None) is logits


def test_masked_rows_get_exactly_no_gradient() -> None:
    head = ClassHead(4, 6)
    loss = nn.functional.cross_entropy(mask_logits(head(torch.randn(8, 4)), range(3, 6)), torch.tensor([3, 4] * 4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is not None
    assert not head.weight.grad[:3].any()
    assert head.weight.grad[3:].all()
