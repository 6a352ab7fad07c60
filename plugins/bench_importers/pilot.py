"""Logs of LAMDA-PILOT and of PyCIL, from which it comes: one format, two meanings of its groups.

Source: LAMDA-CL/LAMDA-PILOT at 5240714d3d60, LAMDA-CL/PyCIL at f3509b8ca3f2 (``trainer.py``, ``utils/toolkit.py``).
A line is ``2025-01-02 03:04:05,678 [trainer.py] => message``. All seeds of one process go to the file of the first one,
so a file is split where a configuration begins, and the seed is that of the line, not of the file's name.

- PILOT's groups of ``CNN: {...}`` are the experiences: they are a row of R. A last group of one class alone is missing.
- PyCIL's groups always have ten classes: a row of R only where every experience has ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[([^\]]+)\] => (.*)")
_OPTION = re.compile(r"([A-Za-z_]\w*): (.*)", re.DOTALL)
_GROUP = re.compile(r"(\d+)-(\d+)")
CLASSIFIERS = ("CNN", "NME")
FACTS = ("seed", "device", "nb_classes", "nb_tasks")  # the last two are printed of later seeds only
DECIMALS = 2
GROUP = 10  # classes of a group of PyCIL
SAMPLES = "sample mean over all test images seen so far"
CLIPPED = "mean over all but the last test set of the best accuracy, the last row included, minus the last one"


@dataclass
class _Message:
    line: int
    last: int
    file: str
    text: str


@dataclass
class _Run:
    """Messages of one run."""

    config: dict[str, str]
    first: int
    last: int
    rest: list[_Message] = field(default_factory=list)


def pilot(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads a log of LAMDA-PILOT."""
    for run in _runs(file):
        if "convnet_type" in run.config and "backbone_type" not in run.config:
            file.other("its configuration has `convnet_type`, as PyCIL's", hint="`bench import pycil` reads those")
        yield from _read(file, run, backbone="backbone_type", seed_scope="", groups=0)


