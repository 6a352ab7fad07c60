"""The recursion against one least-squares problem over everything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmark.backbones import recursive_ridge
from benchmark.backbones.recursive_ridge import RecursiveRidge
from benchmark.backbones.ridge import RidgeHead


def data(count: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return features, torch.randint(0, classes, (count,), generator=generator)


@pytest.mark.parametrize("rows", [3, 512])
def test_batches_of_any_size_give_the_solution_over_everything(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recursive_ridge, "_ROWS", rows)
    torch.manual_seed(0)
    head = RecursiveRidge(6, hidden=9, ridge=0.3)
    features, labels = data(50)
    for start, stop in ((0, 1), (1, 20), (20, 50)):
        head.add(features[start:stop], labels[start:stop])
    hidden = head.hidden(features)
    whole = RidgeHead(9)
    weight = whole._solve(hidden.T @ hidden, hidden.T @ torch.nn.functional.one_hot(labels, 4).double(), 0.3)
    torch.testing.assert_close(head.weight, weight)
    assert head.hidden(features).shape == (50, 9)
    assert torch.equal(head(features.float()), (head.hidden(features.float()) @ head.weight).float())


def test_without_a_matrix_features_are_used_as_they_are() -> None:
    features, labels = data(30)
    head = RecursiveRidge(6, ridge=0.5)
    head.add(features, labels)
    augmented = torch.cat([features, 0.5**0.5 * torch.eye(6)])
    targets = torch.cat([torch.nn.functional.one_hot(labels, 4), torch.zeros(6, 4)]).double()
    torch.testing.assert_close(head.weight, torch.linalg.lstsq(augmented, targets).solution)


def test_equal_weights_of_classes_do_not_see_repeated_images() -> None:
    torch.manual_seed(0)
    one = RecursiveRidge(6, hidden=9, ridge=1e-9, weighting="classes")
    other = RecursiveRidge(6, hidden=9, ridge=1e-9, weighting="classes")
    other.load_state_dict(one.state_dict())
    features, labels = data(40, classes=3)
    one.add(features, labels)
    first = labels == 0
    other.add(torch.cat([features, features[first]]), torch.cat([labels, labels[first]]))
    for head in (one, other):
        head.settle()
    torch.testing.assert_close(one.weight, other.weight)
    skipped = RecursiveRidge(6, hidden=9, weighting="classes")
    skipped.add(features, labels + 1)  # class 0 has no image
    skipped.settle()
    assert not skipped.weight[:, 0].any()


def test_nothing_is_learnt_from_nothing() -> None:
    for weighting in ("samples", "classes"):
        head = RecursiveRidge(6, weighting=weighting)  # type: ignore[arg-type]
        head.add(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
        head.settle()
        assert head(torch.zeros(2, 6)).shape == (2, 0)
