"""``train-<time>.txt`` of the Transfer-Learning-Library: one accuracy on the target after each epoch.

Source: thuml/Transfer-Learning-Library (``examples/domain_adaptation/image_classification``) at 72d4799e86a3. The file
begins with ``Namespace(...)``. `` * Acc@1 83.125`` follows every evaluation, one an epoch and one at the end, of the
best epoch. That epoch is chosen by target labels, so the accuracy of the last epoch, just before ``best_acc1``, is told
first. Lines of progress hold ``Acc@1``, too; they are no results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile, namespace

_ACCURACY = re.compile(r"\* Acc@1 +(\d+(?:\.\d+)?)\b.*")
_BEST = re.compile(r"(best|test)_acc1 = (\S+)")
_CLASSES = re.compile(r"mean correct: ?(\S+)")
DECIMALS = 3
ROUNDED = 1
FACTS = ("seed", "root", "log", "workers", "print_freq")
OF = "sample mean over the target test images"
ORACLE = "the best epoch, by labels of the target test images"
OTHER = "the best epoch, by labels of held-out target images"


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads the run of a file: each run has one of its own."""
    arguments: dict[str, Any] | None = None
    epochs: list[float] = []
    ends: dict[str, float] = {}
    classes: float | None = None
    before: int | None = None
    begin = last = 1
    for number, line in enumerate(file.lines, 1):
        text = line.strip()
        last = number if text else last
        if arguments is None:
            if text.startswith("Namespace("):
                arguments, begin = _arguments(file, number, text), number
        elif match := _ACCURACY.fullmatch(text):
            epochs.append(file.share(match[1], number))
        elif match := _BEST.fullmatch(text):
            ends[match[1]] = file.share(match[2], number)
            before = len(epochs) if match[1] == "best" else before
        elif match := _CLASSES.fullmatch(text):
            classes = file.share(match[1], number)
    if arguments is None:
        file.other("no line `Namespace(...)` with data, source and target")
    yield _run(arguments, epochs, ends, classes, before, (begin, last))


def _arguments(file: SourceFile, line: int, text: str) -> dict[str, Any]:
    try:
        found = namespace(text)
    except ValueError as error:
        file.damaged(line, f"the arguments of the run cannot be read: {error}")
    if not {"data", "source", "target", "arch"} <= found.keys():
        file.other(f"line {line} has no data, source, target and arch")
    if found.get("phase") == "analysis":
        file.other("it is of the phase analysis, which tests nothing")
    return found


def _run(
    arguments: Mapping[str, Any],
    epochs: list[float],
    ends: Mapping[str, float],
    classes: float | None,
    before: int | None,
    lines: tuple[int, int],
) -> ForeignRun:
    tested = arguments.get("phase") == "test"
    rule = OTHER if arguments["data"] == "DomainNet" else ORACLE
    scores, notes = [], ["which method ran is not in the file: tell it with --method"]
    if tested and epochs:
        scores = [ForeignScore(name="Acc@1", value=epochs[-1], definition=f"{OF}; {rule}", decimals=DECIMALS)]
    elif before:
        definition = f"{OF}, after the last epoch"
        scores = [ForeignScore(name="Acc@1", value=epochs[before - 1], definition=definition, decimals=DECIMALS)]
    for name, what in (("best", f"{rule}, as validated"), ("test", f"{rule}, as tested")):
        if name in ends:
            definition = f"{OF if name == 'test' else 'sample mean'}; {what}"
            scores.append(ForeignScore(name=f"{name}_acc1", value=ends[name], definition=definition, decimals=ROUNDED))
    if classes is not None:
        definition = "mean over classes of their accuracy, of the last evaluation"
        scores.append(ForeignScore(name="mean correct", value=classes, definition=definition))
    if arguments.get("scratch"):
        notes.append("--scratch: the backbone was not pretrained")
    seed = arguments.get("seed")
    return ForeignRun(
        first_line=lines[0],
        last_line=lines[1],
        complete=bool(epochs) if tested else "test" in ends and before is not None,
        scenario=f"{arguments['data']} {_joined(arguments['source'])} -> {_joined(arguments['target'])}",
        backbone=arguments["arch"] if isinstance(arguments["arch"], str) else None,
        seed=seed if type(seed) is int else None,
        selection=rule if tested or ends else "",
        config={name: value for name, value in arguments.items() if name not in FACTS},
        facts={name: arguments[name] for name in FACTS if name in arguments},
        decimals=DECIMALS,
        reported=scores,
        tables={"epochs": [{"epoch": epoch, "accuracy": value} for epoch, value in enumerate(epochs[:before])]},
        notes=notes,
    )


def _joined(domains: Any) -> str:
    return "+".join(map(str, domains)) if isinstance(domains, list) else str(domains)


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    suite, files = "Transfer-Learning-Library", "train-<time>.txt or test-<time>.txt"
    return [ImporterSpec(name="tllib", read=read, suite=suite, files=files, summary="logs of domain adaptation")]