def pycil(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads a log of PyCIL."""
    for run in _runs(file):
        if "backbone_type" in run.config:
            file.other(
                "its configuration has `backbone_type`, as LAMDA-PILOT's", hint="`bench import pilot` reads those"
            )
        scope = "class order; torch is always seeded with 1"
        yield from _read(file, run, backbone="convnet_type", seed_scope=scope, groups=GROUP)


def _messages(file: SourceFile) -> list[_Message]:
    """What was logged; a line that does not begin with a time goes on with the message before it."""
    found: list[_Message] = []
    for number, line in enumerate(file.lines, 1):
        match = _LINE.fullmatch(line)
        if match:
            found.append(_Message(number, number, match[1], match[2]))
        elif found and line.strip():
            found[-1].text += "\n" + line
            found[-1].last = number
    return found


def _runs(file: SourceFile) -> list[_Run]:
    """The runs of a file: a new one begins with a block of options that names seed and data."""
    runs: list[_Run] = []
    block: list[_Message] = []

    options: dict[str, str] = {}

    def close() -> None:
        if {"seed", "dataset"} <= options.keys():
            runs.append(_Run(dict(options), block[0].line, block[-1].last))
        elif runs and block:
            runs[-1].rest += block
            runs[-1].last = block[-1].last
        block.clear()
        options.clear()

    for message in _messages(file):
        option = _option(message)
        if option is None or option[0] in options:
            close()
        if option is not None:
            block.append(message)
            options[option[0]] = option[1]
        elif runs:
            runs[-1].rest.append(message)
            runs[-1].last = message.last
    close()
    if not runs:
        file.other("no lines `... [trainer.py] => seed: N` with `dataset: NAME` beside them")
    return runs


def _option(message: _Message) -> tuple[str, str] | None:
    match = _OPTION.fullmatch(message.text) if message.file == "trainer.py" else None
    return (match[1], match[2]) if match and match[1] not in CLASSIFIERS else None


def _read(file: SourceFile, run: _Run, *, backbone: str, seed_scope: str, groups: int) -> Iterator[ForeignRun]:
    config = run.config
    order = _order(file, run)
    sizes = _sizes(file, run, order)
    for part in CLASSIFIERS:
        rows = [(m.line, file.value(m.text[5:], m.line)) for m in run.rest if _is(m, f"{part}: {{")]
        if part != CLASSIFIERS[0] and not rows:
            continue
        notes = []
        matrix, side, more = _matrix(file, rows, sizes, groups)
        notes += more
        yield ForeignRun(
            first_line=run.first,
            last_line=run.last,
            complete=sizes is not None and len(rows) == len(sizes),
            method=config.get("model_name"),
            part=part if part != CLASSIFIERS[0] else "",
            scenario=config["dataset"],
            family="class-il",
            backbone=config.get(backbone),
            seed=_integer(file, run, "seed"),
            seed_scope=seed_scope,
            class_order=order,
            experiences=sizes,
            config={name: value for name, value in config.items() if name not in FACTS},
            facts={name: config[name] for name in FACTS if name in config},
            accuracy=matrix,
            tests=None if matrix is None or sizes is None else [str(place) for place in range(len(sizes))],
            decimals=DECIMALS,
            reported=list(_reported(file, run, part, rows, sizes, groups, notes)),
            tables={"groups10": side} if side else {},
            notes=notes,
        )


def _is(message: _Message, start: str) -> bool:
    return message.file == "trainer.py" and message.text.startswith(start)


def _integer(file: SourceFile, run: _Run, name: str) -> int | None:
    text = run.config.get(name)
    if text is None:
        return None
    value = file.value(text, run.first)
    if type(value) is not int:
        file.damaged(run.first, f"{name}: {text} is no whole number")
    return value


def _order(file: SourceFile, run: _Run) -> list[int] | None:
    """Position to original class: the first list of data_manager.py."""
    for message in run.rest:
        if message.file == "data_manager.py" and message.text.lstrip().startswith("["):
            found = file.value(message.text, message.line)
            if sorted(map(str, found)) != sorted(map(str, range(len(found)))):
                file.damaged(message.line, "the class order is no permutation")
            return [int(label) for label in found]
    return None


def _sizes(file: SourceFile, run: _Run, order: Sequence[int] | None) -> list[int] | None:
    first, step = _integer(file, run, "init_cls"), _integer(file, run, "increment")
    if order is None or first is None or step is None or first < 1 or step < 1:
        return None
    sizes = [min(first, len(order))]
    while sum(sizes) < len(order):
        sizes.append(min(step, len(order) - sum(sizes)))
    return sizes


def _matrix(
    file: SourceFile, rows: Sequence[tuple[int, Any]], sizes: Sequence[int] | None, groups: int
) -> tuple[list[list[float | None]] | None, list[dict[str, Any]], list[str]]:
    """R where the groups are experiences, else the groups as a table; and why."""
    found: list[dict[int, float]] = []
    for line, row in rows:
        if not isinstance(row, Mapping) or "total" not in row:
            file.damaged(line, "a row of accuracies has no `total`")
        starts = {}
        for key, value in row.items():
            match = _GROUP.fullmatch(str(key))
            if match:
                starts[int(match[1])] = _share(file, line, value)
        found.append(dict(sorted(starts.items())))
    side = [{str(start): value for start, value in row.items()} for row in found]
    if sizes is None:
        return None, side, ["the split is not in the file: no matrix"] if rows else []
    if len(rows) > len(sizes):
        return None, side, [f"{len(rows)} rows for {len(sizes)} experiences: no matrix"]
    if groups and any(size != groups for size in sizes):
        return None, side, [f"groups of {groups} classes are no experiences here: no matrix"]
    places = {sum(sizes[:place]): place for place in range(len(sizes))}
    matrix: list[list[float | None]] = []
    for time, row in enumerate(found):
        known = {places[start]: value for start, value in row.items() if start in places}
        lacking = set(range(time + 1)) - known.keys()
        alone = {time} if sizes[time] == 1 else set()  # the suite drops a last group of one class
        if len(known) != len(row) or max(known, default=0) > time or lacking - alone:
            return None, side, [f"row {time} has other groups than the experiences seen: no matrix"]
        matrix.append([known.get(place) for place in range(len(sizes))])
    return matrix or None, [], []


def _share(file: SourceFile, line: int, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        file.damaged(line, f"{value!r} is no percentage")
    return value / 100


def _reported(
    file: SourceFile,
    run: _Run,
    part: str,
    rows: Sequence[tuple[int, Any]],
    sizes: Sequence[int] | None,
    groups: int,
    notes: list[str],
) -> Iterator[ForeignScore]:
    """What the suite computed of one classifier."""
    curve = [_share(file, line, row["total"]) for line, row in rows]
    if not curve:
        return
    yield ForeignScore(
        name="total",
        value=curve[-1],
        definition=f"{SAMPLES}, after the last row",
        metric="final_acc",
        decimals=DECIMALS,
    )
    mean = sum(curve) / len(curve)
    yield ForeignScore(
        name="mean of total", value=mean, definition=f"mean over rows of: {SAMPLES}", metric="avg_incremental_acc"
    )
    for printed, name in (
        (f"Average Accuracy ({part}): ", "Average Accuracy"),
        (f"Forgetting ({part}): ", "Forgetting"),
    ):
        texts = [(m.line, m.text.removeprefix(printed)) for m in run.rest if _is(m, printed)]
        if not texts:
            continue
        value = file.value(texts[-1][1], texts[-1][0])
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            file.damaged(texts[-1][0], f"{name} {value!r} is no number")
        if name == "Forgetting":
            if groups and (sizes is None or any(size != groups for size in sizes) or sum(sizes) > 100):
                notes.append("the printed forgetting is wrong for this split: its groups have ten classes")
            yield ForeignScore(name=name, value=value / 100, definition=f"{CLIPPED}, of groups")
        else:
            if not math.isclose(value / 100, mean, abs_tol=1e-4):
                notes.append(f"the printed average accuracy {value} is not the mean of the rows, {100 * mean:.4f}")
            yield ForeignScore(name=name, value=value / 100, definition=f"mean over rows of: {SAMPLES}, as printed")
    top5 = [(m.line, m.text.partition(": ")[2]) for m in run.rest if _is(m, f"{part} top5 curve: [")]
    if top5:
        values = file.value(top5[-1][1], top5[-1][0])
        yield ForeignScore(
            name="top5", value=_share(file, top5[-1][0], values[-1]), definition=f"top-5, {SAMPLES}", decimals=DECIMALS
        )


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers both formats."""
    files = "<prefix>_<seed>_<backbone>.log"
    return [
        ImporterSpec(name="pilot", read=pilot, suite="LAMDA-PILOT", files=files, summary="logs of LAMDA-PILOT"),
        ImporterSpec(name="pycil", read=pycil, suite="PyCIL", files=files, summary="logs of PyCIL"),
    ]
