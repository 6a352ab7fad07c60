"""Measures how much a method whose predictions depend on the test batch gains from it.

    python results/leaks.py

Every method is trained once on ``split-glyphs`` (nano track, seed 0); its final state is then evaluated on all
test images in four ways: one image at a time or 128, shuffled or sorted by class. A test batch that is sorted
by class comes from one experience, as in most published code: a vote over it tells the method the task.

``leak`` is what that brings: accuracy at 128 sorted minus accuracy at 1, in points. ``changed`` is the share of
predictions that differ. Both are 0 for a method that predicts every image for itself (the negative controls).
Other methods, as ``name@recipe`` and ``:option=value``, may be given::

    python results/leaks.py l2p:selection_eval=batchwise l2p@mammoth

The ways go to ``results/leaks/<scenario>-<track>.csv``, one row each (rows of methods that were not asked for
stay); the table of all of them is printed as Markdown.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pluggy
import torch

from benchmark import data, hookspecs
from benchmark.api import ImageSet, Method
from benchmark.events import ExperienceStarted
from benchmark.files import replace_file
from benchmark.hookspecs import hookimpl
from benchmark.jobs import Job
from benchmark.records.predictions import Predictions
from benchmark.run import engine, evaluation, plan, preparation
from benchmark.run.preparation import Prepared

HERE = Path(__file__).parent
METHODS = (
    "l2p",
    "l2p:selection_eval=batchwise",
    "l2p@l2p-pytorch",
    "l2p@pilot",
    "dualprompt",
    "dualprompt@batchwise",
    "dualprompt@port-bug",
    "dualprompt@dualprompt-pytorch",
)
BATCHES = (1, 128)
ORDERS = ("shuffled", "sorted")
COLUMNS = ("method", "leaks", "seed", "batch", "order", "final_avg_acc", "changed")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One evaluation of a trained method.

    Attributes:
        batch: Test images per forward pass.
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


def prepare(label: str, scenario: str, track: str, seed: int) -> Prepared:
    """A run of ``name[@recipe][:option=value,...]``."""
    method, _, options = label.partition(":")
    settings = dict(option.split("=", 1) for option in options.split(",") if option)
    resolved = plan.resolve(Job(scenario=scenario, method=method, track=track, seed=seed, settings=settings))
    places = {"data_root": None, "cache": data.cache_root(), "download": "never"}
    built, _ = preparation.build_scenario(resolved, places)
    return preparation.prepare(resolved, built)


def train(prepared: Prepared) -> Method:
    """Runs the whole stream and returns the method in its final state; no record is kept."""
    keeper, hooks = Keeper(), pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    hooks.register(keeper)
    with tempfile.TemporaryDirectory() as folder:
        engine.execute(prepared, Path(folder), hooks=hooks, quiet=True)
    if keeper.method is None:
        raise SystemExit(f"{prepared.label}: the run ended without training")
    return keeper.method


def measure(prepared: Prepared, method: Method, batches: Sequence[int] = BATCHES) -> list[Way]:
    """Evaluates a trained method in every way, on all test sets."""
    ways = []
    for order in ORDERS:
        alone: npt.NDArray[np.int64] | None = None
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


def by_class(test: ImageSet) -> ImageSet:
    """The same images sorted by class."""
    return test.subset(test.labels.argsort(stable=True))


def rows(label: str, prepared: Prepared, ways: Sequence[Way]) -> list[dict[str, str]]:
    """Rows of the CSV file, accuracy at full precision."""
    leaks = "yes" if "test_batch" in prepared.context.uses else "no"
    return [
        {
            "method": label,
            "leaks": leaks,
            "seed": str(prepared.plan.seeds["seed"]),
            "batch": str(way.batch),
            "order": way.order,
            "final_avg_acc": str(way.accuracy),
            "changed": str(way.changed),
        }
        for way in ways
    ]


def table(found: Sequence[dict[str, str]]) -> str:
    """The rows as Markdown, one line per method, in percent and points."""
    large = max(int(row["batch"]) for row in found)
    lines = [
        f"| method | declares `test_batch` | batch 1 | {large}, shuffled | {large}, sorted | leak "
        "| changed, shuffled | changed, sorted |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method in dict.fromkeys(row["method"] for row in found):
        ways = {(int(row["batch"]), row["order"]): row for row in found if row["method"] == method}
        alone, mixed, ordered = ways[1, "sorted"], ways[large, "shuffled"], ways[large, "sorted"]
        percent = [100 * float(row["final_avg_acc"]) for row in (alone, mixed, ordered)]
        changed = [f"{100 * float(row['changed']):.1f} %" for row in (mixed, ordered)]
        numbers = [*(f"{value:.2f}" for value in percent), f"{percent[2] - percent[0]:+.2f}", *changed]
        lines.append(f"| {method} | {alone['leaks']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main(methods: Sequence[str], scenario: str, track: str, seed: int) -> None:
    """Trains, measures, writes the CSV file after every method, and prints the table."""
    target = HERE / "leaks" / f"{scenario.replace('/', '-')}-{track}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    everything: list[dict[str, str]] = []
    if target.exists():
        with target.open(newline="", encoding="utf-8") as file:
            everything = list(csv.DictReader(file))
    for label in methods:
        prepared = prepare(label, scenario, track, seed)
        found = rows(label, prepared, measure(prepared, train(prepared)))
        everything = [row for row in everything if row["method"] != label] + found
        order = list(dict.fromkeys([*METHODS, *(row["method"] for row in everything)]))
        everything.sort(key=lambda row: order.index(row["method"]))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(everything)
        replace_file(target, text.getvalue().encode())
        print(f"{label}: done", file=sys.stderr, flush=True)
    print(table(everything))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=METHODS, help="name[@recipe][:option=value,...]")
    parser.add_argument("--scenario", default="split-glyphs")
    parser.add_argument("--track", default="nano")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(arguments.methods, arguments.scenario, arguments.track, arguments.seed)
