"""Several runs at once on one machine: worker processes that live for many runs, and what happens when one dies.

A worker is a fresh interpreter (`benchmark.run.worker`) that imports torch once. It reads jobs as lines of JSON from
its stdin and answers each with one line. An end of its stdin, which the death of this process is too, stops it at the
next step of training, with a checkpoint. What it prints during a run goes to ``<out>/.logs/<run>.log``, which is
removed unless the run fails. A worker that dies (a full memory, a fault in compiled code) takes no other run with it:
its run goes on from its checkpoint in a new one, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import errors, registry
from benchmark.errors import RunFailed, plain, warn
from benchmark.files import cannot_write, user_path
from benchmark.jobs import How, Job, Outcome, threads
from benchmark.run import machine, provenance
from benchmark.run.interruption import Interrupted

TRIES = 2  # of a run whose process dies
LAST_LINES = 10  # of a log, in messages
_TAIL = 8192  # bytes of a log that are looked at
# As the parent finds modules, whatever lies in the current folder.
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from benchmark.run import worker; worker.main()"


@dataclass
class _Task:
    """A job on its way.

    Attributes:
        job: It.
        log: Where what is printed during it goes.
        tries: How often it was begun.
    """

    job: Job
    log: Path
    tries: int = 0


class _Worker:
    """One process.

    Args:
        number: From 1.
        workers: How many there are.
        task: Its first one; what the process prints before goes to the log of it.
        replies: Takes ``(worker, answer)``, and ``(worker, None)`` when the process has ended.
    """

    def __init__(self, number: int, workers: int, task: _Task, replies: queue.SimpleQueue[Any]) -> None:
        self.number = number
        self.task: _Task | None = None
        with _opened(task.log) as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **threads(_share(workers))},
                **_apart(),
            )
        plugins = [str(path) for path in registry.added_files()]
        self._send({"number": number - 1, "workers": workers, "argv": sys.argv, "plugins": plugins})
        threading.Thread(target=self._watch, args=(replies,), daemon=True).start()

    def give(self, task: _Task) -> None:
        """Lets it do a task."""
        self.task = task
        task.tries += 1
        self._send({"job": task.job.as_dict(), "log": str(task.log)})

    def close(self) -> None:
        """Asks it to end: at once if it is idle, else at the next step of training."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def _send(self, message: Any) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # it is dead: the end of its answers says so
                self.process.stdin.write(json.dumps(message, default=str).encode() + b"\n")
                self.process.stdin.flush()

    def _listen(self, replies: queue.SimpleQueue[Any]) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError), self.process.stdout as lines:
            for line in lines:
                replies.put((self, json.loads(line)))

    def _watch(self, replies: queue.SimpleQueue[Any]) -> None:
        """Tells that the process has ended, after its last answer.

        The end of its answers alone would not do: a process that it has started may hold them open.
        """
        listener = threading.Thread(target=self._listen, args=(replies,), daemon=True)
        listener.start()
        self.process.wait()
        listener.join(timeout=5)
        self.close()
        replies.put((self, None))


