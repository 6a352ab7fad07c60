"""doors-backwards: the last job first; a job goes through JSON, as if to another machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmark import ExecutorSpec, How, Job, Outcome, hookimpl, run_jobs


def execute(jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    for job in reversed(jobs):
        sent = Job.of(json.loads(json.dumps(job.as_dict())))
        (outcome,) = run_jobs([sent])
        yield replace(outcome, job=job)


@hookimpl
def bench_register_executors() -> list[ExecutorSpec]:
    return [ExecutorSpec(name="doors-backwards", execute=execute, summary="the last run first")]
