"""How much a trained method gains from the other samples of a test batch.

A method is trained once; its final state is evaluated on all test samples one at a time or many, shuffled or sorted by
class. A test batch that is sorted by class comes from one experience, as in most published code: a vote over it tells
the method the task.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pluggy

from benchmark import hookspecs
from benchmark.api import Method, Samples
from benchmark.errors import PluginError
from benchmark.events import ExperienceStarted
from benchmark.hookspecs import hookimpl
from benchmark.records.predictions import Predictions
from benchmark.run import engine, evaluation
from benchmark.run.preparation import Prepared

BATCHES = (1, 128)
ORDERS = ("shuffled", "sorted")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One evaluation of a trained method.

    Attributes:
        batch: Test samples per forward pass.
        order: ``shuffled`` or ``sorted`` by class.
        accuracy: Mean over test sets, in [0, 1].
        changed: Share of predictions that differ from those at batch 1 in the same order.
    """

    batch: int
    order: str
    accuracy: float
    changed: float


class Keeper:
    """A life-cycle plugin that holds on to the method."""

    def __init__(self) -> None:
        self.method: Method | None = None

    @hookimpl
    def bench_experience_started(self, event: ExperienceStarted) -> None:
        """Remembers the method."""
        self.method = event.method


def train(prepared: Prepared) -> Method:
    """Runs the whole stream and returns the method in its final state; no record is kept.

    Raises:
        PluginError: The run ended without training.
    """
    keeper, hooks = Keeper(), pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    hooks.register(keeper)
    with tempfile.TemporaryDirectory() as folder:
        engine.execute(prepared, Path(folder), hooks=hooks, quiet=True)
    if keeper.method is None:
        raise PluginError(f"{prepared.label}: the run ended without training")
    return keeper.method


def measure(
    prepared: Prepared, method: Method, batches: Sequence[int] = BATCHES, orders: Sequence[str] = ORDERS
) -> list[Way]:
    """Evaluates a trained method in every way, on all test sets."""
    ways = []
    for order in orders:
        alone: npt.NDArray[np.integer[Any]] | None = None
        for batch in batches:
            found = predict(prepared, method, batch, order)
            right = found.prediction == found.label
            accuracy = np.mean([right[found.test_set == place].mean() for place in np.unique(found.test_set)])
            alone = found.prediction if alone is None else alone
            changed = (found.prediction != alone).mean()
            ways.append(Way(batch=batch, order=order, accuracy=float(accuracy), changed=float(changed)))
    return ways


def predict(prepared: Prepared, method: Method, batch: int, order: str) -> Predictions:
    """Predictions on all test sets; ``sorted`` takes one set after the other, each sorted by class."""
    tests = list(enumerate(prepared.stream.tests))
    if order == "sorted":
        tests = [(place, by_class(test)) for place, test in tests]
    rules = dataclasses.replace(
        prepared.rules,
        name=prepared.plan.method_label,
        eval_seed=0,
        eval_batch_size=batch,
        eval_order="natural" if order == "sorted" else "shuffled",
        keep_logits=False,
    )
    scenario = prepared.stream.scenario
    return evaluation.evaluate(
        method, tests, rules, experience=len(scenario.experiences) - 1, seen=scenario.num_classes
    )


def by_class(test: Samples) -> Samples:
    """The same samples sorted by class."""
    return test.subset(test.labels.argsort(stable=True))
