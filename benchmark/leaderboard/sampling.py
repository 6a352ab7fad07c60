"""Intervals over test samples: how far an accuracy might be from that on all samples there could be.

Seeds say nothing of it: they are tested on the same samples. Every accuracy that is a weighted mean of cells of the
matrix has one, by either of two ways:

``wilson``
    From the record alone: Wilson's interval of a share of as many independent samples as have the variance of that
    mean. The samples are the same for all seeds and times, so more of those do not narrow it; if anything it is too
    wide.
``bootstrap``
    From the files of predictions: samples are drawn with replacement within each test set, each with what all seeds and
    times said of it; percentiles of 2,000 resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmark import families
from benchmark.leaderboard.rows import Entry
from benchmark.metrics.statistics import RESAMPLES, bootstrap_mean, wilson
from benchmark.records.predictions import Predictions
from benchmark.records.schema import Record

Weights = npt.NDArray[np.float64]
Way = Literal["wilson", "bootstrap"]
Read = Callable[[Record], Predictions | None]
Interval = tuple[float, float]
Part = tuple[Record, Weights, float]
OTHER = "other "


@dataclass(frozen=True, slots=True)
class Sampling:
    """How intervals over test samples are made.

    Attributes:
        way: ``wilson`` or ``bootstrap``.
        read: The predictions of a run, or None where they are not at hand; of ``bootstrap``.
    """

    way: Way
    read: Read = lambda run: None

    @property
    def text(self) -> str:
        """For captions."""
        how = "Wilson" if self.way == "wilson" else f"percentiles of {RESAMPLES:,} resamples within each test set"
        return f"[ ] behind an accuracy: its 95 % interval over test samples ({how}), at these seeds."

    def lacking(self, entries: Sequence[Entry]) -> str:
        """How many runs have no predictions at hand; empty where none is needed."""
        runs = [run for entry in entries for run in entry.completed]
        number = sum(self.read(run) is None for run in runs) if self.way == "bootstrap" else 0
        return (
            f"No interval over test samples: of {number} of {len(runs)} runs no predictions are kept." if number else ""
        )


def weights_of(run: Record, metric: str) -> Weights | None:
    """The weights (T, E) of the cells of the matrix whose sum is a metric; None where it is no such sum.

    Args:
        run: A finished run.
        metric: Name of a metric, or ``other NAME`` of a single further test set.
    """
    family = families.of_record(run.scenario.family, run.scenario.family_facts)
    tests, times = run.scenario.tests, len(run.accuracy)
    own = [place for place, test in enumerate(tests) if not test.further]
    further = {test.name: place for place, test in enumerate(tests) if test.further}
    counts = np.array(run.counts, dtype=np.float64)
    weights = np.zeros((times, len(tests)))
    if family.generates or not times or not own:
        return None
    if metric in ("final_avg_acc", family.own):
        weights[-1, own] = 1 / len(own)
    elif metric == "final_acc":
        weights[-1, own] = counts[own] / counts[own].sum()
    elif metric == "learning_acc" and times == len(own):
        weights[range(times), own] = 1 / times
    elif metric == "avg_incremental_acc" and times == len(own):
        for time in range(times):
            seen = own[: time + 1]
            weights[time, seen] = counts[seen] / counts[seen].sum() / times
    elif metric in family.further and family.further[metric] in further:
        weights[-1, further[family.further[metric]]] = 1.0
    elif family.further_mean and metric == family.further_mean and further:
        weights[-1, list(further.values())] = 1 / len(further)
    elif metric.removeprefix(OTHER) in further and metric.startswith(OTHER):
        weights[-1, further[metric.removeprefix(OTHER)]] = 1.0
    else:
        return None
    return weights


def interval(seeds: Sequence[Sequence[tuple[Record, float]]], metric: str, sampling: Sampling) -> Interval | None:
    """The interval of the mean over seeds of a metric, or of its weighted mean over the variants of a scenario.

    Args:
        seeds: For every seed its runs and their weights: one run, or one for each variant.
        metric: See `weights_of`.
        sampling: How.

    Returns:
        Both ends, fractions; None where the metric is no mean of accuracies, is not defined, or lacks predictions.
    """
    parts = []
    for run, share in (pair for pairs in seeds for pair in pairs):
        weights = weights_of(run, metric)
        if weights is None:
            return None
        parts.append((run, weights, share / len(seeds)))
    if not parts:
        return None
    return _wilson(parts) if sampling.way == "wilson" else _bootstrap(parts, sampling.read)


def _wilson(parts: Sequence[Part]) -> Interval | None:
    """Of n_eff samples with 1 / n_eff = sum over test sets of weight^2 / n, the variance of a weighted mean."""
    mean = 0.0
    columns: dict[tuple[str, int], list[float]] = {}
    for run, weights, share in parts:
        cells = [[np.nan if cell is None else cell for cell in row] for row in run.accuracy]
        accuracy = np.array(cells, dtype=np.float64)
        used = weights > 0
        if np.isnan(accuracy[used]).any():
            return None
        mean += share * float((weights[used] * accuracy[used]).sum())
        for place in np.flatnonzero(used.any(axis=0)):
            entry = columns.setdefault((run.scenario.name, int(place)), [0.0, float(run.counts[place])])
            entry[0] += share * float(weights[:, place].sum())
            entry[1] = min(entry[1], float(run.counts[place]))
    spread = sum(weight**2 / n for weight, n in columns.values() if n)
    if any(not n for _, n in columns.values()) or not spread:
        return None
    return wilson(min(1.0, max(0.0, mean)), max(1, round(1 / spread)))


def _bootstrap(parts: Sequence[Part], read: Read) -> Interval | None:
    """Every sample with the sum of its weights and that of what was right, in the test set of the first seed."""
    pools: dict[str, list[tuple[npt.NDArray[np.int64], ...]]] = {}
    values: dict[str, list[tuple[Weights, Weights]]] = {}
    for run, weights, share in parts:
        found = read(run)
        if found is None or not len(found):
            return None
        used = weights[found.experience, found.test_set] > 0
        each = share * weights[found.experience, found.test_set][used] / np.array(run.counts)[found.test_set][used]
        right = (found.label == found.prediction)[used]
        pools.setdefault(run.scenario.name, []).append((found.sample_id[used], found.test_set[used].astype(np.int64)))
        values.setdefault(run.scenario.name, []).append((each, each * right))
    strata = []
    for name, pool in pools.items():
        ids, first, place = np.unique(np.concatenate([ids for ids, _ in pool]), return_index=True, return_inverse=True)
        sets = np.concatenate([sets for _, sets in pool])[first]
        whole = np.bincount(place, np.concatenate([each for each, _ in values[name]]), len(ids))
        right = np.bincount(place, np.concatenate([hits for _, hits in values[name]]), len(ids))
        shares = np.round(right / whole, 12)
        strata += [(shares[sets == one].tolist(), float(whole[sets == one].sum())) for one in np.unique(sets)]
    return bootstrap_mean(strata)
