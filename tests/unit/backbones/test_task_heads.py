"""Heads of experiences side by side, and heads that are trained on samples of Gaussians."""

from __future__ import annotations

import torch

from benchmark.backbones.gaussian import Sampler
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.task_heads import TaskHeads
from benchmark.learners.alignment import Alignment, Collected, align


def test_heads_grow_rest_and_take_the_shape_of_a_saved_state() -> None:
    heads = TaskHeads(4).double()
    assert heads(torch.zeros(2, 4)).shape == (2, 0)
    assert heads.grow(3)
    assert not heads.grow(3)
    first = heads(torch.ones(2, 4).double())
    assert heads.grow(5)
    both = heads(torch.ones(2, 4).double())
    assert torch.equal(both[:, :3], first)
    assert heads.sizes == [3, 2]
    assert {id(p) for p in heads.train_only([3, 4])} == {id(p) for p in heads.heads[1].parameters()}
    assert [p.requires_grad for p in heads.parameters()] == [False, False, True, True]
    assert len(heads.train_only([2, 3])) == 4
    other = TaskHeads(4).double()
    other.grow(1)
    other.load_state_dict(heads.state_dict())
    assert torch.equal(other(torch.ones(2, 4).double()), both)
    empty = TaskHeads(4)
    other.load_state_dict(empty.state_dict())
    assert other.classes == 0


def test_alignment_separates_gaussians_and_stops_after_the_batches_it_may_have() -> None:
    torch.manual_seed(0)
    means = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]], dtype=torch.float64)
    sampler = Sampler(means, torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    head, labels = ClassHead(2, 3), torch.arange(3)
    losses = align(head, head.parameters(), sampler, labels, Alignment(epochs=3, samples=20, lr=0.3))
    assert len(losses) == 9
    assert losses[-1] < losses[0]
    assert torch.equal(head(means.float()).argmax(1), labels)
    few = Alignment(epochs=2, samples=20, batches=2)
    assert len(align(head, head.parameters(), sampler, labels, few)) == 4
    assert align(head, [], sampler, labels, few) == []


def test_what_is_collected_is_handed_out_once() -> None:
    collected, again = Collected(), Collected()
    assert collected.take() is None
    for start in (0, 2):
        collected.add(torch.arange(start, start + 2).float().unsqueeze(1), torch.arange(start, start + 2))
    again.load(collected.state(), torch.device("cpu"))
    for one in (collected, again):
        found = one.take()
        assert found is not None
        assert found[0].flatten().tolist() == found[1].tolist() == [0, 1, 2, 3]
        assert one.take() is None
