"""Hands jobs to an executor, which is a plugin, and looks at what comes back."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from benchmark import config as configs
from benchmark import registry
from benchmark.errors import BenchError, PluginError
from benchmark.guard import Guard, described
from benchmark.jobs import How, Job, Outcome
from benchmark.run import jobs as running
from benchmark.run.settings import part_options
from benchmark.specs import ExecutorSpec


def execute(name: str, jobs: Sequence[Job], how: How | None = None) -> Generator[Outcome, None, None]:
    """The outcomes of jobs, in the order in which the executor has them.

    Args:
        name: Of the executor.
        jobs: What to do.
        how: How many at once, and who is told when one begins.

    Raises:
        UsageError: There is no such executor.
        PluginError: It fails, returns something else than outcomes, or leaves jobs out.
    """
    loaded = registry.load("executors", name)
    spec, how = cast("ExecutorSpec", loaded.spec), how or How()
    if how.options is None and spec.config is not None:
        how = replace(how, options=spec.config())
    guard = Guard(f"executor `{name}` of `{loaded.entry.distribution}`", hint="-v shows where")
    left = list(jobs)
    outcomes: Iterator[Outcome] = iter(())
    try:
        with _blamed(guard):
            outcomes = iter(spec.execute(tuple(jobs), how))
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
    finally:
        if isinstance(outcomes, Generator):  # its processes end with it, now and not when the garbage is collected
            with _blamed(guard):
                outcomes.close()
    if left:
        raise PluginError(
            f"executor `{name}` of `{loaded.entry.distribution}` has no outcome for {len(left)} of {len(jobs)} jobs",
            hint="give the same command again, or take another executor",
        )


def options_of(name: str, layers: Sequence[configs.Layer]) -> tuple[Any, dict[str, str]]:
    """Options of an executor: an object of its `config` class, or None, and where each value comes from.

    Args:
        name: Of the executor.
        layers: Values, those that win last.

    Raises:
        UsageError: There is no such executor, option or value.
        PluginError: The executor cannot be loaded.
    """
    config = cast("ExecutorSpec", registry.load("executors", name).spec).config
    return part_options(config, "executor", name, layers)


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
