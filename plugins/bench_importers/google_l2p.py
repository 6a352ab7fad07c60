"""Logs of Google's L2P and DualPrompt (JAX): what the writer of metrics says on stderr, ``[step] name=value, ...``.

Sources: google-research/l2p (``train_continual.py`` at 3e102b00b834, ``libml/eval_metrics.py`` at 8cfb2104a486),
google/CommonLoopUtils (the logging writer) at 04ad2f9edbd5. Test sets are evaluated several times in a task: the row of
R is the evaluation just before ``learning_acc``, which is written at the end of each. Steps of evaluations are their
count, not the task. Options stand in ``[Hyperparameters] {...}``, which a restart does not print again.

TensorBoard files of the same run hold the same numbers and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_LINE = re.compile(r"I\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ logging_writer\.py:\d+\] \[(\d+|Hyperparameters)\] (.+)")
_METRIC = re.compile(r"(\w+)=([^,\s]+)")
_TEST = re.compile(r"accuracy_(\d+)")
DECIMALS = 4  # of percent: six significant digits of a fraction
FACTS = ("seed", "workdir", "exp_id")
SCORES: Mapping[str, tuple[str, str]] = {
    "avg_acc": ("final_avg_acc", "task mean over the test sets seen so far, last evaluation"),
    "forgetting": ("", "mean over all but the last test set of the best accuracy seen, minus the last one"),
    "backward": ("", "mean over j < T-1 of R[T-1, j] - R[j, j]"),
    "learning_acc": ("", "mean over j of R[j, j]"),
}


@dataclass
class _Run:
    """Lines of one run."""

    options: dict[str, Any] | None
    first: int
    last: int
    rows: list[dict[int, float]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads every run of a file."""
    runs: list[_Run] = []
    row: dict[int, float] = {}
    step = ""
    for number, line in enumerate(file.lines, 1):
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            continue
        if match[1] == "Hyperparameters":
            options = file.value(match[2], number)
            if not isinstance(options, dict):
                file.damaged(number, "the hyper-parameters are no dictionary")
            runs.append(_Run(options, number, number))
            row, step = {}, ""
            continue
        found = dict(_METRIC.findall(match[2]))
        tests = {int(test[1]): value for name, value in found.items() if (test := _TEST.fullmatch(name))}
        if not tests and not SCORES.keys() & found.keys():
            continue  # of training, on another axis of steps
        if not runs:
            runs.append(_Run(None, number, number))
        runs[-1].last = number
        if tests and match[1] != step:
            row, step = {}, match[1]
        row |= {test: _number(file, number, value, low=0) for test, value in tests.items()}
        runs[-1].scores |= {name: _number(file, number, found[name], low=-1) for name in SCORES if name in found}
        if "learning_acc" in found:
            runs[-1].rows.append(row)
            row = {}
    if not any(run.rows or run.scores for run in runs):
        file.other("no line of `logging_writer.py` with `avg_acc=...`")
    for run in runs:
        yield _run(run)


def _number(file: SourceFile, line: int, text: str, *, low: int) -> float:
    try:
        value = float(text)
    except ValueError:
        file.damaged(line, f"{text!r:.60} is no number")
    if not low <= value <= 1:
        file.damaged(line, f"{text!r:.60} is no fraction")
    return value


def _run(run: _Run) -> ForeignRun:
    options, notes = run.options or {}, []
    if run.options is None:
        notes.append("no hyper-parameters are printed (a restart?): options, seed and backbone are unknown")
    continual = options.get("continual")
    inner = dict(continual) if isinstance(continual, Mapping) else {}
    inner |= {name.removeprefix("continual."): options[name] for name in options if str(name).startswith("continual.")}
    tasks, order = inner.get("num_tasks"), inner.get("rand_seed")
    matrix: list[list[float | None]] | None = None
    if any(sorted(row) != list(range(time + 1)) for time, row in enumerate(run.rows)):
        notes.append("a row has not one accuracy for each task seen (evaluated after the last task alone?): no matrix")
    elif run.rows:
        matrix = [[row.get(test) for test in range(len(run.rows))] for row in run.rows]
    if type(order) is int and order < 0:
        notes.append("tasks reversed" if inner.get("reverse_task") else "classes in the order of the data set")
    elif type(order) is int:
        notes.append("classes were permuted by a generator that the file does not fix: order unknown")
    seed, backbone = options.get("seed"), options.get("model_name")
    return ForeignRun(
        first_line=run.first,
        last_line=run.last,
        complete=len(run.rows) == tasks if type(tasks) is int and matrix is not None else None,
        family="task-il" if inner.get("eval_task_inc", options.get("eval_task_inc")) else None,
        backbone=backbone if isinstance(backbone, str) else None,
        seed=seed if type(seed) is int else None,
        config={str(name): value for name, value in options.items() if name not in FACTS},
        facts={name: options[name] for name in FACTS if name in options},
        accuracy=matrix,
        decimals=DECIMALS,
        reported=[
            ForeignScore(name=name, value=value, definition=SCORES[name][1], metric=SCORES[name][0], decimals=DECIMALS)
            for name, value in run.scores.items()
        ],
        notes=notes,
    )


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    summary = "stderr of Google's L2P and DualPrompt (JAX)"
    return [ImporterSpec(name="google-l2p", read=read, suite="google-research/l2p", files="stderr", summary=summary)]
