"""Gaussian statistics against numpy and scikit-learn, and what must hold for all of them."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.backbones import gaussian
from benchmark.backbones.gaussian import ClassGaussians, Kept, Sampler

WIDTH = 4


def data(count: int, classes: int = 3, width: int = WIDTH, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    mixing = torch.randn(classes, width, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return labels.double().unsqueeze(1) + torch.einsum("nd,nde->ne", noise, mixing[labels]), labels


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 9))
def test_statistics_are_those_of_numpy_however_the_batches_are_cut(count: int, cuts: list[int], seed: int) -> None:
    features, labels = data(count, seed=seed)
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]
    full, diagonal, shared = (ClassGaussians(WIDTH, kept=kept) for kept in ("full", "diagonal", "shared"))
    for start, stop in itertools.pairwise(edges):
        for statistics in (full, diagonal, shared):
            statistics.add(features[start:stop], labels[start:stop])
    residuals = []
    for label in range(full.classes):
        rows = features[labels == label].numpy()
        assert full.counts[label] == len(rows)
        wanted = np.cov(rows.T) if len(rows) > 1 else np.zeros((WIDTH, WIDTH))
        np.testing.assert_allclose(full.covariances()[label], wanted, atol=1e-10)
        np.testing.assert_allclose(diagonal.covariances(ridge=0.5)[label], np.diag(wanted) + 0.5, atol=1e-10)
        if len(rows):
            np.testing.assert_allclose(full.means[label], rows.mean(axis=0), atol=1e-12)
            residuals.append(rows - rows.mean(axis=0))
    if count > 1:
        np.testing.assert_allclose(shared.covariances(), np.cov(np.concatenate(residuals).T), atol=1e-10)


@pytest.mark.parametrize("kept", ["full", "diagonal", "shared"])
def test_a_state_of_another_size_is_loaded(kept: Kept) -> None:
    features, labels = data(20)
    first, second = ClassGaussians(WIDTH, kept=kept), ClassGaussians(WIDTH, kept=kept)
    first.add(features, labels)
    second.load_state_dict(first.state_dict())
    first.add(features, labels + 2)
    second.add(features, labels + 2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_forgotten_class_starts_anew_but_not_in_a_shared_matrix() -> None:
    features, labels = data(30)
    statistics, again = ClassGaussians(WIDTH), ClassGaussians(WIDTH)
    statistics.add(features + 7, labels)
    statistics.forget([0, 1, 2, 9])
    statistics.add(features, labels)
    again.add(features, labels)
    for name, value in statistics.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(ValueError, match="shared"):
        ClassGaussians(WIDTH, kept="shared").forget([0])


@pytest.mark.parametrize("kept", ["full", "diagonal"])
def test_samples_have_the_mean_and_covariance_that_they_are_drawn_from(kept: Kept) -> None:
    torch.manual_seed(0)
    features, labels = data(200)
    statistics = ClassGaussians(WIDTH, kept=kept)
    statistics.add(features, labels)
    drawn = Sampler(statistics.means, statistics.covariances(ridge=1e-4)).draw(20_000)
    assert drawn.shape == (3, 20_000, WIDTH)
    again = ClassGaussians(WIDTH, kept=kept)
    again.add(drawn.flatten(0, 1), torch.arange(3).repeat_interleave(20_000))
    scale = float(statistics.scatter.max()) / 50
    torch.testing.assert_close(again.means, statistics.means, atol=0.1, rtol=0)
    torch.testing.assert_close(again.covariances(), statistics.covariances(), atol=0.05 * scale, rtol=0)


def test_given_noise_goes_through_the_cholesky_factor() -> None:
    features, labels = data(60)
    statistics = ClassGaussians(WIDTH)
    statistics.add(features, labels)
    noise = torch.randn(3, 5, WIDTH)
    drawn = Sampler(statistics.means, statistics.covariances()).draw(5, noise=noise)
    for label in range(3):
        factor = np.linalg.cholesky(np.cov(features[labels == label].numpy().T))
        np.testing.assert_allclose(drawn[label], statistics.means[label].numpy() + noise[label].numpy() @ factor.T)


def test_a_covariance_that_cannot_be_drawn_from_says_what_helps() -> None:
    with pytest.raises(ValueError, match="ridge"):
        Sampler(torch.zeros(2, WIDTH), torch.zeros(2, WIDTH, WIDTH))
    with pytest.raises(ValueError, match="negative"):
        Sampler(torch.zeros(2, WIDTH), -torch.ones(2, WIDTH))


def test_shrinking_adds_the_mean_variance_and_the_mean_of_other_entries() -> None:
    covariance = torch.tensor([[2.0, 1.0, 0.0], [1.0, 4.0, 0.5], [0.0, 0.5, 3.0]], dtype=torch.float64)
    shrunk = gaussian.shrink(covariance, diagonal=2.0, off_diagonal=4.0)
    added = torch.full((3, 3), 4.0 * 3.0 / 4, dtype=torch.float64)  # four entries besides the diagonal are not zero
    torch.testing.assert_close(shrunk, covariance + added.fill_diagonal_(2.0 * 3.0))
    batch = gaussian.shrink(torch.stack([covariance, 2 * covariance]), diagonal=2.0, off_diagonal=4.0)
    torch.testing.assert_close(batch, torch.stack([shrunk, 2 * shrunk]))


def test_a_normalised_covariance_is_the_correlation_of_numpy() -> None:
    rows = data(50)[0]
    torch.testing.assert_close(gaussian.correlation(torch.cov(rows.T)), torch.from_numpy(np.corrcoef(rows.numpy().T)))
    with pytest.raises(ValueError, match="shrink"):
        gaussian.correlation(torch.zeros(WIDTH, WIDTH))


def test_tukey_refuses_what_would_be_no_number() -> None:
    features = torch.tensor([[0.0, 4.0]])
    assert gaussian.tukey(features, 0.5).tolist() == [[0.0, 2.0]]
    assert torch.equal(gaussian.tukey(-features, 1), -features)
    assert torch.equal(gaussian.tukey(features.exp(), 0), features)
    for power, values in ((0.5, -features), (0, features), (-1, features)):
        with pytest.raises(ValueError, match="non-negative"):
            gaussian.tukey(values, power)


@pytest.mark.parametrize(("count", "width"), [(30, 4), (5, 12), (200, 3)])
def test_oracle_approximating_shrinkage_is_that_of_scikit_learn(count: int, width: int) -> None:
    covariance: Any = importlib.import_module("sklearn.covariance")
    rows = data(count, width=width)[0]
    wanted = covariance.OAS(assume_centered=True).fit(rows.numpy()).covariance_
    np.testing.assert_allclose(gaussian.oracle_approximating(rows), wanted, atol=1e-10)


def test_the_linear_discriminant_is_that_of_scikit_learn() -> None:
    analysis: Any = importlib.import_module("sklearn.discriminant_analysis")
    features, labels = data(90)
    statistics = ClassGaussians(WIDTH, kept="shared")
    statistics.add(features, labels)
    precision = torch.linalg.inv(statistics.scatter / 90)
    weight, bias = gaussian.linear_discriminant(statistics.means, precision)
    reference = analysis.LinearDiscriminantAnalysis(solver="lsqr").fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose(weight, reference.coef_)
    np.testing.assert_allclose(bias, reference.intercept_ - np.log(reference.priors_))
    distances = gaussian.mahalanobis(features, statistics.means, precision)
    torch.testing.assert_close((-0.5 * distances).softmax(1), (features @ weight.T + bias).softmax(1))


def test_distances_with_a_matrix_for_each_class_are_those_of_scipy() -> None:
    distance: Any = importlib.import_module("scipy.spatial.distance")
    features, labels = data(60)
    statistics = ClassGaussians(WIDTH)
    statistics.add(features, labels)
    inverses = torch.linalg.inv(statistics.covariances())
    distances = gaussian.mahalanobis(features[:5], statistics.means, inverses)
    for label in range(3):
        wanted = distance.cdist(features[:5], statistics.means[label : label + 1], "mahalanobis", VI=inverses[label])
        np.testing.assert_allclose(distances[:, label], wanted[:, 0] ** 2)
    assert gaussian.mahalanobis(features[:5], torch.zeros(0, WIDTH).double(), inverses).shape == (5, 0)


def test_the_inverse_of_kubokawa_and_srivastava_exists_for_few_samples() -> None:
    features, labels = data(5, width=12)
    statistics = ClassGaussians(12, kept="shared")
    statistics.add(features, labels)
    inverse = gaussian.kubokawa_srivastava(statistics.scatter, 5)
    covariance = statistics.covariances()
    wanted = 12 * np.linalg.inv((4 * covariance + covariance.trace() * torch.eye(12).double()).numpy())
    np.testing.assert_allclose(inverse, wanted, rtol=1e-8)
    assert not gaussian.kubokawa_srivastava(torch.zeros(3, 3), 3).any()
