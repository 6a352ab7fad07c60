"""Logistic regression: scikit-learn's coefficients, and the conditions of an optimum without it."""

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.backbones.logistic import TOLERANCE, fit_logistic


def data(classes: int, count: int = 60, width: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Overlapping clouds around class means, an unequal number of images each."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(count).sqrt().long() % classes
    means = torch.randn(classes, width, generator=generator, dtype=torch.float64) * 1.5
    noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return (3 * (means[labels] + noise) + 1).to(dtype), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(("strength", "max_iter"), [(0.316, 1000), (1e4, 1000), (1e-4, 1000), (1e6, 7), (0.316, 3)])
def test_the_coefficients_are_those_of_scikit_learn(classes: int, strength: float, max_iter: int) -> None:
    """Also where it stops early: the steps on the way are the same."""
    linear: Any = importlib.import_module("sklearn.linear_model")
    features, labels = data(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopping early is part of the protocol
        theirs = linear.LogisticRegression(C=strength, max_iter=max_iter).fit(features.numpy(), labels.numpy())
    ours = fit_logistic(features, labels, range(classes), strength=strength, max_iter=max_iter)
    assert ours.iterations == theirs.n_iter_[0]
    weight, bias = ours.weight, ours.bias
    if classes == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    scale = float(torch.from_numpy(theirs.coef_).abs().max())
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), rtol=1e-6, atol=1e-7 * scale)
    torch.testing.assert_close(bias, torch.from_numpy(theirs.intercept_), rtol=1e-5, atol=1e-6 * scale)
    expected = torch.from_numpy(theirs.predict_proba(features.numpy()))
    torch.testing.assert_close((features @ ours.weight.T + ours.bias).softmax(dim=1), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_gradient_vanishes(classes: int, dtype: torch.dtype) -> None:
    features, labels = data(classes, dtype=dtype)
    found = fit_logistic(features, labels, range(classes), strength=0.5)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    cross_entropy = F.cross_entropy(features.double() @ weight.T + bias, labels)
    # One vector w = 2 w_1 of two classes: |w|^2 / 2 = |W|^2.
    penalty = weight.square().sum() * (1.0 if classes == 2 else 0.5) / (0.5 * len(labels))
    (cross_entropy + penalty).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) <= TOLERANCE
    assert float(bias.grad.abs().max()) <= TOLERANCE
    assert math.isclose(found.loss, cross_entropy.item(), rel_tol=1e-12)
    assert found.bias.sum().abs() < 1e-9
    assert found.weight.sum(dim=0).abs().max() < 1e-9
    assert found.loss < 0.5 * math.log(classes)


@pytest.mark.parametrize("classes", [2, 5])
def test_rounded_features_end_at_an_objective_that_is_as_low(classes: int) -> None:
    """L-BFGS amplifies rounding, so only the objective is compared closely."""
    features, labels = data(classes)
    one = fit_logistic(features, labels, range(classes), strength=0.316)
    two = fit_logistic(features.float(), labels, range(classes), strength=0.316)

    def objective(found: Any) -> float:
        cross_entropy = F.cross_entropy(features @ found.weight.T + found.bias, labels)
        penalty = found.weight.square().sum() * (1.0 if classes == 2 else 0.5) / (0.316 * len(labels))
        return float(cross_entropy + penalty)

    assert math.isclose(objective(one), objective(two), rel_tol=1e-4)
    assert float((one.weight - two.weight).abs().max() / one.weight.abs().max()) < 1e-2


def test_rows_come_in_the_order_of_the_classes() -> None:
    features, labels = data(3)
    found = fit_logistic(features, labels, (0, 1, 2), strength=1.0)
    turned = fit_logistic(features, labels * 10 + 5, (25, 5, 15), strength=1.0)
    torch.testing.assert_close(turned.weight, found.weight[[2, 0, 1]], rtol=1e-4, atol=1e-5)


def test_classes_without_images_and_a_single_class() -> None:
    features, labels = data(3)
    found = fit_logistic(features, labels, (0, 1, 2, 3), strength=1.0)
    assert not ((features @ found.weight.T + found.bias).argmax(dim=1) == 3).any()
    alone = fit_logistic(features, torch.full_like(labels, 7), (7,), strength=1.0)
    assert (alone.loss, alone.iterations) == (0.0, 0)
    assert not alone.weight.any()
    assert alone.weight.shape == (1, 7)
    with pytest.raises(KeyError):
        fit_logistic(features, labels, (0, 1), strength=1.0)


def test_the_same_images_give_the_same_bits() -> None:
    features, labels = data(5)
    one, two = (fit_logistic(features, labels, range(5), strength=10.0) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
