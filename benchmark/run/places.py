"""Where a run keeps its record, its checkpoints and its lock, and what is there."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmark import files, records
from benchmark.errors import DataMissing, RunFailed
from benchmark.records import predictions
from benchmark.run import lease, lock
from benchmark.run.preparation import Prepared

BOUNDARY = "boundary.safetensors"
MIDDLE = "middle.safetensors"
STREAM = "stream.safetensors"  # in the middle of a stream of test batches, which begins behind the boundary
FORCED = "forced"  # empty file beside the checkpoints of a repetition: until it is done, the record is an earlier one's
LEASES = ".leases"  # file in a results folder whose runs have leases beside locks
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def record_path(out: Path, prepared: Prepared) -> Path:
    """Where the record of a run goes."""
    folder = re.sub("[/:]", "-", prepared.plan.scenario_name)
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


def is_finished(path: Path, model: bool = False, choices: bool = False) -> bool:
    """Whether there is nothing left to do.

    The run is complete, its predictions are those that the record names, and no repetition of it was stopped halfway.

    Args:
        path: The record.
        model: Whether the trained method is to be there as well.
        choices: Whether the predictions are to hold what was chosen.
    """
    if not is_complete(path) or (path.with_suffix(".work") / FORCED).exists():
        return False
    return missing(path, model=model, choices=choices) is None


def missing(path: Path, *, model: bool, choices: bool = False) -> str | None:
    """What is not beside the record of a complete run as the record names it, in words, or None."""
    record = records.read(path)
    if record.predictions is None or sha256(path.with_suffix(".parquet")) != record.predictions.sha256:
        return "its predictions are gone or damaged"
    if choices and not predictions.has_choices(path.with_suffix(".parquet")):
        return "what it chose was not kept (engine.save_choices)"
    if model and record.model is None:
        return "its trained method was not kept (engine.save_model)"
    if model and record.model is not None and sha256(path.with_name(record.model.file)) != record.model.sha256:
        return "its trained method is gone or damaged"
    return None


def tidy(path: Path) -> None:
    """Removes what a killed process has left of a run that is finished, unless somebody works on it."""
    with locked(path) as ours:
        if ours is not None:
            sweep(path)


def sweep(path: Path) -> None:
    """Removes the checkpoints of a run and half-written files of it; its lock is held."""
    shutil.rmtree(path.with_suffix(".work"), ignore_errors=True)
    for unfinished in path.parent.glob(f".{path.stem}.*.part"):
        with contextlib.suppress(OSError):
            unfinished.unlink()


def use_leases(out: Path) -> None:
    """Lets all runs of a results folder have leases, whoever works on them: locks are not enough on its file system.

    Raises:
        RunFailed: It cannot be written.
    """
    file = out / LEASES
    if not file.exists():
        try:
            out.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise files.cannot_write(file, error) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Callable[[], None] | None]:
    """The lock of a run, or its lease as well where the results folder has leases.

    Yields:
        None where another process has it; else what raises `RunBusy` once another one has taken it over.

    Raises:
        RunFailed: The folder cannot be written, or its file system has no locks.
    """
    leases = (path.parents[2] / LEASES).exists()
    ours: Callable[[], None] = _always
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if leases:
                found = stack.enter_context(lease.held(path.with_suffix(".lease")))
                ours = ours if found is None else found.check
            mine = (not leases or found is not None) and _lock(stack, path.with_suffix(".lock"), needed=not leases)
        except OSError as error:
            raise files.cannot_write(path, error) from error
        yield ours if mine else None


def _lock(stack: contextlib.ExitStack, path: Path, *, needed: bool) -> bool:
    """Whether the lock is ours; where there are leases, it does not matter that there may be no locks."""
    try:
        return stack.enter_context(lock.held(path))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if needed:
            raise RunFailed(
                f"the file system of {path.parent} has no file locks ({error.strerror})",
                hint="add --lock-kind lease, or choose another --out folder",
            ) from error
        return True


def _always() -> None:
    """A lock is not taken over."""


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
