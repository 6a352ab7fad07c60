"""toy-backwards: the last run first, each job sent through text as if to another machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from benchmark import ExecutorSpec, How, Job, Outcome, hookimpl, run_jobs


def execute(jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    sent = json.dumps([job.as_dict() for job in reversed(jobs)])
    for outcome in run_jobs(Job.of(values) for values in json.loads(sent)):
        print(f"backwards: {outcome.label} is {outcome.status}", file=sys.stderr)
        yield outcome


@hookimpl
def bench_register_executors() -> list[ExecutorSpec]:
    return [ExecutorSpec(name="toy-backwards", execute=execute, summary="the last run first")]
