"""The ``bench`` command: a table of verbs, one module each, imported when its verb is given.

Stdout is data, everything else goes to stderr. Exit codes: see `EPILOG`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmark.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, BenchError, UsageError, did_you_mean

COMMANDS: dict[str, str] = {
    "run": "train methods on scenarios and write records",
    "list": "names of methods, scenarios, exporters and backbones",
    "info": "what a method, a scenario or a backbone is, and where it comes from",
    "leaderboard": "turn records into tables",
    "metrics": "recompute the metrics of one run from its predictions",
    "check": "run the contract that every plugin must pass",
    "new-plugin": "write the skeleton of a plugin package",
    "doctor": "what is installed, found and missing, and what to do next",
}

EPILOG = """\
exit codes: 0 done · 1 a run or check failed · 2 usage or configuration · 3 plugin · 4 data or
weights missing · 130 interrupted
environment: BENCH_DATA (data root), BENCH_CACHE, BENCH_OFFLINE=1, BENCH_DISABLE_PLUGINS=a,b,
BENCH_TRACE_PLUGINS=1, BENCH_DEBUG=1 (tracebacks), NO_COLOR
`bench COMMAND --help` explains a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``bench`` program; returns the exit code."""
    # Not `list(...)`: once the command `list` is imported, that name is its module here.
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    usual, warnings.formatwarning = warnings.formatwarning, _format_warning
    try:
        return _main(arguments)
    except BenchError as error:
        if _debug(arguments):
            traceback.print_exc()
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (e.g. `head`) has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    finally:
        warnings.formatwarning = usual


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """What is meant for users is one line, as an error is; what is meant for programmers says where."""
    place = "" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}: "
    return f"warning: {place}{message}\n"


def print_error(error: BenchError) -> None:
    """Prints message and hint to stderr."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def _debug(arguments: Sequence[str]) -> bool:
    return os.environ.get("BENCH_DEBUG") == "1" or "-v" in arguments or "--verbose" in arguments


class _Parser(argparse.ArgumentParser):
    """Reports what it cannot read as any other wrong input is reported."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"`{self.prog} --help` explains it")


def _main(arguments: list[str]) -> int:
    parser = _Parser(
        prog="bench",
        description="Benchmarks for continual learning and domain adaptation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    _add_common(parser, top=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    wanted = _command(arguments)
    if wanted is not None and wanted not in COMMANDS:
        raise did_you_mean("command", wanted, COMMANDS, more="bench --help")
    parsers = {}
    for name, summary in COMMANDS.items():
        description = summary[0].upper() + summary[1:] + "."
        parsers[name] = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
        _add_common(parsers[name], top=False)
        if name == wanted or os.environ.get("_ARGCOMPLETE"):
            _module(name).add_arguments(parsers[name])
    _complete(parser)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise _unknown(unknown[0], parsers.get(args.command, parser))
    if args.version:
        from benchmark import __version__

        print(f"adaptbench {__version__}")
        return 0
    if args.command is None:
        parser.print_help()
        return EXIT_USAGE
    if args.plugin:
        from pathlib import Path

        from benchmark import registry

        for file in args.plugin:
            registry.add_file(Path(file))
    code = _module(args.command).run(args)
    sys.stdout.flush()  # a broken pipe must show here, not at exit
    return int(code)


def _command(arguments: Sequence[str]) -> str | None:
    """The first word that is neither an option nor the file of ``-p``."""
    words = iter(arguments)
    for word in words:
        if word in ("-p", "--plugin"):
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def _unknown(word: str, parser: argparse.ArgumentParser) -> UsageError:
    """The error for a word that the parser of the command has no place for."""
    if not word.startswith("-"):
        return UsageError(
            f"{parser.prog}: `{word}` is one argument too many", hint=f"`{parser.prog} --help` explains it"
        )
    options = [option for action in parser._actions for option in action.option_strings]
    return did_you_mean(f"option of {parser.prog}", word.partition("=")[0], options, more=f"{parser.prog} --help")


def _module(name: str) -> Any:
    return importlib.import_module(f"benchmark.cli.{name.replace('-', '_')}")


def _add_common(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """Options that work before and after the verb."""
    quiet: dict[str, Any] = {} if top else {"default": argparse.SUPPRESS}
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only results and errors", **quiet)
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks and details", **quiet)
    parser.add_argument("-p", "--plugin", action="append", metavar="FILE.py", help="load an unpackaged plugin", **quiet)


def _complete(parser: argparse.ArgumentParser) -> None:
    """Shell completion, when the extra ``complete`` is installed."""
    if os.environ.get("_ARGCOMPLETE"):
        try:
            import argcomplete
        except ModuleNotFoundError:
            return
        argcomplete.autocomplete(parser)
