"""``bench leaderboard``: tables of all records below a folder."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmark.cli import terminal
from benchmark.files import check_file, user_path

if TYPE_CHECKING:
    from benchmark.leaderboard import Table
    from benchmark.records import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add_filters(parser)
    parser.add_argument(
        "--format", default=None, metavar="NAME", help="table (default) or an exporter: `bench list exporters`"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help="write to a file instead of stdout")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose records (`read`)."""
    parser.add_argument(
        "--results", type=user_path, default=Path("runs"), metavar="DIR", help="folder with records (default: runs)"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME",
        help="only these, e.g. split-cifar100 or name/variant",
    )
    parser.add_argument("--track", action="append", default=[], metavar="NAME", help="only these tracks")
    parser.add_argument(
        "--method", action="append", default=[], metavar="NAME", help="only these beside the controls, e.g. l2p@pilot"
    )


def run(args: argparse.Namespace) -> int:
    """Prints or writes the tables.

    Raises:
        UsageError: Unknown format, folder or filter; or there is no record.
    """
    from benchmark import leaderboard
    from benchmark.errors import EXIT_OK
    from benchmark.files import replace_file

    if args.output is not None:
        check_file(args.output, "--output")
    render = _renderer("json" if args.json else args.format or "table", to_file=args.output is not None)
    chosen, methods = read(args)
    tables = leaderboard.leaderboard(chosen, methods=methods)
    if not tables:
        terminal.say("warning: all records are of runs on validation data, which no table shows")
    text = render(tables)
    if args.output:
        replace_file(args.output, text.encode())
        terminal.say(f"wrote {args.output}")
    else:
        terminal.write(text)
    return EXIT_OK


def read(args: argparse.Namespace) -> tuple[list[Record], list[str]]:
    """The records that the filters choose; what cannot be read is told and skipped.

    Returns:
        Records of the scenarios and tracks, and the methods that are asked for (none: all).

    Raises:
        UsageError: Unknown folder or filter; or there is no record.
    """
    from benchmark import records
    from benchmark.errors import UsageError

    found, problems = records.read_all(args.results)
    for problem in problems:
        terminal.say(f"warning: {problem.message}; skipped")
    if not found:
        raise UsageError(f"no records in {args.results}", hint="`bench run` makes some; or give --results DIR")
    chosen, methods = _filter(found, _split(args.scenario), _split(args.track)), _split(args.method)
    _check_methods(chosen, methods)
    return chosen, methods


def _split(values: Sequence[str]) -> list[str]:
    """``--method a,b --method c`` means a, b and c."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _renderer(name: str, *, to_file: bool) -> Callable[[list[Table]], str]:
    from benchmark import registry
    from benchmark.errors import did_you_mean
    from benchmark.guard import Guard
    from benchmark.specs import ExporterSpec
    from benchmark.tables import render_text

    if name == "table":
        width = terminal.width() if terminal.is_terminal() and not to_file else None
        return functools.partial(render_text, width=width)
    known = registry.names("exporters")
    if name not in known:
        raise did_you_mean("format", name, ["table", *known])
    loaded = registry.load("exporters", name)
    spec = cast("ExporterSpec", loaded.spec)
    guard = Guard(f"exporter `{name}` of `{loaded.entry.distribution}`", hint=f"-v shows where; bench check {name}")

    def export(tables: list[Table]) -> str:
        with guard("export"):
            text = spec.export(tables)
        if not isinstance(text, str):
            raise guard.refuse("export", text, hint="return text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise guard.refuse("export", text, hint=f"return text that is Unicode: {error.reason}") from error
        return text

    return export


def _filter(found: Sequence[Record], scenarios: Sequence[str], tracks: Sequence[str]) -> list[Record]:
    from benchmark.errors import did_you_mean

    full = {run.scenario.name for run in found}
    present = full | {name.partition("/")[0] for name in full}
    wanted: set[str] = set()
    for name in scenarios:
        matching = {name, *_aliases(name)} & present
        if not matching:
            raise did_you_mean("scenario in these records", name, present)
        wanted |= matching
    for name in tracks:
        if name not in (offered := {run.track for run in found}):
            raise did_you_mean("track in these records", name, offered)
    return [
        run
        for run in found
        if (not wanted or wanted & {run.scenario.name, run.scenario.name.partition("/")[0]})
        and (not tracks or run.track in tracks)
    ]


def _aliases(name: str) -> set[str]:
    """Other names of a scenario: entry points of the same module, found without importing it."""
    from benchmark import registry

    base, slash, variant = name.partition("/")
    entries = registry.entries("scenarios")
    modules = {entry.module for entry in entries.get(base, [])}
    same = {other for other, claims in entries.items() if modules & {entry.module for entry in claims}}
    return {other + slash + variant for other in same}


def _check_methods(found: Sequence[Record], methods: Sequence[str]) -> None:
    from benchmark.errors import did_you_mean

    present = {run.method.name for run in found}
    present |= {f"{run['method']['name']}@{run['method']['recipe']}" for run in found}
    for name in methods:
        if name not in present:
            raise did_you_mean("method in these records", name, present)
