"""Chooses the hyper-parameters of the nano and mini tracks on held-out training images.

The rule, for every method that trains: all points of a small grid are run with ``--validate`` on the
first experiences of one stream of the track (a fifth of their training images, per class, is the
test set; test images are never read), seed 0; the point with the highest final average accuracy
wins, ties go to the first listed. The winners stand in the ``tracks`` of each method's spec and are
used for all scenarios of the track.

    python results/search.py nano
    BENCH_DATA=... python results/search.py mini

The table of all points goes to ``results/search/<track>.csv``; the records beside it are not committed.
"""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STREAMS = {"nano": ("split-glyphs", 3), "mini": ("split-cifar100", 2)}
# Epochs and batch size bound the cost of a run (README); the search is over what is left.
GRIDS: dict[str, dict[str, dict[str, list[Any]]]] = {
    "nano": {
        "l2p": {"epochs": [3], "batch_size": [16], "prompt_length": [2], "top_k": [4], "lr": [0.01, 0.03, 0.1]},
        "finetune": {"epochs": [2], "batch_size": [32], "lr": [0.001, 0.003, 0.01]},
        "linear-probe": {"epochs": [2], "batch_size": [32], "lr": [0.01, 0.03, 0.1]},
        "joint": {"epochs": [4], "batch_size": [32], "lr": [0.003, 0.01]},
        "avalanche-ewc": {"epochs": [2], "batch_size": [32], "lr": [0.003], "penalty": [1.0, 100.0]},
        "avalanche-lwf": {"epochs": [2], "batch_size": [32], "lr": [0.003], "alpha": [1.0, 10.0]},
        "avalanche-replay": {"epochs": [2], "batch_size": [32], "lr": [0.001, 0.003, 0.01]},
        "avalanche-derpp": {"epochs": [2], "batch_size": [32], "lr": [0.001, 0.003, 0.01]},
    },
    "mini": {
        "l2p": {"epochs": [1], "batch_size": [64], "lr": [0.03, 0.1]},
        "finetune": {"epochs": [1], "batch_size": [64], "lr": [0.001, 0.003]},
        "linear-probe": {"epochs": [1], "batch_size": [64], "lr": [0.01, 0.03]},
        "joint": {"epochs": [1], "batch_size": [64], "lr": [0.003, 0.01]},
    },
}


def main(track: str, only: list[str]) -> None:
    """Runs the grid of one track, prints and writes its table."""
    scenario, experiences = STREAMS[track]
    rows = []
    for method, grid in GRIDS[track].items():
        if only and method not in only:
            continue
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            settings = [part for name, value in point.items() for part in ("--set", f"{name}={value}")]
            command = [
                "bench", "run", "--scenario", scenario, "--track", track, "--method", method,
                "--validate", str(experiences), "--out", str(HERE / "search" / track), "--json", "-q", *settings,
            ]  # fmt: skip
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            accuracy = json.loads(done.stdout)[0]["metrics"]["final_avg_acc"]
            rows.append({"method": method, **{"point": json.dumps(point)}, "final_avg_acc": accuracy})
            print(f"{method:<16} {json.dumps(point):<60} {100 * accuracy:6.2f} %", flush=True)
    target = HERE / "search" / f"{track}.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", "point", "final_avg_acc"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
