from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import records
from benchmark.leaderboard import leaderboard
from benchmark.leaderboard.sampling import Sampling, interval, weights_of
from benchmark.metrics.statistics import bootstrap_mean, wilson
from benchmark.records.predictions import Predictions, concat, table

TEMPLATE = json.loads((Path(__file__).parents[1] / "golden" / "records" / "v4.json").read_text())
SETS, EACH = 3, 40


def matrix(right: np.ndarray[Any, Any]) -> list[list[float | None]]:
    """R of ``(T, E, n)`` booleans, what is to come unseen."""
    means = right.mean(axis=2)
    return [[float(means[t, e]) if e <= t else None for e in range(SETS)] for t in range(SETS)]


def made(seed: int, right: np.ndarray[Any, Any]) -> records.Record:
    record = copy.deepcopy(TEMPLATE)
    accuracy = matrix(right)
    last = [value for value in accuracy[-1] if value is not None]
    diagonal = [accuracy[time][time] or 0.0 for time in range(SETS)]
    seen = [float(np.mean([value for value in row if value is not None])) for row in accuracy]
    record["metrics"] = {
        "final_avg_acc": float(np.mean(last)),
        "learning_acc": float(np.mean(diagonal)),
        "avg_incremental_acc": float(np.mean(seen)),
        "forgetting": 0.1,
    }
    record |= {"accuracy": accuracy, "counts": [EACH] * SETS, "run_id": f"{seed:016x}"}
    record["seeds"] = dict.fromkeys(record["seeds"], seed)
    return records.parse(record)


def predicted(right: np.ndarray[Any, Any]) -> Predictions:
    parts = []
    for time in range(SETS):
        for place in range(time + 1):
            hits = right[time, place]
            columns = {"sample_id": place * EACH + np.arange(EACH), "confidence": np.ones(EACH), "label": np.ones(EACH)}
            columns |= {"test_set": np.full(EACH, place), "prediction": hits, "top5": np.ones((EACH, 1))}
            parts.append(table(time, **columns))
    return concat(parts)


def example(seeds: int = 2) -> tuple[list[records.Record], dict[str, Predictions]]:
    generator = np.random.default_rng(1)
    skill = generator.random((SETS, EACH))  # samples that are hard are hard for every seed
    runs, kept = [], {}
    for seed in range(seeds):
        right = generator.random((SETS, SETS, EACH)) < skill
        runs.append(made(seed, right))
        kept[runs[-1].run_id] = predicted(right)
    return runs, kept


@pytest.mark.parametrize("metric", ["final_avg_acc", "learning_acc", "avg_incremental_acc"])
def test_weights_are_those_of_the_metric(metric: str) -> None:
    (run, *_), _ = example()
    weights = weights_of(run, metric)
    assert weights is not None
    cells = np.array([[0.0 if value is None else value for value in row] for row in run.accuracy])
    assert (weights * cells).sum() == pytest.approx(run.number(metric))
    assert weights.sum() == pytest.approx(1)
    assert weights_of(run, "forgetting") is None


def test_wilson_needs_the_record_alone() -> None:
    (run, other), _ = example()
    how = Sampling("wilson")
    one = interval([[(run, 1.0)]], "final_avg_acc", how)
    assert one == pytest.approx(wilson(run.number("final_avg_acc") or 0, SETS * EACH), abs=1e-12)
    both = interval([[(run, 1.0)], [(other, 1.0)]], "final_avg_acc", how)
    mean = ((run.number("final_avg_acc") or 0) + (other.number("final_avg_acc") or 0)) / 2
    assert both == pytest.approx(wilson(mean, SETS * EACH), abs=1e-12)  # the same samples twice are not twice as many


def test_the_bootstrap_draws_samples_and_not_predictions() -> None:
    runs, kept = example()
    how = Sampling("bootstrap", lambda run: kept.get(run.run_id))
    low, high = interval([[(run, 1.0)] for run in runs], "final_avg_acc", how) or (0.0, 0.0)
    # By hand: every sample with its mean over seeds, drawn within its test set.
    last = {run_id: found.after(SETS - 1) for run_id, found in kept.items()}
    shares = np.mean([found.prediction for found in last.values()], axis=0).reshape(SETS, EACH)
    generator = np.random.default_rng(7)
    drawn = generator.integers(0, EACH, (4000, SETS, EACH))
    means = np.take_along_axis(shares[None], drawn, axis=2).mean(axis=(1, 2))
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.006)
    wide = interval([[(run, 1.0)] for run in runs], "final_avg_acc", Sampling("wilson"))
    assert wide is not None
    assert high - low < wide[1] - wide[0]
    over_time = interval([[(run, 1.0)] for run in runs], "avg_incremental_acc", how)
    assert over_time is not None
    assert over_time[0] < np.mean([run.number("avg_incremental_acc") for run in runs]) < over_time[1]
    assert interval([[(runs[0], 1.0)]], "final_avg_acc", Sampling("bootstrap")) is None


def test_the_order_of_runs_and_samples_changes_no_interval() -> None:
    runs, kept = example(3)
    how = Sampling("bootstrap", lambda run: kept.get(run.run_id))
    turned = {run_id: found._rows(np.arange(len(found))[::-1] >= 0) for run_id, found in kept.items()}
    back = Sampling("bootstrap", lambda run: turned.get(run.run_id))
    found = interval([[(run, 1.0)] for run in runs], "final_avg_acc", how)
    assert found == interval([[(run, 1.0)] for run in reversed(runs)], "final_avg_acc", back)


def test_a_bootstrap_of_strata() -> None:
    assert bootstrap_mean([([0.0] * 5, 0.5), ([1.0] * 9, 0.5)]) == (0.5, 0.5)
    values = [0.0, 1.0] * 50
    low, high = bootstrap_mean([(values, 1.0)])
    assert (low, high) == pytest.approx((0.40, 0.60), abs=0.02)
    assert bootstrap_mean([(values[::-1], 1.0)]) == (low, high)
    with pytest.raises(ValueError, match="without samples"):
        bootstrap_mean([([], 1.0)])


def test_accuracies_carry_their_intervals_in_tables() -> None:
    runs, kept = example()
    (table_,) = leaderboard(runs, sampling=Sampling("wilson"))
    cells = dict(zip((column.key for column in table_.columns), table_.rows[0].cells, strict=True))
    low, high = cells["final_avg_acc"].interval or (0, 0)
    assert cells["final_avg_acc"].text.endswith(f" [{100 * low:.2f}, {100 * high:.2f}]")
    assert " ± " in cells["final_avg_acc"].text
    assert cells["forgetting"].interval is None
    assert cells["ci95"].interval is None
    assert "its 95 % interval over test samples (Wilson)" in table_.caption
    (first, _) = kept
    (table_,) = leaderboard(
        runs, sampling=Sampling("bootstrap", lambda run: kept[first] if run.run_id == first else None)
    )
    assert ("", "No interval over test samples: of 1 of 2 runs no predictions are kept.") in table_.footnotes
    (plain,) = leaderboard(runs)
    assert not any(cell.interval for row in plain.rows for cell in row.cells)
