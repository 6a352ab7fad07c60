"""Logs of LibContinual: the options as a dictionary, then a result after each task and one of all of them.

Source: RL-VIG/LibContinual at a399ed4b0058 (``core/trainer.py``). Validations within a task and single tests print the
same lines as results do, so only those below ``Result of Task`` count; ``Best`` is chosen on test images and is never
imported. The final table is elided from 32 tasks on, so R is made of the rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_HEAD = re.compile(r"=+([^=]+)=+")
_TASK = re.compile(r"Result of Task (\d+) Testing!")
_ALL = re.compile(r"Overall Result of (\d+) Tasks!")
_SCORE = re.compile(
    r"\* (\[Batch\] Last Average Acc|\[Task\] Last Average Acc|\[Batch\] Overall Avg Acc|\[Task\] Overall Avg Acc"
    r"|Forgetting|Backward Transfer|Overall Frgt|Overall BwT) ?: (\S+).*"
)
_ROW = "* Per-Task Acc: "
_CELL = re.compile(r"np\.float\d+\(([^()]+)\)")
DECIMALS = 2
FACTS = ("seed", "device_ids", "rank", "data_root", "save_path", "n_gpu", "port")
BATCH = "sample mean over all test images seen so far"
TASK = "task mean over the test sets seen so far"
LAG = "sum over j <= t-2 of R[j, j] - R[t, j], divided by t: the task just before is left out"
MEANING: Mapping[str, tuple[str, str]] = {
    "[Batch] Last Average Acc": ("final_acc", f"{BATCH}, after the last task"),
    "[Task] Last Average Acc": ("final_avg_acc", f"{TASK}, after the last task"),
    "[Batch] Overall Avg Acc": ("avg_incremental_acc", f"mean over tasks of: {BATCH}"),
    "[Task] Overall Avg Acc": ("avg_incremental_acc_task", f"mean over tasks of: {TASK}"),
    "Forgetting": ("", LAG),
    "Backward Transfer": ("", f"minus: {LAG}"),
    "Overall Frgt": ("", f"mean over t >= 2 of: {LAG}"),
    "Overall BwT": ("", f"minus the mean over t >= 2 of: {LAG}"),
}


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads the run of a file: a second one begins another file."""
    lines = file.lines
    config, start = _config(file, lines)
    rows: list[tuple[int, list[float]]] = []
    scores: dict[str, float] = {}
    inside, overall, number = "", False, start
    while number < len(lines):
        text = lines[number].strip()
        number += 1
        if match := _HEAD.fullmatch(text):
            head = match[1].strip()
            task, inside = _TASK.fullmatch(head), ""
            if task:
                inside = "task"
                if int(task[1]) != len(rows):
                    file.damaged(number, f"{head} comes after {len(rows)} results: it is not whole")
            elif _ALL.fullmatch(head):
                inside, overall = "all", True
        elif inside and (match := _SCORE.fullmatch(text)):
            scores[match[1]] = _number(file, number, match[2])
        elif inside == "task" and text.startswith(_ROW):
            first, cells = number, text.removeprefix(_ROW)
            while not cells.endswith("]") and number < len(lines):  # numpy wraps its arrays
                cells += " " + lines[number].strip()
                number += 1
            rows.append((first, _row(file, first, cells)))
    last = max((place for place, line in enumerate(lines, 1) if line.strip()), default=1)
    yield _run(config, rows, scores, last, overall=overall)


def _config(file: SourceFile, lines: list[str]) -> tuple[dict[str, Any], int]:
    """The dictionary that the file begins with, and the number of its lines."""
    begin = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if not lines[begin].startswith("{"):
        file.other("it does not begin with the options, a dictionary")
    end = begin
    while end + 1 < len(lines) and lines[end + 1].startswith(" "):  # pprint indents what goes on
        end += 1
    if not lines[end].rstrip().endswith("}"):
        file.other("the dictionary of options that it begins with is cut off")
    found = file.value("\n".join(lines[begin : end + 1]), begin + 1)
    if not isinstance(found, dict) or not {"classifier", "task_num", "seed"} <= found.keys():
        file.other("its options have no classifier, task_num and seed")
    return {str(name): value for name, value in found.items()}, end + 1


def _number(file: SourceFile, line: int, text: str) -> float:
    try:
        return float(text) / 100
    except ValueError:
        file.damaged(line, f"{text!r:.60} is no number")


def _row(file: SourceFile, line: int, text: str) -> list[float]:
    """A list with commas or an array without them."""
    if not (text.startswith("[") and text.endswith("]")):
        file.damaged(line, "a row of accuracies is cut off")
    cells = _CELL.sub(r"\1", text)[1:-1].replace(",", " ").split()
    found = [_number(file, line, cell) for cell in cells]
    if not all(0 <= value <= 1 for value in found):
        file.damaged(line, "a row of accuracies holds what is no percentage")
    return found


def _run(
    config: dict[str, Any], rows: list[tuple[int, list[float]]], scores: dict[str, float], last: int, *, overall: bool
) -> ForeignRun:
    tasks, notes = config["task_num"], []
    matrix: list[list[float | None]] | None = None
    odd = [line for time, (line, row) in enumerate(rows) if len(row) != time + 1]
    if odd:
        notes.append(f"line {odd[0]}: a row has not one accuracy for each task seen: no matrix")
    elif rows:
        matrix = [[*row, *[None] * (len(rows) - len(row))] for _, row in rows]
    notes.append("each test batch counts int(accuracy * n): accuracies may be low by one sample a batch (count_floor)")
    first, step = config.get("init_cls_num"), config.get("inc_cls_num")
    sizes: list[int] | None = None
    if type(first) is int and type(step) is int and type(tasks) is int:
        sizes = [first, *[step] * (tasks - 1)]
    repeats, seed = config.get("testing_times"), config.get("seed")
    aware = config.get("setting") == "task-aware"
    scenario = config.get("dataset")
    return ForeignRun(
        first_line=1,
        last_line=last,
        complete=overall and len(rows) == tasks,
        method=_name(config.get("classifier")),
        scenario=scenario if isinstance(scenario, str) else None,
        family="task-il" if aware else None,
        backbone=_name(config.get("backbone")),
        seed=seed if type(seed) is int else None,
        experiences=sizes,
        config={name: value for name, value in config.items() if name not in FACTS},
        facts={name: config[name] for name in FACTS if name in config},
        accuracy=matrix,
        decimals=DECIMALS if repeats == 1 else None,  # else means of several tests, printed in full
        reported=[
            ForeignScore(
                name=name, value=value, definition=MEANING[name][1], metric=MEANING[name][0], decimals=DECIMALS
            )
            for name, value in scores.items()
            if math.isfinite(value)
        ],
        notes=notes,
    )


def _name(part: Any) -> str | None:
    found = part.get("name") if isinstance(part, Mapping) else None
    return found if isinstance(found, str) else None


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    files = "<dataset>..<backbone>--ep<N>--s<seed>__<time>.log"
    return [
        ImporterSpec(name="libcontinual", read=read, suite="LibContinual", files=files, summary="logs of LibContinual")
    ]
