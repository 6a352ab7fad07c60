"""A run as data, and what became of it: what Python callers and executors hold in their hands.

`benchmark.run_job` does a job. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmark import errors
from benchmark.errors import BenchError, RunFailed, UsageError

__all__ = ["How", "Job", "Outcome"]

MOST_DIGITS = 18  # of a seed: records hold 64 bits
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What torch and numpy read when they are imported; `threads` writes it for processes that are started."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a scenario, a method, a seed, and where its data and results are.

    It can be hashed, and written as JSON and read again (`as_dict`, `of`), e.g. to be sent to another machine.

    Attributes:
        scenario: ``name``, ``name/variant``, or ``name:PATH`` of a library.
        method: ``name`` or ``name@recipe``.
        seed: Seed of class order, initialisation and data order, unless given apart.
        class_order_seed: Seed of the class order alone.
        init_seed: Seed of the initialisation alone.
        data_seed: Seed of the data order and augmentation alone.
        track: Track, or None for the scenario's first.
        backbone: Backbone, or None for the track's.
        preset: Input preset, or None for the one that the scenario has on the track; to repeat an old run.
        weights: Local weight file, or None.
        settings: Options as ``--set`` takes them, ``{"epochs": "1", "scenario.train": "10"}``.
        tables: Options as tables of a configuration file, ``{"method": {"l2p": {"epochs": 1}}}``.
        file: Name of that file, for messages.
        validate: Number of experiences for choosing options on held-out training images; 0: the real protocol.
        validate_on: What these are tested on: empty: the held-out images; ``domain:N``: all training images of the N-th
            source domain, which is not trained; ``target``: a fifth of the test images of the target, an oracle.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        out: Results folder.
        data_root: Folder with data sets, or None for the default places.
        download: ``auto`` (small sets are fetched), ``always`` or ``never``.
        lock_kind: How processes keep off each other's runs: ``file`` (file locks), or ``lease`` where these do not work
            between the machines that share the results folder; once asked for, leases are used in it by all.
        lock: The content of a lock file (`benchmark.locks`) that the data here must agree with, or empty.
        trackers: Experiment trackers that are told of the run, and the options of each: ``{"tensorboard": {}}``.
        force: Whether a finished run is done again, and an unfinished one from the beginning.
        quiet: Whether there is no progress bar.
        origin: Where the values come from, for ``--dry-run``.
    """

    scenario: str
    method: str
    seed: int = 0
    class_order_seed: int | None = None
    init_seed: int | None = None
    data_seed: int | None = None
    track: str | None = None
    backbone: str | None = None
    preset: str | None = None
    weights: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    validate: int = 0
    validate_on: str = ""
    device: str = "auto"
    out: str = "runs"
    data_root: str | None = None
    download: Literal["auto", "always", "never"] = "auto"
    lock: str = ""
    lock_kind: Literal["file", "lease"] = "file"
    trackers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    force: bool = False
    quiet: bool = True
    origin: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def tables_from(self) -> str:
        """What messages and origins call `tables`."""
        return self.file or "tables"

    def __hash__(self) -> int:
        values = asdict(replace(self, origin={}))
        return hash(json.dumps(values, sort_keys=True, default=str))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `of` takes them; JSON unless the tables hold a date."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Job:
        """The job that `as_dict` returned.

        Raises:
            UsageError: It has a field that there is not, or lacks one.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"not a job: {error}", hint="benchmark.Job explains its fields") from error


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        status: ``done``; ``known`` (it was done before); ``skipped`` (another process works on it); ``failed``.
        path: The record, of ``done`` and ``known`` ones.
        label: ``method on scenario, seed n``.
        error: Why not, of ``skipped`` and ``failed`` ones.
    """

    job: Job
    status: Literal["done", "known", "skipped", "failed"]
    path: Path | None = None
    label: str = ""
    error: BenchError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values without the job, as `of` takes them: JSON."""
        error = None
        if self.error is not None:
            error = {"kind": kind_of(self.error), "message": self.error.message, "hint": self.error.hint}
        path = None if self.path is None else str(self.path)
        return {"status": self.status, "path": path, "label": self.label, "error": error}

    @classmethod
    def of(cls, job: Job, values: Mapping[str, Any]) -> Outcome:
        """What became of a job, from what `as_dict` returned in another process.

        An error of a kind that stands in no module of ours is a `RunFailed`.
        """
        error, path = values["error"], values["path"]
        if error is not None:
            found = getattr(errors, error["kind"], None)
            kind = found if isinstance(found, type) and issubclass(found, BenchError) else RunFailed
            error = kind(error["message"], hint=error["hint"])
        path = None if path is None else Path(path)
        return cls(job=job, status=values["status"], path=path, label=values["label"], error=error)


def kind_of(error: BenchError) -> str:
    """The name of the nearest error of `benchmark.errors`."""
    return next(base.__name__ for base in type(error).__mro__ if base.__module__ == "benchmark.errors")


def _untold(job: Job, place: str) -> None:
    """For executors that nobody listens to."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How an executor does jobs.

    Attributes:
        workers: Runs at once, each in a process of its own; 0: one after the other, where the executor is called.
        started: Called with a job and the name of the place where it begins, e.g. ``worker 2``.
        options: An object of the executor's `config` class, or None: its defaults.
    """

    workers: int = 0
    started: Callable[[Job, str], None] = _untold
    options: Any = None


def threads(cores: int) -> dict[str, str]:
    """The part of the environment of a process that has so many cores; a user may want fewer threads.

    The first name speaks for the others where they are not set, as it does in these libraries.
    """
    given = {name: os.environ.get(name) or os.environ.get(THREADS[0], "") for name in THREADS}
    wanted = {name: int(text) if text.isdecimal() else 0 for name, text in given.items()}
    return {name: str(min(cores, count or cores)) for name, count in wanted.items()}
