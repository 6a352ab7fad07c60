from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.metrics.statistics import (
    Summary,
    Verdict,
    beats_all,
    bounds,
    holm,
    paired_t,
    smallest_effect,
    summarize,
    t_quantile,
    wilson,
)

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


def test_intervals_lie_in_what_a_fraction_can_be() -> None:
    assert bounds(0.98, 0.05) == (0.98 - 0.05, 1.0)
    assert bounds(0.01, 0.05) == (0.0, 0.01 + 0.05)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),  # Newcombe (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_within_bounds(pair: tuple[int, int]) -> None:
    share = pair[0] / pair[1]
    low, high = wilson(share, pair[1])
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert high > low


@pytest.mark.parametrize(("share", "n"), [(0.5, 0), (1.1, 10), (-0.1, 10)])
def test_wilson_refuses_what_is_no_share(share: float, n: int) -> None:
    with pytest.raises(ValueError, match="wilson"):
        wilson(share, n)


def test_the_smallest_effect_is_where_p_reaches_the_limit() -> None:
    assert smallest_effect(1) is None
    assert smallest_effect(3) == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    gaps = [-1.0, 0.0, 1.0]  # standard deviation 1
    for factor, significant in ((0.999, False), (1.001, True)):
        found = paired_t([gap + factor * (smallest_effect(3) or 0) for gap in gaps], [0.0] * 3)
        assert found is not None
        assert (found.p < 0.05) is significant


def seeded(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


TOP, SECOND, THIRD = seeded(0.90, 0.91, 0.93), seeded(0.80, 0.82, 0.82), seeded(0.70, 0.70, 0.74)


def test_better_than_all_needs_every_test_and_no_correction() -> None:
    rows = [SECOND, TOP, THIRD]
    found = beats_all(rows)
    test = paired_t(list(TOP.values()), list(SECOND.values()))
    assert found == Verdict(best=1, unbeaten=(), closest=0, test=test)
    near = seeded(0.902, 0.90, 0.93)
    told = beats_all([*rows, near])
    assert told is not None
    assert (told.best, told.unbeaten, told.closest) == (1, (3,), 3)
    alone = beats_all([*rows, {0: 0.1}, near])
    assert alone is not None
    assert alone.unbeaten == (3, 4), "a single seed cannot be tested"
    assert alone.test is None


def test_what_is_worse_throughout_takes_nothing_away_by_varying_more() -> None:
    wild = seeded(0.75, 0.02, 0.80)
    assert (paired_t(list(TOP.values()), list(wild.values())) or paired_t(X, X)).p > 0.05  # type: ignore[union-attr]
    found = beats_all([TOP, SECOND, wild])
    assert found is not None
    assert not found.unbeaten
    higher_once = beats_all([TOP, SECOND, wild | {2: 0.83}])
    assert higher_once is not None
    assert higher_once.unbeaten == (2,)


def test_nothing_to_compare() -> None:
    assert beats_all([]) is None
    assert beats_all([TOP]) is None
    assert beats_all([TOP, {}]) is None


GRID = st.integers(0, 1024).map(lambda step: step / 1024)  # sums and differences of these are exact
TABLES = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(GRID, min_size=n, max_size=n).map(lambda row: seeded(*row)), min_size=2, max_size=6)
)


def close(table: list[dict[int, float]]) -> list[dict[int, float]]:
    """The same with a row that wins, so that every other example is about one that does."""
    return [*table, {seed: 1.5 + seed / 1024 for seed in table[0]}]


@settings(max_examples=40)
@given(TABLES, st.booleans(), st.randoms(use_true_random=False))
def test_other_names_of_seeds_change_no_verdict(table: list[dict[int, float]], won: bool, random: Any) -> None:
    table = close(table) if won else table
    seeds = list(table[0])
    random.shuffle(seeds)
    assert beats_all([{seed: row[seed] for seed in seeds} for row in table]) == beats_all(table)
    renamed = dict(zip(table[0], seeds, strict=True))
    assert beats_all([{renamed[seed]: value for seed, value in row.items()} for row in table]) == beats_all(table)


@settings(max_examples=40)
@given(TABLES, st.booleans(), st.integers(-512, 512))
def test_a_constant_shift_changes_no_verdict(table: list[dict[int, float]], won: bool, steps: int) -> None:
    table = close(table) if won else table
    shifted = [{seed: value + steps / 1024 for seed, value in row.items()} for row in table]
    found, other = beats_all(table), beats_all(shifted)
    assert found is not None
    assert other is not None
    assert (found.best, found.unbeaten, found.test) == (other.best, other.unbeaten, other.test)


@settings(max_examples=40)
@given(TABLES, st.data())
def test_a_weak_row_takes_no_bold_away(table: list[dict[int, float]], data: st.DataObject) -> None:
    table = close(table)
    found = beats_all(table)
    assert found is not None
    if found.unbeaten:
        return
    under = table[data.draw(st.integers(0, len(table) - 2))]
    weak = {seed: value - data.draw(GRID) for seed, value in under.items()}
    told = beats_all([weak, *table])
    assert told is not None
    assert not told.unbeaten
    assert told.best == found.best + 1
