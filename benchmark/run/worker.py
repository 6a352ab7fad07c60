"""The process that `benchmark.run.pool` starts: does one job after the other until its stdin ends.

The first line says who it is, every further one is a job; each is answered by one line on what was its stdout. Whatever
a run prints, the trace of a crash in compiled code included, goes to the log of the run.
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import json
import math
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmark import registry
from benchmark.errors import BenchError, RunBusy, warnings_told
from benchmark.guard import said
from benchmark.jobs import Job, kind_of
from benchmark.run.interruption import Interrupted, Stop
from benchmark.run.jobs import Shelf, life_cycle, run_one

if TYPE_CHECKING:
    import pluggy


def main() -> None:
    """Serves the parent."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    faulthandler.enable()
    if hasattr(signal, "SIGUSR2"):  # how a cluster tells all processes that the time is nearly up: the parent stops us
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    own = json.loads(orders.readline())
    sys.argv[:] = own["argv"]  # records keep the command, messages how to resume it
    with contextlib.suppress(KeyboardInterrupt), Stop().installed():
        for file in own["plugins"]:
            registry.add_file(Path(file))
        kept: list[str] = []  # the parent says them; other warnings go to the log
        with warnings_told(kept.append):
            shelf, hooks = Shelf(), life_cycle()
        if own["number"]:
            kept.clear()  # one worker says for all which plugin is broken
        work = _Orders(orders)
        with registry.remembered():
            while (order := work.next()) is not None:
                _print_to(Path(order["log"]))
                job = Job.of(order["job"])
                if job.device in ("auto", "cuda"):
                    share_accelerators(own["number"], own["workers"])
                answer = do(job, shelf, hooks)
                answer["warnings"][:0] = kept
                kept.clear()
                work.busy = False
                answers.write(json.dumps(answer) + "\n")
                answers.flush()


class _Orders:
    """The lines of the parent; their end interrupts what is being done.

    Args:
        stream: Where they come from.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.busy = False
        self._found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def next(self) -> Any:
        """The next one, or None when there is none any more."""
        found = self._found.get()
        self.busy = found is not None
        return found

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._found.put(json.loads(line))
        self._found.put(None)
        if self.busy:
            _thread.interrupt_main(signal.SIGINT)


def do(job: Job, shelf: Shelf, hooks: pluggy.PluginManager) -> dict[str, Any]:
    """Does a job, whatever comes of it; the trace of an error goes to the log."""
    error: BaseException | None = None
    kept: list[str] = []
    with warnings_told(kept.append):
        try:
            outcome = run_one(job, shelf, hooks, stop=Stop(patient=True))
        except Exception as caught:
            error = caught
            traceback.print_exc()
    if error is None:
        return {**outcome.as_dict(), "warnings": kept}
    if isinstance(error, BenchError):
        kind = "Stopped" if isinstance(error, Interrupted) else kind_of(error)
        told = {"kind": kind, "message": error.message, "hint": error.hint, "explained": _is_ours(error)}
    else:
        told = {"kind": "Fault", "message": f"unexpected error: {said(error)}", "hint": None}
    status = "skipped" if isinstance(error, RunBusy) else "failed"
    return {"status": status, "path": None, "label": "", "error": told, "warnings": kept}


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package and not in a plugin: then its message says what there is to say."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]


def _print_to(log: Path) -> None:
    """Lets everything that is printed from now on, by compiled code too, go to a file.

    What another run or an earlier try has left in it stays: the trace of a crash may be what one looks for.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def share_accelerators(number: int, workers: int) -> None:
    """Takes one GPU of several, and of its memory the share of one worker on it.

    A run that needs more than its share fails as out of memory, and no other run does.

    Args:
        number: Of this worker, from 0.
        workers: How many there are.
    """
    import torch

    if not torch.cuda.is_available():
        return
    count = torch.cuda.device_count()
    torch.cuda.set_device(number % count)
    torch.cuda.set_per_process_memory_fraction(1 / math.ceil(workers / count), number % count)
