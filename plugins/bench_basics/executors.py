"""local: runs on this machine, one after the other or in several processes."""

from __future__ import annotations

from benchmark import ExecutorSpec, hookimpl, run_jobs


@hookimpl
def bench_register_executors() -> list[ExecutorSpec]:
    """Registers the executor."""
    return [
        ExecutorSpec(name="local", execute=run_jobs, summary="this machine: one run after the other, or --jobs at once")
    ]
