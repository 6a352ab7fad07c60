"""Checks that every metric must pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark import registry
from benchmark.run import measures
from benchmark.specs import MetricSpec
from benchmark.testing.example_runs import FAMILIES, example_runs
from benchmark.testing.observation import CheckFailed, CheckSkipped


@dataclass(frozen=True, slots=True)
class MetricSubject:
    """A metric under test."""

    spec: MetricSpec

    def value(self, evidence: dict[str, Any]) -> float | None:
        """As runs compute it."""
        return measures.measure([self.spec], evidence, {})[0][self.spec.name]

    def cases(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Runs of several families, and what is rare: one experience, nothing right, everything right."""
        for family in FAMILIES:
            yield f"a run of {family}", example_runs(family)[0].evidence
        run = example_runs(FAMILIES[0])[0].evidence
        whole = run["accuracy"]
        yield "one experience", {**run, "accuracy": whole[:1, :1], "counts": run["counts"][:1]}
        for value, words in ((0.0, "nothing right"), (1.0, "everything right")):
            yield words, {**run, "accuracy": np.where(np.isnan(whole), np.nan, value)}
        future = np.triu(np.ones(whole.shape, dtype=bool), k=1)
        yield "future test sets not evaluated", {**run, "accuracy": np.where(future, np.nan, whole)}


def metric_subject(metric: str | MetricSpec) -> MetricSubject:
    """The subject for a registered metric, or for a spec.

    Raises:
        UsageError: No such metric.
        PluginError: Its plugin is broken.
    """
    return MetricSubject(metric if isinstance(metric, MetricSpec) else registry.look("metrics", metric))  # type: ignore[arg-type]


def number(subject: MetricSubject) -> None:
    """It gives a number or None for runs of every kind, and a number for one of them at least."""
    found = [value for _, evidence in subject.cases() if (value := subject.value(evidence)) is not None]
    if not found:
        raise CheckFailed("it is None for every run", hint="see `benchmark.specs.NEEDS` for what there is")


def unit(subject: MetricSubject) -> None:
    """A fraction is a fraction, and its heading says that it is shown in percent."""
    if not subject.spec.percent:
        raise CheckSkipped("it is no fraction")
    if "%" not in subject.spec.heading:
        raise CheckFailed(
            f"the heading {subject.spec.heading!r} does not say that it is shown in percent",
            hint="e.g. `Median acc. (%)`; or `percent=False`",
        )
    for case, evidence in subject.cases():
        value = subject.value(evidence)
        if value is not None and not -1 <= value <= 1:
            raise CheckFailed(f"{case}: {value:g} is no fraction", hint="divide by 100, or say `percent=False`")


def pure(subject: MetricSubject) -> None:
    """The same run gives the same number, and what it is given stays as it is."""
    for case, evidence in subject.cases():
        needed = {name: evidence[name] for name in subject.spec.needs}
        before = copy.deepcopy(needed)
        one, two = subject.value(evidence), subject.value(evidence)
        if one != two:
            raise CheckFailed(f"{case}: {one} and then {two}", hint="draw nothing, keep nothing")
        for name, value in needed.items():
            if not _equal(value, before[name]):
                raise CheckFailed(f"{case}: it changes `{name}`", hint="copy what you change")


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray):
        exact = one.dtype.kind != "f"
        return bool(np.array_equal(one, two) if exact else np.array_equal(one, two, equal_nan=True))
    if hasattr(one, "__dict__") or hasattr(one, "__slots__"):
        names = getattr(one, "__dataclass_fields__", {})
        return all(_equal(getattr(one, name), getattr(two, name)) for name in names)
    return bool(one == two)


METRIC_CHECKS: dict[str, Callable[[MetricSubject], None]] = {"number": number, "unit": unit, "pure": pure}
