"""toy-diary: writes down what happens, in a file beside each record."""

from __future__ import annotations

import sys

from benchmark import hookimpl
from benchmark.events import EpochEnded, ExperienceEnded, ExperienceStarted, RunFailed, RunFinished, RunStarted


@hookimpl
def bench_run_started(event: RunStarted) -> None:
    print(f"diary: {event.method} on {event.scenario}, {event.experiences} experiences", file=sys.stderr)


@hookimpl
def bench_experience_started(event: ExperienceStarted) -> None:
    print(f"diary: {event.run_id} begins {event.experience}", file=sys.stderr)


@hookimpl
def bench_epoch_ended(event: EpochEnded) -> None:
    print(f"diary: epoch {event.epoch} of {event.epochs}: loss {event.losses['loss']:.3f}", file=sys.stderr)


@hookimpl
def bench_experience_ended(event: ExperienceEnded) -> None:
    print(f"diary: {event.experience} ends with {event.accuracies[event.experience]:.2f}", file=sys.stderr)


@hookimpl
def bench_run_finished(event: RunFinished) -> None:
    event.path.with_suffix(".diary").write_text(f"finished {event.record['method']['name']}\n", encoding="utf-8")


@hookimpl
def bench_run_failed(event: RunFailed) -> None:
    print(f"diary: {event.status}: {event.error}", file=sys.stderr)
