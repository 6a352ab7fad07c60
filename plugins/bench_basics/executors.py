"""local: one run after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmark import ExecutorSpec, Job, Outcome, hookimpl, run_jobs


def execute(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Does the jobs in order; a scenario stays in memory for the jobs on it."""
    yield from run_jobs(jobs)


@hookimpl
def bench_register_executors() -> list[ExecutorSpec]:
    """Registers the executor."""
    return [ExecutorSpec(name="local", execute=execute, summary="one run after the other, in this process")]
