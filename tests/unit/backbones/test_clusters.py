"""Centres: those of blobs are found, and few rows have few of them."""

from __future__ import annotations

import torch

from benchmark.backbones.clusters import k_means


def test_blobs_have_their_means_as_centres_and_the_random_state_stays() -> None:
    blobs = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    labels = torch.arange(30) % 3
    features = blobs[labels] + 0.1 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    centres, found = k_means(features, 3)
    assert torch.equal(torch.get_rng_state(), state)
    for label in range(3):
        (own,) = set(found[labels == label].tolist())
        torch.testing.assert_close(centres[own], features[labels == label].mean(0))


def test_equal_rows_have_one_centre() -> None:
    centres, found = k_means(torch.ones(4, 2), 3)
    assert centres.tolist() == [[1.0, 1.0]]
    assert found.tolist() == [0] * 4
