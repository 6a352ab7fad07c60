"""Chooses the hyper-parameters of the nano and mini tracks on held-out training images: a use of ``bench tune``.

The rule, for every method that trains: all points of a small grid are run on the first experiences of one stream of
the track (a fifth of their training images, per class, is the test set; test images are never read), seed 0; then
every list of numbers grows until the best point has worse neighbours on both sides. The point with the highest final
average accuracy wins, ties go to the first. The winners stand in the ``tracks`` of each method's spec and are used for
all scenarios of the track. Methods that adapt to an unlabelled target are searched on a stream of their own, where
held-out *source* images decide: target labels are never read.

    python results/search.py nano
    BENCH_DATA=... python results/search.py mini
    BENCH_DATA=... python results/search.py mini --jobs 2 l2p dualprompt

The table of all points is ``results/search/<track>.csv``, the winners are ``results/search/presets/<track>/*.toml``;
the records beside them are not committed. A point of the table is not run again, unless the method's code, the track's
model or the input preset changed: then all points are, and take the place of those that were there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmark.cli import main as bench
from benchmark.config import as_text
from benchmark.files import replace_file
from benchmark.tuning import trials

SEARCH = Path(__file__).parent / "search"
GRIDS: dict[str, Any] = json.loads((SEARCH / "grids.json").read_text(encoding="utf-8"))
"""Per track a list of ``{"stream": ..., "grids": {method: {option: values}}}``."""
MOST = 12  # points of a search beyond its grid


def streams(track: str) -> dict[str, tuple[dict[str, Any], dict[str, list[Any]]]]:
    """The stream and the grid of every method of a track."""
    return {method: (part["stream"], grid) for part in GRIDS[track] for method, grid in part["grids"].items()}


def command(track: str, method: str, *, jobs: int = 1, most: int = MOST) -> list[str]:
    """The words behind ``bench`` that search a method."""
    stream, grid = streams(track)[method]
    points = 1
    for values in grid.values():
        points *= len(values)
    lists = [f"{key}={';'.join(map(as_text, values))}" for key, values in grid.items()]
    return [
        *("tune", method, "--scenario", stream["scenario"], "--track", track),
        *("--experiences", str(stream["experiences"]), "--strategy", "grid", "--budget", str(points + most)),
        *(word for key, value in stream["settings"].items() for word in ("--set", f"{key}={value}")),
        *(word for text in lists for word in ("--grid", text)),
        *("--log", str(SEARCH / f"{track}.csv"), "--save", str(SEARCH / "presets" / track / f"{method}.toml")),
        *("--out", str(SEARCH / track), "--jobs", str(jobs)),
    ]


def replace_old(path: Path, method: str) -> None:
    """Leaves the rows of a method that were computed with its last code, where its first ones stood."""
    rows = trials.read(path)
    own = [(target, trial) for target, trial in rows if target.method == method]
    last = [(target, trial) for target, trial in own if trial.code == own[-1][1].code]
    place = rows.index(own[0])
    others = [row for row in rows if row[0].method != method]
    replace_file(path, trials.render([*others[:place], *last, *others[place:]]).encode())


def main() -> int:
    """Searches what was asked for; the exit code is the largest of the searches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("track", choices=GRIDS)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--most", type=int, default=MOST, help="points beyond the grid")
    args = parser.parse_intermixed_args()
    codes = []
    for method in args.methods or streams(args.track):
        codes.append(bench(command(args.track, method, jobs=args.jobs, most=args.most)))
        if codes[-1] == 0:
            replace_old(SEARCH / f"{args.track}.csv", method)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
