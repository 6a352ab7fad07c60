"""Where a run keeps its record, its checkpoints and its lock, and what is there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmark import files, records
from benchmark.errors import DataMissing
from benchmark.run import lock
from benchmark.run.preparation import Prepared

BOUNDARY = "boundary.safetensors"
MIDDLE = "middle.safetensors"
FORCED = "forced"  # empty file beside the checkpoints of a repetition: until it is done, the record is an earlier one's


def record_path(out: Path, prepared: Prepared) -> Path:
    """Where the record of a run goes."""
    folder = prepared.plan.scenario_name.replace("/", "-")
    return out / folder / prepared.plan.method_label / f"{prepared.run_id}.json"


def is_complete(path: Path) -> bool:
    """Whether there is a readable record of a completed run.

    Raises:
        DataMissing: The record is damaged, or is that of another run.
    """
    if not path.exists():
        return False
    record = records.read(path)
    if record.run_id != path.stem:
        raise DataMissing(f"{path} holds the record of run {record.run_id}", hint="run it again with --force")
    return record.status == "completed"


def is_finished(path: Path) -> bool:
    """Whether there is nothing left to do.

    The run is complete, its predictions are those that the record names, and no repetition of it was stopped halfway.
    """
    if not is_complete(path) or (path.with_suffix(".work") / FORCED).exists():
        return False
    told = records.read(path)["predictions"]
    return told is not None and sha256(path.with_suffix(".parquet")) == told["sha256"]


def tidy(path: Path) -> None:
    """Removes what a killed process has left of a run that is finished, unless somebody works on it."""
    with locked(path) as ours:
        if ours:
            sweep(path)


def sweep(path: Path) -> None:
    """Removes the checkpoints of a run and half-written files of it; its lock is held."""
    shutil.rmtree(path.with_suffix(".work"), ignore_errors=True)
    for unfinished in path.parent.glob(f".{path.stem}.*.part"):
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """The lock of a run; tells whether it is ours."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            ours = stack.enter_context(lock.held(path.with_suffix(".lock")))
        except OSError as error:
            raise files.cannot_write(path, error) from error
        yield ours


def sha256(path: Path) -> str | None:
    """Hash of a file, or None where it cannot be read."""
    try:
        return files.sha256(path)
    except OSError:
        return None


def part(work: Path, index: int) -> Path:
    """Where the predictions after an experience are kept until the run is finished."""
    return work / f"predictions-{index:04d}.parquet"


def kept(work: Path) -> str:
    """What is left of a run that failed, for its message."""
    if (work / BOUNDARY).exists() or (work / MIDDLE).exists():
        return "the last checkpoint is kept"
    return "there is no checkpoint yet"
