"""toy-diary: writes down what happens, in a file beside each record."""

from __future__ import annotations

import sys

from benchmark import hookimpl
from benchmark.specs import RunFinished


@hookimpl
def bench_before_task(run_id: str, experience: int) -> None:
    print(f"diary: {run_id} begins {experience}", file=sys.stderr)


@hookimpl
def bench_after_task(experience: int, accuracies: list[float | None]) -> None:
    print(f"diary: {experience} ends with {accuracies[experience]:.2f}", file=sys.stderr)


@hookimpl
def bench_run_finished(result: RunFinished) -> None:
    result.path.with_suffix(".diary").write_text(f"finished {result.record['method']['name']}\n", encoding="utf-8")
