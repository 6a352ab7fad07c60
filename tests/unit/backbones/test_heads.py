"""Growing heads and class masks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.backbones.heads import VPT_BIAS, ClassHead, CosineHead, HeadInit, MLPHead, mask_logits


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


@pytest.mark.parametrize(("init", "spread"), [("small", 0.001), ("kaiming", 64**-0.5)])
def test_rows_are_drawn_with_a_known_spread(init: HeadInit, spread: float) -> None:
    torch.manual_seed(0)
    head = ClassHead(64, 200, init=init)
    assert head.weight.detach().std().item() == pytest.approx(spread, rel=0.05)
    assert head.bias.count_nonzero() == 0


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


def mlp(hidden: int = 2, **options: Any) -> MLPHead:
    torch.manual_seed(0)
    head = MLPHead(8, hidden, **options)
    head.grow(3)
    return head


def test_the_mlp_head_normalises_behind_the_non_linearity() -> None:
    head, features = mlp(1, dropout=0.0), torch.randn(16, 8)
    linear, _, norm, _ = head.hidden
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    hidden = (features @ linear.weight.T + linear.bias).clamp(min=0)
    normed = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    wanted = normed @ head.last.weight.T + head.last.bias
    torch.testing.assert_close(head(features), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.detach().mean(0))
    linear_head = mlp(0)
    torch.testing.assert_close(linear_head(features), linear_head.last(features))
    layered = mlp(1, norm="layer", dropout=0.0)
    torch.testing.assert_close(layered(features)[3:4], layered(features[3:4]), atol=1e-6, rtol=1e-5)


def test_hidden_layers_are_drawn_by_fan_out_and_rows_are_added_to_the_last_layer_only() -> None:
    torch.manual_seed(0)
    head = MLPHead(512, 1, init="vpt")
    hidden = head.hidden[0]
    assert isinstance(hidden, nn.Linear)
    assert float(hidden.weight.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.01)
    assert float(hidden.bias.detach().abs().max()) <= 512**-0.5
    before = {name: value.clone() for name, value in head.hidden.state_dict().items()}
    assert head.grow(4)
    assert not head.grow(2)
    assert head.classes == 4
    assert head.last.bias.tolist() == pytest.approx([VPT_BIAS] * 4)
    assert all(torch.equal(value, before[name]) for name, value in head.hidden.state_dict().items())


def test_a_batch_of_one_uses_running_statistics_and_leaves_them() -> None:
    head = mlp(dropout=0.0)
    head(torch.randn(16, 8))
    kept = {name: value.clone() for name, value in head.state_dict().items()}
    one = torch.randn(1, 8)
    found = head(one)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in head.state_dict().items())
    torch.testing.assert_close(found, head.eval()(one))


def test_frozen_norms_stay_also_after_a_restart() -> None:
    head = mlp(dropout=0.0)
    head(torch.randn(16, 8))
    head.freeze_norms()
    again = mlp(dropout=0.0)
    again.load_state_dict(head.state_dict())
    again.restore_frozen()
    for one in (head, again):
        one.train()
        norms = [layer for layer in one.hidden if isinstance(layer, nn.BatchNorm1d)]
        assert len(norms) == 2
        assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)
        before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
        one(torch.randn(16, 8)).sum().backward()
        assert all(norm.weight.grad is None for norm in norms)
        after = [norm.running_mean for norm in norms if norm.running_mean is not None]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert one.hidden[0].weight.grad is not None
    free = mlp(dropout=0.0)
    free.restore_frozen()
    assert all(parameter.requires_grad for parameter in free.parameters())


def test_cosine_head_gives_scaled_cosines_and_grows() -> None:
    torch.manual_seed(0)
    head = CosineHead(64, 3)
    assert float(head.weight.detach().abs().max()) <= 1 / 8
    assert float(head.weight.detach().std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.15)
    features = torch.randn(4, 64) * 100
    rows = head.weight.detach().clone()
    wanted = nn.functional.cosine_similarity(features.unsqueeze(1), rows.unsqueeze(0), dim=2)
    torch.testing.assert_close(head(features), wanted)
    with torch.no_grad():
        head.sigma.fill_(3.0)
    torch.testing.assert_close(head(features), 3 * wanted)
    assert head.grow(5)
    assert not head.grow(4)
    assert torch.equal(head.weight[:3], rows)
    other = CosineHead(64)
    assert other(features).shape == (4, 0)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(features), head(features))