def run(jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    """Does jobs in ``how.workers`` processes; outcomes come as runs end.

    Raises:
        Interrupted: Ctrl-C; every worker has stopped at its next step, a second one ends them at once.
        RunFailed: The results folder cannot be written.
    """
    waiting = deque(_Task(job, _log(job, place)) for place, job in enumerate(jobs))
    replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
    count = min(how.workers, len(jobs))
    workers: dict[int, _Worker] = {}
    done = 0

    def next_task(number: int) -> None:
        """Gives the worker of a number something to do, if there is anything left."""
        if not waiting:
            return
        task = waiting.popleft()
        if task.tries == 0:
            with contextlib.suppress(OSError):  # of a sweep before this one
                task.log.unlink(missing_ok=True)
        if number not in workers:
            workers[number] = _Worker(number, count, task, replies)
        workers[number].give(task)
        how.started(task.job, f"worker {number}")

    try:
        for number in range(1, count + 1):
            next_task(number)
        while done < len(jobs):
            worker, answer = _next(replies)
            task = worker.task
            worker.task = None
            if answer is None:
                workers.pop(worker.number, None)
                code = worker.process.wait()
                if task is not None and task.tries < TRIES:
                    waiting.appendleft(task)
                    warn(f"the process of {_name(task.job)} {_end(code)}: the run goes on in a new one")
                    task = None
            next_task(worker.number)
            if task is not None:
                done += 1
                yield _died(task, code) if answer is None else _outcome(task, answer)
    except KeyboardInterrupt:
        _stop(workers)
        raise Interrupted(
            f"stopped: {done} of {len(jobs)} runs are done, what the others have finished is kept",
            hint=f"resume with: {provenance.resume_command()}",
        ) from None
    finally:
        _stop(workers)
        for folder in {_logs(job) for job in jobs}:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _next(replies: queue.SimpleQueue[Any]) -> tuple[_Worker, Any]:
    """The next answer; Windows sees no Ctrl-C while it waits without end."""
    while True:
        with contextlib.suppress(queue.Empty):
            found: tuple[_Worker, Any] = replies.get(timeout=1.0)
            return found


def _stop(workers: dict[int, _Worker]) -> None:
    """Ends all workers and waits for them; Ctrl-C meanwhile ends them at once."""
    busy = sum(worker.task is not None and worker.process.poll() is None for worker in workers.values())
    for worker in workers.values():
        worker.close()
    try:
        if busy:
            warn(f"waiting until {busy} run(s) have written a checkpoint; Ctrl-C again ends them at once")
        for worker in workers.values():
            worker.process.wait()
    except KeyboardInterrupt:
        for worker in workers.values():
            worker.process.kill()
            worker.process.wait()
        raise
    finally:
        workers.clear()


def _outcome(task: _Task, answer: dict[str, Any]) -> Outcome:
    """What a worker answered."""
    for text in answer["warnings"]:
        warn(text)
    if answer["status"] != "failed":
        with contextlib.suppress(OSError):  # Windows keeps open files: then it goes with the next run of its name
            task.log.unlink()
    elif answer["error"] is not None:
        told = answer["error"]
        explained = told.pop("explained", False)
        # A fault of ours or of a plugin, or a stop from outside: only its log explains it.
        failed = told["kind"] == RunFailed.__name__ and not explained
        if failed or told["kind"] not in vars(errors) or told["kind"] == errors.PluginError.__name__:
            told["message"] += _tail(task.log)
        told["hint"] = f"{told['hint'] + '; ' if told['hint'] else ''}log: {task.log}"
    return Outcome.of(task.job, answer)


def _died(task: _Task, code: int) -> Outcome:
    error = RunFailed(
        f"{_name(task.job)}: its process {_end(code)}, {task.tries} times{_tail(task.log)}",
        hint=f"log: {task.log}; the same command goes on from the last checkpoint",
    )
    return Outcome(job=task.job, status="failed", label=_name(task.job), error=error)


def _tail(log: Path) -> str:
    """The last lines of a log for a message, or nothing."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL))
            lines = [plain(line.strip()) for line in stream.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    last = [line for line in lines if line][-LAST_LINES:]
    return f"; its last lines: {' | '.join(last)}" if last else "; it printed nothing"


def _end(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}" + (" (often a full memory)" if name == "SIGKILL" else "")


def _name(job: Job) -> str:
    return f"{job.method} on {job.scenario}, seed {job.seed}"


def _logs(job: Job) -> Path:
    return user_path(job.out) / ".logs"  # hidden: no record is looked for there


def _log(job: Job, place: int) -> Path:
    """Of the same job always the same one; several that are equal have one each."""
    digest = hashlib.sha256(json.dumps([place, job.as_dict()], sort_keys=True, default=str).encode()).hexdigest()[:8]
    words = re.sub(r"[^\w@.-]+", "-", f"{job.scenario}-{job.method}-{job.seed}")[-100:]
    return _logs(job).absolute() / f"{words}-{digest}.log"


def _apart() -> dict[str, Any]:
    """Ctrl-C is for this process, which tells its workers."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _opened(log: Path) -> Any:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise cannot_write(log, error) from error


def _share(workers: int) -> int:
    """Cores of each worker."""
    return max(1, machine.cores() // workers)
