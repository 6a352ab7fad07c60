"""RAPF, of which no official code ran, against its formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench_methods.rapf import Rapf, RapfConfig, bench_register_methods, fused
from benchmark.testing.by_hand import batch_of, context_of, view_of
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
STREAM = toy_scenario(experiences=2, classes=2, train=6, test=1)


def learn(method: Rapf, index: int) -> list[Any]:
    """Every pass of an experience, one batch each, with features as the engine brings them."""
    method.begin_experience(view_of(method, STREAM, index))
    told, count = [], len(method.passes())
    for epoch in range(count):
        batch = batch_of(method, STREAM, index, epoch, size=12)
        object.__setattr__(batch, "features", method.encode(batch.images))
        told.append(method.train_step(batch))
    method.end_experience(view_of(method, STREAM, index))
    return told


@pytest.fixture
def method() -> Rapf:
    torch.manual_seed(0)
    config = RapfConfig(epochs=2, batch_size=64, replayed=3, kept_apart=4, threshold=2.0)
    return Rapf(config, context_of(SPEC, config, STREAM))


def test_weights_are_fused_by_how_far_they_moved() -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    u, s, vh = torch.linalg.svd(old)
    before, after = torch.diag(s) @ vh, u.T @ new
    moved = (after - before).abs()
    wanted = torch.empty_like(old)
    for row in range(5):
        for column in range(5):
            share = min(float(moved[row, column] / moved.max()) + 0.6, 1.0)
            wanted[row, column] = share * after[row, column] + (1 - share) * before[row, column]
    torch.testing.assert_close(fused(old, new, 0.6), u @ wanted)
    torch.testing.assert_close(fused(old, old, 0.6), old)
    torch.testing.assert_close(fused(old, new, 1.0), new)


def test_old_classes_join_batches_and_near_pairs_are_kept_apart(method: Rapf) -> None:
    first = learn(method, 0)
    assert set(first[0]) == {"loss"}
    assert first[-1] == {"loss": 0.0}  # the pass of the statistics
    assert method.gaussians.counts.tolist() == [6, 6]
    before = method.adapter.weight.detach().clone()
    second = learn(method, 1)
    assert method.old == [0, 1]
    assert set(second[0]) == {"loss", "loss_hinge"}
    assert method.pairs is not None
    assert len(method.pairs[0]) == 4  # two old classes, two new ones
    assert not torch.equal(method.adapter.weight, before)
    assert method.gaussians.counts.tolist() == [6, 6, 6, 6]


def test_the_hinge_is_its_formula(method: Rapf) -> None:
    learn(method, 0)
    method.begin_experience(view_of(method, STREAM, 1))
    samples = method.sample(torch.tensor([0, 1]), 3)
    assert samples.shape == (6, method.dual.feature_width)
    found = method.hinge(samples, torch.tensor([0, 1]), torch.tensor([2, 3]))
    texts, unit = method.texts(method.names), F.normalize(method.adapter(samples), dim=1).detach()
    terms = [
        max(0.0, float(unit[row] @ texts[new] - unit[row] @ texts[old]) + 0.1)
        for row, (old, new) in enumerate([(0, 2)] * 3 + [(1, 3)] * 3)
    ]
    assert float(found.detach()) == pytest.approx(sum(terms) / 6, abs=1e-6)


def test_learning_rates(method: Rapf) -> None:
    from benchmark.testing.by_hand import place

    assert [method.rate(place(epoch)) for epoch in (0, 3, 4, 9)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
