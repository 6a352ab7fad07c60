"""The closed-form head against the definition of ridge regression."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmark.backbones import ridge
from benchmark.backbones.ridge import RIDGES, RidgeHead, Solver


def data(count: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    means = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    return means[labels] + torch.randn(count, width, generator=generator, dtype=torch.float64), labels


def solution(head: RidgeHead, features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The minimiser of the augmented least-squares problem, by QR: no normal equations."""
    hidden = head.hidden(features)
    targets = torch.nn.functional.one_hot(labels, classes).to(hidden.dtype)
    rows = torch.eye(head.width, dtype=hidden.dtype) * float(head.ridge) ** 0.5
    padded = torch.cat([targets, targets.new_zeros(head.width, classes)])
    return torch.linalg.lstsq(torch.cat([hidden, rows]), padded).solution.T


@pytest.mark.parametrize("solver", ["double", "lu"])
@pytest.mark.parametrize("projection", [0, 24, 200])  # fewer and more columns than images
def test_the_weight_minimises_squared_error_plus_penalty_over_everything(solver: Solver, projection: int) -> None:
    torch.manual_seed(0)
    head = RidgeHead(10, projection=projection, solver=solver).double()
    first, second = data(60, 10, 3), data(45, 10, 5, seed=1)
    head.add(*first, 3)
    head.add(*second, 5)
    features, labels = (torch.cat(parts) for parts in zip(first, second, strict=True))
    torch.testing.assert_close(head.weight, solution(head, features, labels, 5), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(head(features[:4]), head.hidden(features[:4]) @ head.weight.T)


@pytest.mark.parametrize("count", [30, 300])  # the search decomposes the smaller of two matrices
def test_lambda_has_the_least_error_on_the_last_fifth(count: int) -> None:
    torch.manual_seed(0)
    head = RidgeHead(10, projection=50).double()
    features, labels = data(count, 10, 4)
    losses = head.add(features, labels, 4)
    fit = int(0.8 * count)
    hidden, targets = head.hidden(features), torch.nn.functional.one_hot(labels, 4).double()
    wanted = []
    for value in RIDGES:
        gram = hidden[:fit].T @ hidden[:fit] + value * torch.eye(50, dtype=torch.float64)
        weight = torch.linalg.lstsq(gram, hidden[:fit].T @ targets[:fit]).solution
        wanted.append(float((hidden[fit:] @ weight - targets[fit:]).square().mean()))
    assert losses[4:] == pytest.approx(wanted[4:], rel=1e-6)  # below 1e-4 the reference itself is inexact
    assert float(head.ridge) == RIDGES[losses.index(min(losses))]
    by_lu = RidgeHead(10, projection=50, solver="lu").double()
    by_lu.matrix.copy_(head.matrix)
    assert by_lu.add(features, labels, 4)[4:] == pytest.approx(wanted[4:], rel=1e-6)


def test_sums_do_not_depend_on_order_or_on_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(50, 6, 3)
    head, other = RidgeHead(6, projection=9), RidgeHead(6, projection=9)
    other.matrix.copy_(head.matrix)
    for part in (slice(0, 20), slice(20, 50)):
        head.add(features.float()[part], labels[part], 3)
    monkeypatch.setattr(ridge, "_ROWS", 7)
    for part in (slice(20, 50), slice(0, 20)):
        other.add(features.float()[part], labels[part], 3)
    assert head.gram.dtype == torch.float64
    torch.testing.assert_close(head.gram, other.gram)
    torch.testing.assert_close(head.cross, other.cross)


def test_a_singular_system_with_a_tiny_lambda_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "RIDGES", (1e-8,))
    torch.manual_seed(0)
    head = RidgeHead(8, projection=60)
    features, labels = data(20, 8, 3)
    features = features.float() * 1e3  # eigenvalues that are 0 come out as about -1e-8 times the largest
    head.add(features, labels, 3)
    assert torch.linalg.cholesky_ex(head.gram + 1e-8 * torch.eye(60, dtype=torch.float64)).info > 0
    one_hot = torch.nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(head(features), one_hot, atol=1e-4, rtol=0)  # 60 columns interpolate 20 images


def test_cosine_scores_are_cosines() -> None:
    torch.manual_seed(0)
    head = RidgeHead(6, projection=12, scoring="cosine")
    features, labels = data(30, 6, 3)
    head.add(features.float(), labels, 3)
    hidden = head.hidden(features.float()).double()
    wanted = torch.nn.functional.cosine_similarity(hidden.unsqueeze(1), head.weight.unsqueeze(0), dim=2)
    torch.testing.assert_close(head(features.float()), wanted.float())


def test_too_few_images_leave_lambda_as_it_was() -> None:
    head = RidgeHead(4)
    features, labels = data(20, 4, 2)
    assert head.add(features[:0], labels[:0], 2) == []
    assert torch.equal(head(features), torch.zeros(20, 2, dtype=torch.float64))
    assert head.add(features[:1], labels[:1], 2) == []
    assert float(head.ridge) == 1.0
    assert len(head.add(features, labels, 2)) == 17
    chosen = float(head.ridge)
    head.add(features[:1], labels[:1], 3)
    assert float(head.ridge) == chosen
    assert head(features).shape == (20, 3)


@pytest.mark.parametrize("solver", ["double", "lu"])
def test_a_state_of_another_size_is_loaded(solver: Solver) -> None:
    head, again = RidgeHead(6, projection=9, solver=solver), RidgeHead(6, projection=9, solver=solver)
    features, labels = data(40, 6, 3)
    head.add(features.float(), labels, 3)
    again.load_state_dict(head.state_dict())
    assert again.gram.dtype == (torch.float64 if solver == "double" else torch.float32)
    assert torch.equal(again(features.float()), head(features.float()))
    more, their = data(30, 6, 5, seed=1)
    assert head.add(more.float(), their, 5) == again.add(more.float(), their, 5)
    assert torch.equal(again.weight, head.weight)
