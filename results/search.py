"""Chooses the hyper-parameters of the nano and mini tracks on held-out training images.

The rule, for every method that trains: all points of a small grid are run with ``--validate`` on the
first experiences of one stream of the track (a fifth of their training images, per class, is the
test set; test images are never read), seed 0; the point with the highest final average accuracy
wins, ties go to the first listed. The winners stand in the ``tracks`` of each method's spec and are
used for all scenarios of the track. Methods that adapt to an unlabelled target are searched on a
stream of their own, where held-out *source* images decide: target labels are never read.

    python results/search.py nano
    BENCH_DATA=... python results/search.py mini
    BENCH_DATA=... python results/search.py mini --jobs 2 l2p dualprompt

The table of all points goes to ``results/search/<track>.csv``, where methods that were not asked for keep their
rows; the records beside it are not committed. A point that was run before is not run again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GRIDS: dict[str, Any] = json.loads((HERE / "search" / "grids.json").read_text(encoding="utf-8"))
"""Per track a list of ``{"stream": ..., "grids": {method: {option: values}}}``."""


def points(grid: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations of a grid, the first listed first."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def run(track: str, stream: Mapping[str, Any], method: str, point: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one point on one thread and returns its row."""
    settings = [
        part for name, value in {**stream["settings"], **point}.items() for part in ("--set", f"{name}={value}")
    ]
    command = [
        "bench", "run", "--scenario", stream["scenario"], "--track", track, "--method", method,
        "--validate", str(stream["experiences"]), "--out", str(HERE / "search" / track), "--json", "-q", *settings,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    accuracy = json.loads(done.stdout)[0]["metrics"]["final_avg_acc"]
    print(f"{method:<20} {json.dumps(point):<90} {100 * accuracy:6.2f} %", flush=True)
    return {"method": method, "point": json.dumps(point), "final_avg_acc": accuracy}


def main(track: str, only: list[str], jobs: int) -> None:
    """Runs the grids of one track, prints the points and writes the table."""
    grids = {method: (part["stream"], grid) for part in GRIDS[track] for method, grid in part["grids"].items()}
    wanted = [(grids[method][0], method, point) for method in only or grids for point in points(grids[method][1])]
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda point: run(track, *point), wanted))
    searched = list(dict.fromkeys(method for _, method, _ in wanted))
    target = HERE / "search" / f"{track}.csv"
    with target.open(newline="", encoding="utf-8") as file:
        kept = [row for row in csv.DictReader(file) if row["method"] in grids and row["method"] not in searched]
    order = list(grids)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", "point", "final_avg_acc"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *found], key=lambda row: order.index(row["method"])))
    for method in searched:
        best = max((row for row in found if row["method"] == method), key=lambda row: row["final_avg_acc"])
        print(f"best {method}: {best['point']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("track", choices=GRIDS)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--jobs", type=int, default=1, help="points at a time, one thread each")
    arguments = parser.parse_intermixed_args()
    main(arguments.track, arguments.methods, arguments.jobs)
