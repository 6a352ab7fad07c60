"""Statistics of `bench compare`: against published vectors, against other code, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmark.metrics import pairs, ranking
from benchmark.metrics.statistics import Paired, paired_t

X, Y = [83.0, 84.5, 82.0, 85.0, 83.5], [82.1, 83.9, 81.5, 84.6, 82.2]
S = np.array(
    [
        [83.8, 86.5, 86.2, 92.2],
        [61.6, 68.1, 75.5, 77.9],
        [78.3, 77.9, 80.0, 96.7],
        [56.3, 66.5, 73.4, 90.3],
        [41.7, 44.9, 42.7, 62.4],
        [77.1, 81.2, 83.0, 92.2],
    ]
)
Z = np.array([[0.80, 0.60, 0.90, 0.40], [0.82, 0.55, 0.91, 0.45], [0.78, 0.62, 0.88, 0.35], [0.81, 0.58, 0.92, 0.42]])
OTHER = Z - [0.02, -0.01, 0.03, 0.05]
tables = arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(3, 6)), elements=st.integers(0, 20).map(float))


def test_pairs_over_seeds_are_the_published_numbers() -> None:
    test = paired_t(X, Y)
    assert test is not None
    assert test.t == pytest.approx(4.5372311, abs=1e-6)
    assert pairs.effect_size(test) == pytest.approx(0.74 / 0.364692, rel=1e-5)
    ranked = pairs.signed_rank(X, Y)
    assert ranked is not None
    assert (ranked.p, ranked.smallest) == (0.0625, 0.0625)
    assert [pairs.smallest_signed_rank(n) for n in (3, 4, 6, 8, 10)] == [0.25, 0.125, 0.03125, 0.0078125, 0.001953125]
    assert pairs.signed_rank(X, X) is None
    assert pairs.signed_rank([1.0], [2.0]) is None
    with pytest.raises(ValueError, match="same seeds"):
        pairs.signed_rank(X, Y[1:])


def test_so_many_seeds_have_the_power() -> None:
    test = paired_t([0.5, 0.6, 0.7], [0.45, 0.58, 0.71])
    assert test is not None
    needed = pairs.seeds_needed(test)
    assert needed is not None
    effect = pairs.effect_size(test)
    assert effect is not None
    draws = np.random.default_rng(0).normal(effect, 1.0, size=(20_000, needed))
    passed = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert passed == pytest.approx(0.8, abs=0.05)
    assert passed >= 0.79
    fewer = stats.ttest_1samp(draws[:, : needed - 3], 0, axis=1).pvalue
    assert np.mean(fewer < 0.05) < 0.8
    large = Paired(3, 0.0255, 9.64 * math.sqrt(3), 0.0036, 0.0066)  # beyond what the other tail can be computed for
    assert pairs.seeds_needed(large) == 3
    same = paired_t([0.5, 0.6], [0.5, 0.6])
    every = paired_t([0.5, 0.75], [0.25, 0.5])
    none = paired_t([0.5, 0.6, 0.7], [0.5 + 1e-9, 0.7, 0.6])
    assert same is not None
    assert every is not None
    assert none is not None
    assert (pairs.seeds_needed(same), pairs.seeds_needed(every), pairs.seeds_needed(none)) == (None, 2, None)


def test_mcnemar_counts_what_only_one_has_right() -> None:
    right, wrong = [True] * 9 + [False], [False] * 9 + [True]
    assert pairs.mcnemar(right, right) == pairs.McNemar(0, 0, 1.0)
    found = pairs.mcnemar(right, wrong)
    assert (found.only_x, found.only_y) == (9, 1)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    with pytest.raises(ValueError, match="same samples"):
        pairs.mcnemar(right, [True])


def test_the_interval_over_samples_is_that_of_a_plain_bootstrap() -> None:
    generator = np.random.default_rng(3)
    sets = [generator.choice([-1.0, 0.0, 1.0], size=n, p=[0.1, 0.7, 0.2]) for n in (150, 60)]
    low, high = pairs.over_samples(sets)
    drawn = sum(values[generator.integers(0, len(values), (4000, len(values)))].mean(axis=1) for values in sets) / 2
    assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.01)
    assert low < np.mean([values.mean() for values in sets]) < high
    assert pairs.over_samples([[0.5, 0.5]]) == (0.5, 0.5)
    for bad in ([], [[]]):
        with pytest.raises(ValueError, match="needs samples"):
            pairs.over_samples(bad)


def test_ranks_are_the_published_numbers() -> None:
    ranks = ranking.average_ranks(S)
    assert ranks == pytest.approx([3.8333333, 2.8333333, 2.3333333, 1.0], abs=1e-6)
    test = ranking.friedman(S)
    assert (test.chi2, test.p) == pytest.approx((15.0, 0.0018166), abs=1e-6)
    assert (test.f, test.p_f) == pytest.approx((25.0, 4.366e-06), abs=1e-6)
    difference = ranking.critical_difference(4, 6)
    assert difference == pytest.approx(1.9148432, abs=1e-5)
    assert ranking.cliques(ranks.tolist(), difference) == [(3, 2, 1), (2, 1, 0)]
    quantiles = [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164]
    for k, quantile in zip(range(2, 11), quantiles, strict=True):
        assert ranking.critical_difference(k, 6) == pytest.approx(quantile * math.sqrt(k * (k + 1) / 36), abs=2e-3)
    assert ranking.friedman(np.ones((3, 3))) == ranking.Friedman(0.0, 1.0, 0.0, 1.0)
    assert math.isinf(ranking.friedman([[1, 2, 3], [1, 2, 3]]).f)


def test_duels_count_and_are_corrected() -> None:
    found = ranking.duels(S)
    assert (found[0, 3].wins, found[0, 3].ties, found[0, 3].losses) == (0, 0, 6)
    assert found[0, 3].p == 0.03125
    assert found[0, 3].adjusted == pytest.approx(6 * 0.03125)
    even = ranking.duels([[0.5, 0.5], [0.6, 0.6]])[0, 1]
    assert (even.ties, even.p, even.adjusted) == (2, None, None)


def test_aggregates_are_the_published_numbers() -> None:
    assert ranking.iqm(Z) == pytest.approx(0.695, abs=1e-6)
    assert ranking.mean(Z) == pytest.approx(0.674375, abs=1e-6)
    assert ranking.median_of_means(Z) == pytest.approx(0.695, abs=1e-6)
    assert ranking.optimality_gap(Z) == pytest.approx(0.325625, abs=1e-6)
    assert ranking.probability_of_improvement(list(Z.T), list(OTHER.T)) == pytest.approx(0.7265625, abs=1e-6)
    assert ranking.interval(ranking.iqm, Z) == pytest.approx((0.68, 0.71), abs=1e-6)
    assert ranking.performance_profile(Z, [0.0, 0.5, 0.9]) == pytest.approx([1.0, 12 / 16, 2 / 16])


@pytest.mark.parametrize("bad", [[[0.5]], [0.5, 0.6], [[0.5, math.nan]]])
def test_incomplete_tables_are_refused(bad: list[object]) -> None:
    with pytest.raises(ValueError, match="average_ranks"):
        ranking.average_ranks(bad)
    with pytest.raises(ValueError, match="friedman"):
        ranking.friedman(bad)


@given(tables, st.integers(1, 9), st.randoms())
def test_order_and_shift_change_nothing(scores: np.ndarray, shift: int, random: object) -> None:
    ranks = ranking.average_ranks(scores)
    assert ranks.sum() == pytest.approx(scores.shape[1] * (scores.shape[1] + 1) / 2)
    moved = scores[::-1] + shift
    assert ranking.average_ranks(moved) == pytest.approx(ranks)
    one, two = ranking.friedman(scores), ranking.friedman(moved)
    assert (one.chi2, one.p, one.p_f) == pytest.approx((two.chi2, two.p, two.p_f), abs=1e-9)
    assert 0 <= one.p_f <= 1


@given(tables)
def test_the_middle_lies_between_the_ends(values: np.ndarray) -> None:
    assert values.min() - 1e-9 <= ranking.iqm(values) <= values.max() + 1e-9
    low, high = ranking.interval(ranking.mean, values, resamples=20)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    share = ranking.probability_of_improvement(list(values.T), list(values.T))
    assert share == pytest.approx(0.5)
