"""Hands jobs to an executor, which is a plugin, and looks at what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from benchmark import registry
from benchmark.errors import PluginError
from benchmark.guard import Guard
from benchmark.jobs import Job, Outcome
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
    with guard("execute"):
        outcomes = iter(cast("ExecutorSpec", loaded.spec).execute(tuple(jobs)))
    while True:
        with guard("execute"):
            outcome = next(outcomes, None)
        if outcome is None:
            break
        if not isinstance(outcome, Outcome) or outcome.job not in left:
            raise guard.refuse("execute", outcome, hint="yield one benchmark.Outcome for each job")
        left.remove(outcome.job)
        yield outcome
    if left:
        raise PluginError(
            f"executor `{name}` of `{loaded.entry.distribution}` has no outcome for {len(left)} of {len(jobs)} jobs",
            hint="give the same command again, or take another executor",
        )
