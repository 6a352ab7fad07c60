"""Where and how many at once `bench run` and `bench sweep` do their runs: the executor, its options, ``--jobs``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from benchmark.cli import asking, tracking
from benchmark.errors import UsageError, did_you_mean
from benchmark.jobs import How


def add_arguments(how: Any, *, alone: str) -> None:
    """Adds the options.

    Args:
        how: The parser's group.
        alone: What happens without ``--jobs``.
    """
    how.add_argument("--jobs", type=_workers, metavar="N", help=f"runs at once, each in a process ({alone})")
    how.add_argument("--executor", metavar="NAME", help="where runs are done (default local: on this machine)")
    how.add_argument(
        "--executor-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the executor, e.g. partition=gpu of slurm (`bench info slurm` lists them); repeatable; also "
        "[executor.NAME] in the --config",
    )
    tracking.add_arguments(how)


def _workers(text: str) -> int:
    if not (number := asking.count(text)):
        raise argparse.ArgumentTypeError("at least one run goes on at a time")
    return number


def read(args: argparse.Namespace, asked: asking.Asked, *, alone: int) -> tuple[How, list[tuple[str, Any, str]]]:
    """How runs are done, and the rows that ``--dry-run`` prints of it.

    Args:
        args: What `add_arguments` reads, and ``config``.
        asked: What was asked for.
        alone: Workers without ``--jobs``.

    Raises:
        UsageError: There is no such executor, or it has no such option or value.
        PluginError: The executor cannot be loaded.
    """
    from benchmark import config, registry
    from benchmark.run import executors

    name = asked.picked["executor"]
    registry.load("executors", name)
    rows = [("executor", name, asked.origin["executor"])]
    jobs = asked.picked["jobs"]
    if jobs is not None and jobs < 1:
        raise UsageError(f"{args.config}: jobs: {jobs} is too small", hint="at least one run goes on at a time")
    workers = alone if jobs is None else int(jobs)
    given = config.parse_assignments(args.executor_set, option="--executor-set")
    table = _table(args, asked, registry.names("executors")).get(name, {})
    layers = [config.Layer(str(args.config), table), config.Layer("--executor-set", given)]
    options, origin = executors.options_of(name, layers)
    if options is not None:
        rows += [(f"executor.{key}", value, origin[key]) for key, value in config.as_dict(options).items()]
    return How(workers=workers, options=options), rows


def _table(args: argparse.Namespace, asked: asking.Asked, known: Any) -> Mapping[str, Any]:
    """The file's tables ``[executor.NAME]``."""
    tables = asked.executors
    if not isinstance(tables, Mapping) or not all(isinstance(one, Mapping) for one in tables.values()):
        raise UsageError(f"{args.config}: `executor` holds values", hint="write [executor.NAME], e.g. [executor.slurm]")
    for name in tables:
        if name not in known:
            error = did_you_mean("executor", name, known)
            raise UsageError(f"{args.config}: [executor.{name}]: {error.message}", hint=error.hint)
    return tables
