"""What a sweep shows while it runs: a table on a terminal (with rich, the extra ``live``), else a line per run."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchmark.cli import terminal
from benchmark.errors import BenchError, plain
from benchmark.jobs import Job, Outcome

MOST_FAILURES = 5  # in the table; all are listed at the end


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def failure(label: str, error: BenchError) -> str:
    """A failed run in one line."""
    return f"{label}: {error.message}" + (f" ({error.hint})" if error.hint else "")


class State:
    """What is done, what runs where, what is left.

    Args:
        jobs: All runs.
        labels: What each is called.
        expected: Seconds of each, 0 for what is finished, None where nothing is known.
        workers: Runs at once.
    """

    def __init__(
        self, jobs: Sequence[Job], labels: Sequence[str], expected: Sequence[float | None], *, workers: int
    ) -> None:
        self.total = len(jobs)
        self.workers = workers
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self.lines = False  # whether each end is told in a line
        self._labels = dict(zip(jobs, labels, strict=True))
        self._left: dict[Job, list[float | None]] = {}
        for job, seconds in zip(jobs, expected, strict=True):
            self._left.setdefault(job, []).append(seconds)
        self._running: dict[str, tuple[Job, float]] = {}
        self._began_at: dict[Job, float] = {}  # a place may have gone on before the end of its last run is told
        self._took: list[float] = []
        self._began = time.monotonic()
        self._lock = threading.Lock()  # the table is drawn by another thread

    def label(self, job: Job) -> str:
        """What a run is called."""
        return self._labels.get(job, f"{job.method} on {job.scenario}, seed {job.seed}")

    def started(self, job: Job, place: str) -> None:
        """A run begins somewhere."""
        with self._lock:
            self._running[place] = job, time.monotonic()
            self._began_at[job] = time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """A run has ended."""
        label, took = self.label(outcome.job), ""
        with self._lock:
            self.counts[outcome.status] += 1
            if left := self._left.get(outcome.job):
                left.pop()
            self._running = {place: one for place, one in self._running.items() if one[0] != outcome.job}
            if (began := self._began_at.pop(outcome.job, None)) is not None:
                seconds = time.monotonic() - began
                took = f" after {duration(seconds)}" if outcome.status in ("done", "failed") else ""
                if outcome.status == "done":
                    self._took.append(seconds)
            if outcome.error is not None:
                if outcome.status == "failed":
                    self.failed.append(failure(label, outcome.error))
                label = f"{label}: {outcome.error.message}"
        if self.lines:
            left_over = "" if (eta := self.eta()) is None or not eta else f" (about {duration(eta)} left)"
            word = "already done" if outcome.status == "known" else outcome.status
            terminal.say(f"[{sum(self.counts.values())}/{self.total}] {word}{took}: {label}{left_over}")

    def eta(self) -> float | None:
        """Seconds that are left, from records and from what ended so far; None while nothing is known."""
        with self._lock:
            mean = sum(self._took) / len(self._took) if self._took else None
            left = [mean if seconds is None else seconds for every in self._left.values() for seconds in every]
            elapsed = sum(time.monotonic() - began for _, began in self._running.values())
        if any(seconds is None for seconds in left):
            return None
        return max(0.0, sum(seconds or 0.0 for seconds in left) - elapsed) / self.workers

    def running(self) -> list[tuple[str, str, str]]:
        """Place, run and how long it has gone on."""
        now = time.monotonic()
        with self._lock:
            found = sorted(self._running.items())
        return [(place, self.label(job), duration(now - began)) for place, (job, began) in found]

    def summary(self) -> str:
        """All in one line."""
        words = {
            "done": "done",
            "known": "already done",
            "skipped": "skipped (worked on elsewhere)",
            "failed": "failed",
        }
        counts = [f"{self.counts[status]} {word}" for status, word in words.items() if self.counts[status]]
        return f"{self.total} runs in {duration(time.monotonic() - self._began)}: {', '.join(counts) or 'nothing done'}"


@contextlib.contextmanager
def shown(state: State, *, quiet: bool) -> Iterator[None]:
    """Shows the state while the block runs, unless ``quiet``."""
    if quiet:
        yield
        return
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=sys.stderr)
        with Live(get_renderable=lambda: render(state), console=console, refresh_per_second=2, transient=True):
            yield
        return
    state.lines = True
    yield


def render(state: State) -> Any:
    """The table, for rich."""
    from rich.table import Table
    from rich.text import Text

    eta = state.eta()
    left = "time left: unknown" if eta is None else f"about {duration(eta)} left"
    counts = ", ".join(f"{number} {status}" for status, number in sorted(state.counts.items())) or "nothing done yet"
    title = f"{sum(state.counts.values())} of {state.total} runs: {counts}; {left}"
    table = Table("where", "run", "for", title=Text(title), title_justify="left", expand=False)
    for row in state.running():
        table.add_row(*(Text(plain(word)) for word in row))
    for line in state.failed[-MOST_FAILURES:]:
        table.add_row("", Text(f"failed: {plain(line)}"), "")
    return table
