"""Runs as they are sent to another process, and what that process tells: lines of a file that both see.

A file has one writer at a time and only grows. A process that is put back in a queue reads in it what it has done.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import How, Job, registry, run_jobs
from benchmark.errors import warnings_told
from benchmark.files import user_path


@dataclass(frozen=True)
class World:
    """What another process takes over from this one.

    Attributes:
        argv: The command, which records keep.
        plugins: Files of ``-p``.
        environment: Variables, where the cluster does not pass them on itself.
    """

    argv: tuple[str, ...]
    plugins: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def here(cls, environment: Mapping[str, str]) -> World:
        """That of this process."""
        return cls(tuple(sys.argv), tuple(str(path) for path in registry.added_files()), environment)

    def enter(self) -> None:
        """Makes this process like that one, before it imports torch."""
        sys.argv[:] = self.argv
        os.environ.update(self.environment)
        for path in self.plugins:
            registry.add_file(Path(path))


def sent(job: Job) -> dict[str, Any]:
    """A job for a process with another current folder: with absolute paths, as JSON."""
    paths = {
        name: str(user_path(value).absolute())
        for name in ("out", "data_root", "weights")
        if (value := getattr(job, name)) is not None
    }
    values: dict[str, Any] = json.loads(json.dumps({**job.as_dict(), **paths}, default=str))
    return values


class Told:
    """A file of such lines, as its reader sees it.

    Args:
        path: It may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def news(self) -> list[dict[str, Any]]:
        """The lines since the last call; the file is opened anew, since network file systems look again only then."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._read)
                content = stream.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):  # the writer died in it
                found.append(json.loads(line))
        return found


@dataclass(frozen=True)
class Pack:
    """Runs that one job of a cluster does, in processes of their own; a function without arguments.

    Attributes:
        jobs: Number and `sent` form of each.
        world: Of the process that sends them.
        told: The file in which it tells what it does.
        at_once: Runs at once.
        warning: The signal by which the cluster says that the time is nearly up.
    """

    jobs: tuple[tuple[int, dict[str, Any]], ...]
    world: World
    told: str
    at_once: int
    warning: int

    def __call__(self) -> None:
        """Does what is left of the runs, until all are done or the cluster wants to stop them.

        Raises:
            SystemExit: It was stopped; the runs have written checkpoints.
        """
        self.world.enter()
        done = {line["number"] for line in Told(Path(self.told)).news() if "status" in line}
        left: dict[Job, list[int]] = {}  # equal ones are one
        for number, values in self.jobs:
            if number not in done:
                left.setdefault(Job.of(values), []).append(number)
        host = platform.node()
        with Stopping(self.warning) as stopping, self._telling(stopping) as tell:

            def started(job: Job, place: str) -> None:
                tell({"number": left[job][0], "where": f"{host}, {place}"})

            how = How(workers=self.at_once, started=started)
            with contextlib.closing(run_jobs(list(left), how)) as outcomes:
                for outcome in outcomes:
                    for number in left[outcome.job]:
                        tell({"number": number, **outcome.as_dict()})

    @contextlib.contextmanager
    def _telling(self, stopping: Stopping) -> Iterator[Callable[[dict[str, Any]], None]]:
        with open(self.told, "a", encoding="utf-8") as stream:
            stream.write("\n")  # an earlier turn may have died in a line

            def tell(line: dict[str, Any]) -> None:
                stream.write(json.dumps(line) + "\n")
                stream.flush()
                os.fsync(stream.fileno())

            def warned(text: str) -> None:
                if not stopping.asked:  # what is said then is for somebody at a keyboard
                    tell({"warning": text})

            with warnings_told(warned):
                yield tell

    def checkpoint(self) -> Any:
        """The same again, for submitit: what is done is read from the file."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Stopping:
    """Lets signals of a cluster end the block as Ctrl-C does, once; what they lead to follows when it has ended.

    The signal that the time is nearly up then goes to whoever wanted it before: submitit, which puts the job back in
    the queue. SIGTERM (cancelled, or the machine is needed) ends the process.
    """

    def __init__(self, warning: int) -> None:
        self._warning = warning
        self._before: dict[int, Any] = {}
        self.asked = 0

    def _handle(self, number: int, frame: object) -> None:
        if not self.asked:
            self.asked = number
            raise KeyboardInterrupt

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM, self._warning):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked == self._warning:
            signal.raise_signal(self._warning)  # submitit leaves by it
        if self.asked:
            raise SystemExit(128 + self.asked)


def packed(numbers: Sequence[int], size: int) -> list[list[int]]:
    """Runs in packs of a size; neighbours often share their data."""
    return [list(numbers[first : first + size]) for first in range(0, len(numbers), size)]
