"""Which experiment trackers are told of runs: ``--tracker`` and its options, of `bench run`, `sweep` and `tune`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.errors import UsageError, did_you_mean


def add_arguments(how: Any) -> None:
    """Adds the options to a group of a parser."""
    how.add_argument(
        "--tracker",
        metavar="NAME[,...]",
        help="experiment trackers that are told of the runs, e.g. tensorboard (`bench list trackers`)",
    )
    how.add_argument(
        "--tracker-set",
        action="append",
        default=[],
        metavar="[NAME.]KEY=VALUE",
        help="option of a tracker, e.g. tensorboard.dir=logs (`bench info tensorboard` lists them); repeatable; also "
        "[tracker.NAME] in the --config",
    )


def read(args: argparse.Namespace, asked: str | Sequence[str] | None, tables: object) -> dict[str, dict[str, Any]]:
    """The trackers that were asked for, with every option of each (`benchmark.Job.trackers`).

    Args:
        args: What `add_arguments` reads, and ``config``.
        asked: Names of trackers.
        tables: The file's table ``[tracker]``.

    Raises:
        UsageError: There is no such tracker, or it has no such option or value.
        PluginError: A tracker cannot be loaded.
    """
    from benchmark import config, registry
    from benchmark.run import tracking

    words = asked.split(",") if isinstance(asked, str) else asked or ()
    names = [name.strip() for name in words if name.strip()]
    given: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in config.parse_assignments(args.tracker_set, option="--tracker-set").items():
        name, dot, option = key.partition(".")
        if not dot and len(names) == 1:
            name, option = names[0], key
        if name not in given:
            told = f"`{name}` is not among --tracker {','.join(names)}" if names else "no --tracker was given"
            raise UsageError(
                f"--tracker-set {key}: {told}",
                hint="for example --tracker tensorboard --tracker-set tensorboard.dir=logs",
            )
        given[name][option] = value
    known = _tables(args, tables, registry.names("trackers"))
    found = {}
    for name, values in given.items():
        layers = [config.Layer(str(args.config), known.get(name, {})), config.Layer("--tracker-set", values)]
        options, _ = tracking.options_of(name, layers)
        found[name] = {} if options is None else config.as_dict(options)
    return found


def _tables(args: argparse.Namespace, tables: object, known: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(tables, Mapping) or not all(isinstance(one, Mapping) for one in tables.values()):
        raise UsageError(f"{args.config}: `tracker` holds values", hint="write [tracker.NAME], e.g. [tracker.mlflow]")
    for name in tables:
        if name not in known:
            error = did_you_mean("tracker", name, known)
            raise UsageError(f"{args.config}: [tracker.{name}]: {error.message}", hint=error.hint)
    return tables
