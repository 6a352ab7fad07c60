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
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmark import data
from benchmark.files import replace_file
from benchmark.jobs import Job
from benchmark.run import plan, preparation
from benchmark.run.preparation import Prepared
from benchmark.testing.leaks import Way, measure, predict, train

__all__ = ["METHODS", "main", "measure", "predict", "prepare", "rows", "table", "train"]

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
COLUMNS = ("method", "leaks", "seed", "batch", "order", "final_avg_acc", "changed")


def prepare(label: str, scenario: str, track: str, seed: int) -> Prepared:
    """A run of ``name[@recipe][:option=value,...]``."""
    method, _, options = label.partition(":")
    settings = dict(option.split("=", 1) for option in options.split(",") if option)
    resolved = plan.resolve(Job(scenario=scenario, method=method, track=track, seed=seed, settings=settings))
    places = {"data_root": None, "cache": data.cache_root(), "download": "never"}
    built, _ = preparation.build_scenario(resolved, places)
    return preparation.prepare(resolved, built)


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
