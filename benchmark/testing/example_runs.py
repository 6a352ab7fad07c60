"""A few finished runs, made on the spot, for checks of what is computed, drawn or told of runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from benchmark import families, records
from benchmark.records.predictions import Predictions
from benchmark.records.schema import Record
from benchmark.registry import Entry, Loaded
from benchmark.run import measures
from benchmark.testing import toys
from benchmark.testing.laboratory import MethodSubject

FAMILIES = ("class-il", "domain-il", "uda", "few-shot")
ODD = "a_$^$&<b>%"
"""A name of a method that means something to LaTeX, to formulas of figures and to HTML."""


@dataclass(frozen=True)
class ExampleRun:
    """One finished run.

    Attributes:
        record: Its record.
        predictions: Its predictions.
    """

    record: Record
    predictions: Predictions

    @property
    def evidence(self) -> dict[str, Any]:
        """What metrics may be computed from (`benchmark.specs.NEEDS`)."""
        about = self.record.scenario
        return measures.evidence(
            np.array(self.record.accuracy, dtype=np.float64),
            self.record.counts,
            further=[test["name"] for test in about.tests if test["further"]],
            family=families.of_record(about.family, about.family_facts),
            baseline=self.record.baseline,
            predictions=self.predictions,
        )


def toy_subject() -> MethodSubject:
    """The toy method, for runs that are not about a method."""
    here = Entry(toys.TOY_METHOD.name, toys.__name__, "benchmark.testing")
    return MethodSubject(Loaded(toys.TOY_METHOD, here, "0" * 64), toys.TOY_METHOD.default_recipe)


@cache
def example_runs(family: str) -> tuple[ExampleRun, ...]:
    """Two runs of the toy method, seeds 0 and 1, and the same under another name, on the toy stream of a family."""
    subject = toy_subject()
    done = []
    for seed in range(2):
        # With its own defaults: a row that says nothing but the method's name.
        options = {"config": subject.config_of(subject.recipe), "save_logits": False}
        found = subject.run(subject.scenario(family=family), seed=seed, **options)
        done.append(ExampleRun(found.record, found.predictions))
    return (*done, *(replace(run, record=renamed(run.record, "toy-other")) for run in done))


@cache
def campaign() -> tuple[ExampleRun, ...]:
    """The same under six names of scenarios, for what compares methods over scenarios."""
    runs = example_runs(FAMILIES[0])
    return tuple(
        replace(run, record=renamed(run.record, run.record.method.name, f"toy-{place}"))
        for place in range(6)
        for run in runs
    )


def renamed(record: Record, method: str, scenario: str = "") -> Record:
    """The record of a method, and of a scenario, that is called otherwise."""
    plain = records.plain(record)
    plain["method"] = {**plain["method"], "name": method}
    plain["scenario"] = {**plain["scenario"], "name": scenario or plain["scenario"]["name"]}
    run_id = hashlib.sha256(f"{record.run_id} {method} {scenario}".encode()).hexdigest()[: len(record.run_id)]
    return records.parse({**plain, "run_id": run_id})
