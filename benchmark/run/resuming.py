"""What earlier processes have left of a run: read, and verified before anything of it is used."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import DataMissing, warn
from benchmark.files import replace_file
from benchmark.records import predictions
from benchmark.run import checkpoint, places
from benchmark.run.progress import Progress


@dataclass
class Left:
    """The finished part of a run.

    Attributes:
        done: What the run has behind it.
        found: Predictions after each finished experience.
        method: The method at the end of the last one (`benchmark.run.checkpoint.snapshot`); None: none is finished.
        middle: Checkpoint in the middle of the experience to go on with, if there is one.
    """

    done: Progress = field(default_factory=Progress)
    found: list[predictions.Predictions] = field(default_factory=list)
    method: Mapping[str, Any] | None = None
    middle: dict[str, Any] | None = None


def read(work: Path, label: str) -> Left:
    """Reads the last checkpoints; what is damaged is done again, with a warning.

    Args:
        work: Folder of the checkpoints.
        label: Of the run, for warnings.
    """
    left = Left()
    try:
        if (work / places.BOUNDARY).exists():
            saved = checkpoint.load(work / places.BOUNDARY)
            done = Progress.of(saved["done"])
            found = [_part(places.part(work, index), sha256) for index, sha256 in enumerate(done.parts)]
            done.resumed += 1
            left = Left(done, found, saved["method"])
    except DataMissing as error:
        warn(f"{error.message}; {label} starts again from the beginning")
        forced = (work / places.FORCED).exists()
        shutil.rmtree(work, ignore_errors=True)
        if forced:
            replace_file(work / places.FORCED, b"")
    try:
        if (work / places.MIDDLE).exists():
            left.middle = checkpoint.load(work / places.MIDDLE)
    except DataMissing as error:
        warn(f"{error.message}; experience {left.done.experience} of {label} starts again")
    if left.middle is not None and left.middle["experience"] != left.done.experience:
        left.middle = None  # left over from an experience that was finished afterwards
    if left.middle is not None:
        left.done.resumed = left.middle["resumed"] + 1
        left.done.seconds = left.middle["wall"]
    return left


def _part(path: Path, sha256: str) -> predictions.Predictions:
    if places.sha256(path) != sha256:
        raise DataMissing(f"the predictions {path} are gone or damaged")
    return predictions.read(path)
