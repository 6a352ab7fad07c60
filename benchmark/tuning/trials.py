"""What was found: trials, and the file that keeps them.

One CSV file, a line per trial, which is written as soon as its last run ends, may hold several searches, and may be
committed: a search that finds its trials there goes on after them, wherever their records are.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import UsageError, shorten
from benchmark.files import cannot_write, replace_file
from benchmark.tuning.axes import Point


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What trials are of: only those of equal targets can be compared.

    Attributes:
        method: ``name`` or ``name@recipe``.
        scenario: As it was asked for.
        track: Its name.
        options: What all trials have in common: options as ``--set`` takes them, backbone, what is held out.
        experiences: The first ones, which are trained.
        seeds: Of the runs of a trial, as text.
        metric: What is compared; the higher the better.
    """

    method: str
    scenario: str
    track: str
    options: str = "{}"
    experiences: int = 1
    seeds: str = "0"
    metric: str = "final_avg_acc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One point and what it gave.

    Attributes:
        number: From 0, in the order in which points were chosen.
        point: Values of options.
        value: Mean of the metric over the runs of the trial, or None where one of them failed.
        samples: Held-out samples behind it, of all runs.
        strategy: What chose the point.
        code: What it was computed with: number of the engine, beginning of the hash of the method's code, pretrained
            model, input preset. A trial of other code says nothing about this one.
        note: Why there is no value.
    """

    number: int
    point: Point = field(default_factory=dict)
    value: float | None = None
    samples: int = 0
    strategy: str = ""
    code: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """Equal for equal points."""
        return key(self.point)

    @property
    def score(self) -> float:
        """The value; what failed is worse than anything."""
        return -math.inf if self.value is None else self.value

    @property
    def noise(self) -> float:
        """Standard error of the value as a share of so many samples; 0 where it is none."""
        if self.value is None or not self.samples or not 0 <= self.value <= 1:
            return 0.0
        return math.sqrt(self.value * (1 - self.value) / self.samples)


def key(point: Point) -> str:
    """Equal for equal points, in whatever order their options are."""
    return json.dumps(dict(point), sort_keys=True)


def best(trials: Iterable[Trial]) -> Trial | None:
    """The best trial, the first chosen of equals, or None where none has a value."""
    good = [trial for trial in trials if trial.value is not None]
    return max(good, key=lambda trial: (trial.score, -trial.number), default=None)


_TARGET = ("method", "scenario", "track", "options", "experiences", "seeds", "metric")
_TRIAL = ("number", "point", "value", "samples", "strategy", "code", "note")
COLUMNS = (*_TARGET, *_TRIAL)


def read(path: Path) -> list[tuple[Target, Trial]]:
    """The trials of a file; none where there is no file. A last line that was cut off is left out.

    Raises:
        UsageError: It is no such file.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--log {path}: cannot be read: {error}", hint="give another file") from error
    whole = text[: text.rfind("\n") + 1]
    rows = csv.reader(io.StringIO(whole))
    found, head = [], None
    try:
        for row in rows:
            if head is None:
                head = row
                if head != list(COLUMNS):
                    raise UsageError(
                        f"--log {path}: not a log of trials", hint=f"its first line is {','.join(COLUMNS)}"
                    )
            elif row:
                if len(row) != len(COLUMNS):
                    raise ValueError(f"{len(row)} fields, where a trial has {len(COLUMNS)}")
                found.append(_parse(dict(zip(COLUMNS, row, strict=True))))
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise UsageError(
            f"--log {path}, line {rows.line_num}: {shorten(str(error))}", hint="correct or remove it"
        ) from error
    return found


def _parse(row: dict[str, str]) -> tuple[Target, Trial]:
    point = json.loads(row["point"])
    if not isinstance(point, dict):
        raise ValueError("point: not a JSON object")
    target = Target(
        **{name: row[name] for name in _TARGET if name != "experiences"}, experiences=int(row["experiences"])
    )
    value = float(row["value"]) if row["value"] else None
    if value is not None and not math.isfinite(value):
        raise ValueError("value: not a finite number")
    trial = Trial(
        number=int(row["number"]),
        point=point,
        value=value,
        samples=int(row["samples"]),
        strategy=row["strategy"],
        code=row["code"],
        note=row["note"],
    )
    return target, trial


def append(path: Path, target: Target, trial: Trial) -> None:
    """Adds a trial to a file, which begins where there is none.

    Raises:
        RunFailed: It cannot be written.
    """
    text = render([(target, trial)])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        if before and not before.endswith(b"\n"):  # a line that was cut off when its program died
            replace_file(path, before[: before.rfind(b"\n") + 1])
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text if before.count(b"\n") == 0 else text.split("\n", 1)[1])
    except OSError as error:
        raise cannot_write(path, error) from error


def render(rows: Iterable[tuple[Target, Trial]]) -> str:
    """Trials as the text of a file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for target, trial in rows:
        about = [getattr(target, name) for name in _TARGET]
        value = "" if trial.value is None else repr(trial.value)
        point = json.dumps(dict(trial.point))
        writer.writerow(
            [
                *about,
                trial.number,
                point,
                value,
                trial.samples,
                trial.strategy,
                trial.code,
                " ".join(trial.note.split()),
            ]
        )
    return stream.getvalue()
