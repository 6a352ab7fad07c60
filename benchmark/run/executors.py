"""Hands jobs to an executor, which is a plugin, and looks at what comes back."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from benchmark import registry
from benchmark.errors import BenchError, PluginError
from benchmark.guard import Guard, described
from benchmark.jobs import Job, Outcome
from benchmark.run import jobs as running
from benchmark.specs import ExecutorSpec


def execute(name: str, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """The outcomes of jobs, in the order in which the executor has them.

    Args:
        name: Of the executor.
        jobs: What to do.

    Raises:
        UsageError: There is no such executor.
        PluginError: It fails, returns something else than outcomes, or leaves jobs out.
    """
    loaded = registry.load("executors", name)
    guard = Guard(f"executor `{name}` of `{loaded.entry.distribution}`", hint="-v shows where")
    left = list(jobs)
    with _blamed(guard):
        outcomes = iter(cast("ExecutorSpec", loaded.spec).execute(tuple(jobs)))
    while True:
        with _blamed(guard):
            outcome = next(outcomes, None)
        if outcome is None:
            break
        if not isinstance(outcome, Outcome) or outcome.job not in left:
            raise guard.refuse("execute", outcome, hint="yield one benchmark.Outcome for each job")
        if (problem := _wrong(outcome)) is not None:
            raise PluginError(
                f"executor `{name}` of `{loaded.entry.distribution}`: an outcome {problem}",
                hint="benchmark.Outcome explains its fields",
            )
        left.remove(outcome.job)
        yield outcome
    if left:
        raise PluginError(
            f"executor `{name}` of `{loaded.entry.distribution}` has no outcome for {len(left)} of {len(jobs)} jobs",
            hint="give the same command again, or take another executor",
        )


@contextlib.contextmanager
def _blamed(guard: Guard) -> Iterator[None]:
    """As the guard, but what goes wrong within a run that the executor does in this process is not its fault."""
    try:
        with guard("execute"):
            yield
    except PluginError as error:
        if (cause := error.__cause__) is not None and any(
            frame.f_code is running.run_one.__code__ for frame, _ in traceback.walk_tb(cause.__traceback__)
        ):
            raise cause from None
        raise


def _wrong(outcome: Outcome) -> str | None:
    """What is wrong with an outcome, or None."""
    if outcome.status in ("done", "known"):
        if outcome.error is not None:
            return f"is `{outcome.status}` with an error"
        if not isinstance(outcome.path, Path):
            return f"is `{outcome.status}`, but its path is {described(outcome.path)}"
        return None if outcome.path.is_file() else f"names a record that is not there: {outcome.path}"
    if outcome.status not in ("skipped", "failed"):
        return f"has the status {described(outcome.status)}"
    if not isinstance(outcome.error, BenchError):
        return f"is `{outcome.status}`, but its error is {described(outcome.error)}"
    return None
