from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.metrics.statistics import Summary, holm, paired_t, summarize, t_quantile

VECTORS = json.loads((Path(__file__).parents[1] / "golden" / "metrics" / "vectors.json").read_text())
X, Y = VECTORS["seeds"]["x"], VECTORS["paired"]["y"]


def test_vector() -> None:
    found = summarize(X)
    assert found.n == 5
    for name in ("mean", "std", "ci95"):
        assert getattr(found, name) == pytest.approx(VECTORS["seeds"][name], abs=1e-6)


@pytest.mark.parametrize(("n", "value"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (6, 2.571), (10, 2.262)])
def test_t_table(n: int, value: float) -> None:
    assert t_quantile(n - 1) == pytest.approx(value, abs=5e-4)


def test_undefined_is_none_never_zero() -> None:
    assert summarize([]) == Summary(0, None, None, None)
    assert summarize([0.5]) == Summary(1, 0.5, None, None)
    assert summarize([0.5, None]) == Summary(2, None, None, None)
    assert summarize([0.5, math.nan]) == Summary(2, None, None, None)
    assert summarize([0.5, 0.5]) == Summary(2, 0.5, 0.0, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).flatmap(lambda x: st.tuples(st.just(x), st.permutations(x))))
def test_the_order_of_seeds_changes_nothing(pair: tuple[list[float], list[float]]) -> None:
    assert summarize(pair[0]) == summarize(pair[1])


def test_paired_vector() -> None:
    found = paired_t(X, Y)
    assert found is not None
    assert found.difference == pytest.approx(0.74)
    assert found.t == pytest.approx(VECTORS["paired"]["t"], abs=1e-6)
    assert found.p == pytest.approx(VECTORS["paired"]["p"], abs=1e-6)
    assert found.ci95 == pytest.approx(0.452824, abs=1e-6)


def test_paired_corner_cases() -> None:
    assert paired_t([1.0], [0.0]) is None
    same = paired_t([1.0, 2.0], [1.0, 2.0])
    assert same is not None
    assert (same.t, same.p) == (0.0, 1.0)
    constant = paired_t([2.0, 3.0], [1.0, 2.0])
    assert constant is not None
    assert (constant.t, constant.p) == (math.inf, 0.0)
    with pytest.raises(ValueError, match="same seeds"):
        paired_t([1.0, 2.0], [1.0])


def test_holm_vector() -> None:
    assert holm(VECTORS["holm"]["p"]) == pytest.approx(VECTORS["holm"]["adjusted"])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_raises_and_keeps_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    ranked = [value for _, value in sorted(zip(p, adjusted, strict=True))]
    assert ranked == sorted(ranked)
