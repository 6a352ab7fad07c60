"""Comparison with recorded numbers: what passes, what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.testing.recorded import Recorded, kind_of


@pytest.fixture
def case(tmp_path: Path) -> Recorded:
    arrays: dict[str, Any] = {
        "input.images": np.ones((2, 3)),
        "input.labels": np.array([1, 0]),
        "f64.loss": np.array(20.0),
        "f64.logits": np.array([[1.0, -np.inf], [2.0, 0.0]]),
        "f64.choice": np.array([3, 4]),
    }
    np.savez(tmp_path / "toy.npz", **arrays)
    (tmp_path / "toy.json").write_text(json.dumps({"config": {}, "reference": "by hand"}))
    return Recorded(tmp_path, "toy", torch.float32)


def test_tensors_have_the_precision_of_the_case(case: Recorded) -> None:
    assert case.tensor("input.images").dtype == torch.float32
    assert case.tensor("input.labels").dtype == torch.int64
    assert set(case.part("input.")) == {"images", "labels"}
    assert case.computed("lo") == ["loss", "logits"]


def test_equal_numbers_pass_and_the_largest_deviation_is_kept(
    case: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    case.compare("loss", 20.0001)  # relative to 20
    case.compare("logits", torch.tensor([[1.0, -torch.inf], [2.0, 0.000002]]))
    case.compare("choice", torch.tensor([3, 4]))
    assert case.worst == pytest.approx({"loss": 5e-6, "logits": 1e-6, "choice": 0.0}, rel=1e-2)
    assert {kind: key for kind, (_, key) in case.deviations().items()} == {"loss": "loss", "outputs": "logits"}
    case.report()
    first, second = capsys.readouterr().out.splitlines()
    assert "loss" in first
    assert "logits" in second


@pytest.mark.parametrize(
    ("key", "mine", "message"),
    [
        ("loss", 20.001, "loss deviates by 5.0e-05"),
        ("loss", float("nan"), "loss deviates by nan"),
        ("loss", [20.0], "loss has shape"),
        ("loss", None, "loss was not computed"),
        ("logits", [[1.0, 0.0], [2.0, 0.0]], "logits differs"),
        ("logits", [[1.0, -torch.inf], [torch.inf, 0.0]], "logits deviates by inf"),
        ("choice", [3, 5], "choice differs"),
    ],
)
def test_other_numbers_do_not_pass(case: Recorded, key: str, mine: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        case.compare(key, None if mine is None else torch.tensor(mine))


def test_a_limit_of_its_own(case: Recorded) -> None:
    case.compare("loss", 20.001, limit=1e-3)
    with pytest.raises(AssertionError, match="deviates"):
        case.compare("loss", 20.0001, limit=1e-7)


def test_kinds_of_quantities() -> None:
    names = ["grad.head.weight", "after3.head.weight", "after.head.weight", "steps.loss_total", "logits_after"]
    assert [kind_of(name) for name in names] == ["gradients", "parameters", "parameters", "loss", "outputs"]
