"""``results-acc/pt.yaml`` and ``global.yaml`` of CODA-Prompt: all repeats of a setting, accuracies by task and time.

Source: GT-RIPL/CODA-Prompt at 6417d4f68754 (``run.py``, ``trainer.py``). ``pt.yaml`` is ``history[j][t][r]``: test set
j, time t, repeat r, transposed against R, with 0.0 where j was not trained yet. ``global.yaml`` is ``history[t][r]``,
the task mean. Its name in ``results-time`` is the same, so the folder is asked. ``pt-local.yaml`` is refused: it leaves
the last class of every task out and is no task-incremental accuracy. The number of a repeat is its seed.

Options stand in ``../args.yaml``, which is written anew when more repeats are asked for, before any of them has run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_ITEM = re.compile(r"( *)((?:- )+)(\S+)")
_KEY = re.compile(r"([A-Za-z_]\w*):(?: (.*))?")
_LARGEST = 1 << 20  # characters of args.yaml
KEYS = ("history", "mean", "std")
KINDS = {"pt.yaml": 3, "global.yaml": 2}
FACTS = ("gpuid", "log_dir", "overwrite", "repeat", "dataroot", "workers")
MEAN = "task mean over the test sets seen so far"


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads every repeat of a file."""
    name, folder = file.path.name, file.path.resolve().parent
    values, lines = _blocks(file)
    if folder.name == "results-time":
        file.other("files below results-time hold seconds", hint="import results-acc/pt.yaml")
    if name not in KINDS:
        file.other(f"what `{name}` holds is told by its name alone", hint="import results-acc/pt.yaml or global.yaml")
    depth = KINDS[name]
    repeats = _shape(file, values["history"], depth)
    _checked(file, values, depth)
    options = _options(file)
    for repeat in range(repeats):
        place = lines[repeat], lines[repeat - repeats]
        yield _run(values["history"], repeat, place, options, whole=depth == max(KINDS.values()))


