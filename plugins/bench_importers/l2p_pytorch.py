"""Console output of l2p-pytorch and of what is built on it (dualprompt-pytorch, ...), redirected to a file.

Source: JH-LEE-KR/l2p-pytorch at f7bc994365f5 (``engine.py``, ``main.py``). A run begins with ``Namespace(...)``. After
each experience every test set seen so far is evaluated, ``* Acc@1 96.500 ...`` below ``Test: [Task k] Total time``, and
a line of averages follows: the accuracies before it are a row of R. Lines of progress hold ``Acc@1:``, too; they are no
results. The files ``log_<time>_stats.txt`` hold the last test set alone and are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile, namespace

_TEST = re.compile(r"Test: \[Task (\d+)\] Total time\b.*")
_ACCURACY = re.compile(r"\* Acc@1 (\S+) Acc@5 (\S+) loss (\S+)")
_AVERAGE = re.compile(r"\[Average accuracy till task(\d+)\]\t(.+)")
DECIMALS = 3  # of single test sets; means have four
MEANS = 4
FACTS = ("seed", "device", "output_dir", "data_path", "gpu", "rank", "dist_url")
SCORES: Mapping[str, tuple[str, str]] = {
    "Acc@1": ("final_avg_acc", "task mean over the test sets seen so far, last row"),
    "Acc@5": ("", "top-5, task mean over the test sets seen so far, last row"),
    "Forgetting": ("", "mean over all but the last test set of the best accuracy seen, minus the last one"),
    "Backward": ("", "mean over j < T-1 of R[T-1, j] - R[j, j]"),
}


@dataclass
class _Run:
    """Lines of one run."""

    arguments: dict[str, Any]
    first: int
    last: int
    rows: list[list[tuple[int, float]]] = field(default_factory=list)
    means: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads every run of a file."""
    runs: list[_Run] = []
    task, pending = 0, list[tuple[int, float]]()
    for number, line in enumerate(file.lines, 1):
        text = line.strip()
        if text.startswith("Namespace("):
            runs.append(_Run(_arguments(file, number, text), number, number))
            task, pending = 0, []
        elif not runs:
            if number == 1 and text.startswith("{") and '"test_Acc@1"' in text:
                file.other("stats files hold the last test set alone", hint="import the console output of the run")
            continue
        elif match := _TEST.fullmatch(text):
            task = int(match[1])
        elif match := _ACCURACY.fullmatch(text):
            pending.append((task, file.share(match[1], number)))
        elif match := _AVERAGE.fullmatch(text):
            runs[-1].means.append(_means(file, number, match[2]))
            runs[-1].rows.append(pending)
            if int(match[1]) != len(runs[-1].rows):
                runs[-1].notes.append(f"line {number}: averages of task {match[1]} are not those of the next one")
            pending = []
        if text:
            runs[-1].last = number
    if not runs:
        file.other("no line `Namespace(...)`, with which the console output of a run begins")
    for run in runs:
        yield _run(run)


def _arguments(file: SourceFile, line: int, text: str) -> dict[str, Any]:
    try:
        found = namespace(text)
    except ValueError as error:
        file.damaged(line, f"the arguments of the run cannot be read: {error}")
    if "num_tasks" not in found or "seed" not in found:
        file.other(f"line {line} has no num_tasks and seed")
    return found


def _means(file: SourceFile, line: int, text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split("\t"):
        name, _, value = part.partition(": ")
        if name in SCORES:
            try:
                found[name] = float(value) / 100
            except ValueError:
                file.damaged(line, f"{part!r:.60} is no mean")
    if "Acc@1" not in found:
        file.damaged(line, "a line of averages has no Acc@1: it is cut off")
    return found


def _run(run: _Run) -> ForeignRun:
    arguments, notes = run.arguments, run.notes
    tasks = arguments["num_tasks"]
    rows: list[list[float | None]] | None = []
    for time, row in enumerate(run.rows):
        if [task for task, _ in row] != list(range(1, time + 2)):
            notes.append(f"row {time} has not one accuracy for each task seen: no matrix")
            rows = None
            break
        values = [value for _, value in row]
        if rows is not None:
            rows.append([*values, *[None] * (len(run.rows) - len(values))])
        if not math.isclose(sum(values) / len(values), run.means[time]["Acc@1"], abs_tol=2e-5):
            notes.append(f"the printed average of row {time} is not the mean of its accuracies")
    if arguments.get("eval"):
        notes.append("--eval: checkpoints were evaluated, not trained")
    shuffled = arguments.get("shuffle")
    notes.append(
        "classes were shuffled; their order is not printed" if shuffled else "classes in the order of the data"
    )
    seed, name = arguments["seed"], arguments.get("subparser_name")
    return ForeignRun(
        first_line=run.first,
        last_line=run.last,
        complete=len(run.rows) == tasks,
        method=name if isinstance(name, str) else None,
        scenario=_text(arguments, "dataset"),
        family="task-il" if arguments.get("task_inc") else None,
        backbone=_text(arguments, "model"),
        seed=seed if type(seed) is int else None,
        config={key: value for key, value in arguments.items() if key not in FACTS},
        facts={key: arguments[key] for key in FACTS if key in arguments},
        accuracy=rows or None,
        decimals=DECIMALS,
        reported=list(_reported(run)),
        notes=notes,
    )


def _reported(run: _Run) -> Iterator[ForeignScore]:
    if not run.means:
        return
    for name, value in run.means[-1].items():
        metric, definition = SCORES[name]
        yield ForeignScore(name=name, value=value, definition=definition, metric=metric, decimals=MEANS)
    mean = sum(row["Acc@1"] for row in run.means) / len(run.means)
    definition = "mean over rows of: task mean over the test sets seen so far"
    yield ForeignScore(name="mean of Acc@1", value=mean, definition=definition, metric="avg_incremental_acc_task")


def _text(values: Mapping[str, Any], name: str) -> str | None:
    found = values.get(name)
    return found if isinstance(found, str) else None


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    files = "redirected console output, e.g. slurm-1.out"
    summary = "console output of l2p-pytorch and dualprompt-pytorch"
    return [ImporterSpec(name="l2p-pytorch", read=read, suite="l2p-pytorch", files=files, summary=summary)]
