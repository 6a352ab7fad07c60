"""``logs.pyd`` of mammoth: one dictionary as Python prints it per run, all seeds and settings of a method in one file.

Source: aimagelab/mammoth at e75a491c69fd (``utils/loggers.py``, ``utils/evaluate.py``). Never evaluated: arrays wrap
over several lines, so the file is split where a line begins with ``{'``, and read as literals.

``accuracy_<j>_task<i>`` is R[i-1][j-1]. A row that has not exactly i of them (evaluations in the middle of a task or of
tasks to come, a last row on other data) makes R unknown. Whether the task id is given at test time stands in the name
of the folder alone: ``.../<setting>/<dataset>/<model>/logs.pyd``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

SETTINGS: Mapping[str, str | None] = {
    "class-il": "class-il",
    "task-il": "task-il",
    "domain-il": "domain-il",
    "general-continual": None,
}
REFUSED = "biased-class-il"
_CELL = re.compile(r"accuracy_(\d+)_task(\d+)")
_MEAN = re.compile(r"accmean_task(\d+)")
MORE_ROWS = ("eval_epochs", "eval_future", "validation")
PARTIAL = ("start_from", "stop_after", "loadcheck", "debug_mode", "inference_only")
OTHER = {
    "forgetting": "mean over all but the last test set of the best accuracy, untrained ones too, minus the last",
    "backward_transfer": "mean over j < T-1 of R[T-1, j] - R[j, j]",
    "forward_transfer": "mean over j of R[j-1, j] minus the accuracy before any training",
}
FACTS = ("seed", "device", "class_order", "cpu_memory_usage", "gpu_memory_usage", *OTHER)
TASKS = "task mean over the test sets seen so far"


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads every run of a file."""
    setting = _setting(file)
    lines = file.lines
    starts = [number for number, line in enumerate(lines) if line.startswith("{'")]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        file.other("it does not begin with a dictionary, `{'dataset': ...`")
    for first, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        values = file.value("\n".join(lines[first:end]), first + 1)
        last = max(number for number in range(first, end) if lines[number].strip())
        yield _run(file, values, setting, first + 1, last + 1)


def _setting(file: SourceFile) -> str | None:
    parts = file.path.resolve().parts
    if REFUSED in parts:
        file.other(f"results of {REFUSED} hold dictionaries in the place of accuracies, which nobody can read back")
    return next((part for part in reversed(parts) if part in SETTINGS), None)


def _run(file: SourceFile, values: dict[str, Any], setting: str | None, first: int, last: int) -> ForeignRun:
    cells, means = _numbers(file, values, first)
    if not means:
        file.other("a run has no `accmean_task1`") if first == 1 else file.damaged(
            first, "a run has no `accmean_task1`"
        )
    config = {name: value for name, value in values.items() if not (_CELL.fullmatch(name) or _MEAN.fullmatch(name))}
    notes: list[str] = []
    matrix = _matrix(config, cells, len(means), notes)
    partial = [name for name in PARTIAL if values.get(name)]
    if partial:
        notes.append(f"a part of a run, or one that went on: {', '.join(partial)} set")
    if values.get("joint"):
        notes.append("joint: trained on all data at once")
    if setting is None:
        notes.append("the setting (class-il, task-il, ...) stands in the name of its folder, which is not there")
    sound = matrix is not None or (not cells and not any(config.get(name) for name in MORE_ROWS))
    empty = all(value == 0 for value in means.values())
    if empty:
        notes.append("all accuracies are 0: no class-incremental method; see the file below task-il")
    seed = values.get("seed")
    return ForeignRun(
        first_line=first,
        last_line=last,
        complete=False if partial else None,
        method=_text(values, "model"),
        scenario=_text(values, "dataset"),
        family=None if setting is None else SETTINGS[setting],
        backbone=_text(values, "backbone"),
        seed=seed if type(seed) is int else None,
        class_order=_order(values, notes),
        config={name: value for name, value in config.items() if not _fact(name)},
        facts={name: value for name, value in config.items() if _fact(name)},
        accuracy=None if empty else matrix,
        reported=[] if empty else list(_reported(values, means, sound=sound)),
        notes=notes,
    )


def _numbers(file: SourceFile, values: Any, line: int) -> tuple[dict[tuple[int, int], float], dict[int, float]]:
    """R as (time, test set) from 0, and the means by time; fractions."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        file.damaged(line, "a run is no dictionary of names")
    cells, means = {}, {}
    for name, value in values.items():
        cell, mean = _CELL.fullmatch(name), _MEAN.fullmatch(name)
        if not cell and not mean:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
            file.damaged(line, f"{name}: {value!r:.80} is no percentage")
        if cell:
            cells[int(cell[2]) - 1, int(cell[1]) - 1] = value / 100
        elif mean:
            means[int(mean[1]) - 1] = value / 100
    return cells, dict(sorted(means.items()))


def _matrix(
    config: Mapping[str, Any], cells: Mapping[tuple[int, int], float], times: int, notes: list[str]
) -> list[list[float | None]] | None:
    if not cells:
        notes.append("the file has means only, no accuracy of single test sets: no matrix")
        return None
    if odd := [name for name in MORE_ROWS if config.get(name)]:
        notes.append(f"{', '.join(odd)} adds rows that belong to no task: no matrix")
        return None
    wanted = {(time, test) for time in range(times) for test in range(time + 1)}
    if cells.keys() != wanted:
        notes.append("a row has not one accuracy for each task seen (evaluations within or ahead of tasks): no matrix")
        return None
    return [[cells.get((time, test)) for test in range(times)] for time in range(times)]


def _fact(name: str) -> bool:
    """Whether it differs from run to run of one setting."""
    return name in FACTS or name.startswith("conf_")


def _order(values: Mapping[str, Any], notes: list[str]) -> list[int] | None:
    """Classes in the order of training: ``class_order`` maps old labels to new ones, so it is inverted."""
    given = values.get("class_order")
    if values.get("custom_class_order"):
        notes.append("custom_class_order was given; whether it took effect is not in the file: order unknown")
        return None
    if not values.get("permute_classes"):
        notes.append("classes in the order of the data set")
        return None
    if not isinstance(given, list) or sorted(map(str, given)) != sorted(map(str, range(len(given)))):
        notes.append("classes were permuted, but the file has no permutation: order unknown")
        return None
    return sorted(range(len(given)), key=lambda label: int(given[label]))


def _reported(values: Mapping[str, Any], means: Mapping[int, float], *, sound: bool) -> Iterator[ForeignScore]:
    """What the suite computed; its means are ours where every one of them is that of a task."""
    curve = list(means.values())
    ours = ("final_avg_acc", "avg_incremental_acc_task") if sound else ("", "")
    name = f"accmean_task{len(curve)}"
    yield ForeignScore(name=name, value=curve[-1], definition=f"{TASKS}, last row", metric=ours[0])
    mean = sum(curve) / len(curve)
    yield ForeignScore(name="mean of accmean", value=mean, definition=f"mean over rows of: {TASKS}", metric=ours[1])
    for name, definition in OTHER.items():
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield ForeignScore(name=name, value=value / 100, definition=definition)


def _text(values: Mapping[str, Any], name: str) -> str | None:
    found = values.get(name)
    return found if isinstance(found, str) else None


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    return [
        ImporterSpec(name="mammoth", read=read, suite="mammoth", files="logs.pyd", summary="logs.pyd, never evaluated")
    ]