def _blocks(file: SourceFile) -> tuple[dict[str, Any], list[int]]:
    """The nested lists below each key, in YAML's block style, ``- - 97.0``, and the lines of the first."""
    found: dict[str, list[Any]] = {}
    current: list[Any] | None = None
    lines: list[int] = []
    for number, line in enumerate(file.lines, 1):
        if not line.strip():
            continue
        key, item = _KEY.fullmatch(line.rstrip()), _ITEM.fullmatch(line.rstrip())
        if key and not key[2] and key[1] in KEYS and key[1] not in found:
            current = found.setdefault(key[1], [])
        elif current is None:
            file.other("it does not begin with `history:`")
        elif item:
            _append(file, number, current, len(item[1]) // 2, item[2].count("-"), _number(file, number, item[3]))
            if current is found.get("history"):
                lines.append(number)
        else:
            file.damaged(number, f"{line!r:.60} is no list of numbers in block style")
    if not found:
        file.other("it is empty")
    if not found.get("history") or not found.get("mean"):
        file.damaged(len(file.lines), "it has no `history` with a `mean` behind it: it is cut off")
    return found, lines


def _append(file: SourceFile, line: int, into: list[Any], depth: int, dashes: int, value: float) -> None:
    """Puts a number where its dashes say: each opens a list, but for the last one."""
    for _ in range(depth):
        if not into or not isinstance(into[-1], list):
            file.damaged(line, "it is indented below nothing")
        into = into[-1]
    for _ in range(dashes - 1):
        into.append([])
        into = into[-1]
    into.append(value)


def _number(file: SourceFile, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        file.damaged(line, f"{text!r:.60} is no percentage")
    return value / 100


def _shape(file: SourceFile, history: Any, depth: int) -> int:
    """The number of repeats, of lists that all have the same length.

    Raises:
        UsageError: It is another kind of file.
        DataMissing: It is cut off.
    """
    level, shape = [history], list[int]()
    while level and all(isinstance(item, list) for item in level):
        lengths = {len(item) for item in level}
        if len(lengths) != 1:
            file.damaged(len(file.lines), "lists of `history` have several lengths: it is cut off")
        shape.append(lengths.pop())
        level = [item for inner in level for item in inner]
    if len(shape) != depth or any(isinstance(item, list) for item in level):
        file.other(f"`history` has {len(shape)} levels of lists, {depth} are expected")
    if depth == KINDS["pt.yaml"] and shape[0] != shape[1]:
        file.damaged(1, f"{shape[0]} test sets and {shape[1]} times: it is cut off")
    return shape[-1]


def _checked(file: SourceFile, values: Mapping[str, Any], depth: int) -> None:
    """Refuses a file whose means are not those of its history."""
    rows = values["history"] if depth == KINDS["global.yaml"] else [row for part in values["history"] for row in part]
    means = values["mean"]
    if depth != KINDS["global.yaml"] and all(isinstance(part, list) for part in means):
        means = [value for part in means for value in part]
    for row, mean in zip(rows, means, strict=False):
        if not isinstance(mean, float) or not math.isclose(sum(row) / len(row), mean, abs_tol=1e-9):
            file.damaged(len(file.lines), "`mean` is not the mean over the repeats of `history`")
    if len(rows) != len(means):
        file.damaged(len(file.lines), f"{len(means)} means of {len(rows)} rows: it is cut off")


def _options(file: SourceFile) -> dict[str, Any] | None:
    """What stands in args.yaml beside the folder, as printed; None where it is not there."""
    path = file.path.resolve().parent.parent / "args.yaml"
    try:
        with path.open(encoding="utf-8") as opened:
            text = opened.read(_LARGEST)
    except (OSError, UnicodeDecodeError):
        return None
    found: dict[str, Any] = {}
    name = ""
    for line in text.splitlines():
        if match := _KEY.fullmatch(line.rstrip()):
            name = match[1]
            found[name] = (match[2] or "").strip()
        elif name and line.lstrip().startswith("- "):
            before = found[name]
            found[name] = [*(before if isinstance(before, list) else []), line.strip().removeprefix("- ")]
    return found


def _run(
    history: Any, repeat: int, place: tuple[int, int], options: dict[str, Any] | None, *, whole: bool
) -> ForeignRun:
    times = range(len(history))
    notes, config = [], options or {}
    if options is None:
        notes.append("no args.yaml beside the folder: options, data and backbone are unknown")
    else:
        notes.append("options as args.yaml has them now; repeats that were resumed may have had others")
    held_out = config.get("validation") == "true"
    if held_out:
        notes.append("validation: true: accuracies are of held-out training images, not of test images; no matrix")
    if repeat and config.get("rand_split") != "false":
        notes.append("the class order of this repeat stands in output.log")
    elif options is not None:
        notes.append("classes in the order of the data set")
    notes += [f"{name}: true" for name in ("oracle_flag", "upper_bound_flag") if config.get(name) == "true"]
    matrix: list[list[float | None]] | None = None
    if whole:
        matrix = [[history[test][time][repeat] if test <= time else None for test in times] for time in times]
        curve = [sum(history[test][time][repeat] for test in range(time + 1)) / (time + 1) for time in times]
    else:
        curve = [history[time][repeat] for time in times]
        notes.append("task means alone; single test sets stand in pt.yaml")
    of = "of held-out training images, " if held_out else ""
    ours = ("", "") if held_out else ("final_avg_acc", "avg_incremental_acc_task")
    return ForeignRun(
        first_line=place[0],
        last_line=place[1],
        complete=True,  # written after each repeat, with whole repeats alone
        method=_text(config, "learner_name"),
        scenario=_text(config, "dataset"),
        backbone=_text(config, "model_name"),
        seed=repeat,
        config={name: value for name, value in config.items() if name not in FACTS},
        facts={name: config[name] for name in FACTS if name in config},
        accuracy=None if held_out else matrix,
        reported=[
            ForeignScore(name="global", value=curve[-1], definition=f"{of}{MEAN}, last row", metric=ours[0]),
            ForeignScore(
                name="mean of global",
                value=sum(curve) / len(curve),
                definition=f"{of}mean over rows of: {MEAN}",
                metric=ours[1],
            ),
        ],
        notes=notes,
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    found = values.get(name)
    return found if isinstance(found, str) and found else None


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    files = "results-acc/pt.yaml or results-acc/global.yaml"
    summary = "accuracies by task, time and repeat of CODA-Prompt"
    return [ImporterSpec(name="coda-prompt", read=read, suite="CODA-Prompt", files=files, summary=summary)]
