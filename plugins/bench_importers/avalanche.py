"""``eval_results.csv`` of Avalanche's CSVLogger: an accuracy for each (test experience, last trained experience).

Source: ContinualAI/avalanche at eb075be393e1 (``logging/csv_logger.py``). Fractions of four decimals. A bare ``0``
says that the metric did not report, ``0.0000`` that it was zero. Test experiences that were not trained yet have real
scores, which are no part of R. The file names neither method nor data: the caller tells them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

HEAD = ("eval_exp", "training_exp", "eval_accuracy", "eval_loss", "forgetting")
TRAINING = "training_exp,epoch,training_accuracy"
_VALUE = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|nan")
DECIMALS = 2  # of percent: four of a fraction

Cells = dict[tuple[int | None, int], float | None]


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads the run of a file: the logger overwrites it, so there is one."""
    lines = [(number, line) for number, line in enumerate(file.lines, 1) if line.strip()]
    if not lines or tuple(lines[0][1].strip().split(",")) != HEAD:
        if lines and lines[0][1].startswith(TRAINING):
            file.other("it is the log of training", hint="import eval_results.csv, which lies beside it")
        file.other(f"its first line is not `{','.join(HEAD)}`")
    accuracy: Cells = {}
    lost: Cells = {}
    double = False
    for number, line in lines[1:]:
        cells = next(csv.reader([line]))
        if len(cells) != len(HEAD):
            file.damaged(
                number, f"{len(cells)} fields, not {len(HEAD)}: the row is broken (a metric that is no number?)"
            )
        test, time = _place(file, number, cells[0]), None if cells[1] == "None" else _place(file, number, cells[1])
        double = double or (time, test) in accuracy
        accuracy[time, test] = _value(file, number, cells[2], low=0)
        lost[time, test] = _value(file, number, cells[4], low=-1)
    if not accuracy:
        file.other("it has a head and no row")
    yield run_of(lines[-1][0], accuracy, lost, double=double)


def _place(file: SourceFile, line: int, text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text):
        file.damaged(line, f"{text!r:.60} is no number of an experience")
    return int(text)


def _value(file: SourceFile, line: int, text: str, *, low: int) -> float | None:
    if text == "0":
        return None
    if not _VALUE.fullmatch(text) or (text != "nan" and not low <= float(text) <= 1):
        file.damaged(line, f"{text!r:.60} is no fraction")
    return None if text == "nan" else float(text)


def run_of(last: int, accuracy: Cells, lost: Cells, *, double: bool) -> ForeignRun:
    """A run of scores by (last trained experience, test experience), which both of Avalanche's loggers write.

    Args:
        last: Its last line.
        accuracy: Fractions; time None: before any training.
        lost: Forgetting of single experiences.
        double: Whether a pair came twice, so that nobody knows which one is meant.
    """
    times = sorted({time for time, _ in accuracy if time is not None})
    tests = sorted({test for _, test in accuracy})
    notes = []
    matrix: list[list[float | None]] | None = None
    if double:
        notes.append(
            "pairs of experiences stand twice: several streams were evaluated, which the file does not tell apart"
        )
    elif not times:
        notes.append("evaluated before training only: no matrix")
    elif times != list(range(len(times))) or tests != list(range(len(tests))) or len(tests) < len(times):
        notes.append("experiences are not numbered from 0 on without gaps: no matrix")
    else:
        matrix = [[accuracy.get((time, test)) if test <= time else None for test in tests] for time in times]
    complete = None if matrix is None else len(times) == len(tests)
    future = [
        {"training_exp": time, "eval_exp": test, "accuracy": value}
        for (time, test), value in sorted(accuracy.items(), key=lambda item: (item[0][0] or -1, item[0][1]))
        if value is not None and (time is None or test > time)
    ]
    if future:
        notes.append("scores of experiences that were not trained yet are in tables.future, not in the matrix")
    scores = []
    if matrix is not None:
        known = [value for test in tests[: len(times) - 1] if (value := lost.get((times[-1], test))) is not None]
        if known and len(known) == len(times) - 1:
            definition = "mean over earlier experiences of accuracy right after learning minus accuracy now, as printed"
            scores = [ForeignScore(name="forgetting", value=sum(known) / len(known), definition=definition)]
    return ForeignRun(
        first_line=1,
        last_line=last,
        complete=complete,
        accuracy=matrix,
        tests=None if matrix is None else [str(test) for test in tests],
        decimals=DECIMALS,
        reported=scores,
        tables={"future": future} if future else {},
        notes=notes,
    )


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    files = "eval_results.csv"
    return [
        ImporterSpec(name="avalanche-csv", read=read, suite="Avalanche", files=files, summary="CSV logs of Avalanche")
    ]
