"""The ``bench`` command: a table of verbs, one module each, imported when its verb is given.

Stdout is data, everything else goes to stderr. Exit codes: see `EPILOG`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from benchmark.cli import terminal
from benchmark.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    MOST_CHARACTERS,
    BenchError,
    PluginError,
    UsageError,
    did_you_mean,
    plain,
    shorten,
)
from benchmark.files import switched_on, user_path
from benchmark.guard import said

COMMANDS: dict[str, str] = {
    "run": "train methods on scenarios and write records",
    "sweep": "many runs at once: scenarios, methods, seeds and grids of options, with a plan first",
    "tune": "choose options of a method on held-out training data, and write them down as a preset",
    "list": "names of methods, scenarios, backbones and all other plugins",
    "info": "what a plugin is, and where it comes from",
    "data": "data sets: list, get, verify, add, statistics; what a folder of your own images holds",
    "lock": "which data a scenario has here and how they are cut, as a small file to cite and to compare with",
    "leaderboard": "turn records into tables",
    "bundle": "pack records, predictions, locks and tables into one file that others can check",
    "verify": "recompute every number of a bundle from the predictions in it",
    "compare": "hold rows of tables against each other: over seeds, test samples and scenarios",
    "variance": "how much of a method's spread comes from class order, initialisation and data order",
    "audit": "is the number of a method what it seems to be? One page with a verdict for every question",
    "plot": "draw a figure of records",
    "site": "static pages of records: tables to sort and filter, methods, scenarios; no server, no network",
    "import": "read results of other suites, for rows of their own in tables",
    "cache": "list or remove what was derived from data and is made again when it is needed",
    "metrics": "recompute the metrics of one run from its predictions",
    "predict": "ask the trained method of a run about images or texts of your own",
    "rerun": "repeat one record from the record alone, and say what is equal",
    "reproduce": "published figures: which are ours, what is off, what each would cost; tries one",
    "check": "run the contract that every plugin must pass",
    "new-plugin": "write the skeleton of a plugin package",
    "doctor": "what is installed, found and missing, and what to do next",
}

_MODULES = {"import": "importing"}

MOST_OF_A_MESSAGE = 1500  # characters; hints hold commands to copy and are never cut

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
        with terminal.encodable():
            return _answer(arguments)
    except BrokenPipeError:
        # The reader of our output (e.g. `head`) has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    finally:
        warnings.formatwarning = usual


def _answer(arguments: list[str]) -> int:
    try:
        return _main(arguments)
    except BenchError as error:
        if _debug(arguments):
            traceback.print_exc()
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        terminal.say("interrupted")
        return EXIT_INTERRUPTED


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """What is meant for users is one line, as an error is; what is meant for programmers says where."""
    place = "" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}: "
    return f"warning: {plain(place + str(message))}\n"


def print_error(error: BenchError) -> None:
    """Prints message and hint to stderr."""
    terminal.say(f"error: {plain(shorten(error.message, MOST_OF_A_MESSAGE))}")
    if error.hint:
        terminal.say(f"hint: {plain(error.hint)}")


def _debug(arguments: Sequence[str]) -> bool:
    try:
        return "-v" in arguments or "--verbose" in arguments or switched_on("BENCH_DEBUG")
    except UsageError:
        return True


class _Parser(argparse.ArgumentParser):
    """Reports what it cannot read as any other wrong input is reported."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"{self.prog}: {shorten(message, 2 * MOST_CHARACTERS)}", hint=f"`{self.prog} --help` explains it"
        )


def _main(arguments: list[str]) -> int:
    _check_unicode(arguments)
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
            module_of(name).add_arguments(parsers[name])
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
    with terminal.reserved(), _no_end_by_a_plugin():
        if args.plugin:
            from benchmark import registry

            for file in args.plugin:
                registry.add_file(file)
        return int(module_of(args.command).run(args))


def _check_unicode(arguments: Sequence[str]) -> None:
    """Names of bytes that are no text can be no part of a record, which keeps the command.

    Raises:
        UsageError: A word or a variable holds such bytes.
    """
    variables = {f"{name}={value}" for name, value in os.environ.items() if name.startswith("BENCH_")}
    for word in (*arguments, *sorted(variables)):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"`{shorten(plain(word))}` is not UTF-8", hint="rename the file or folder, or reach it through a link"
            ) from error


@contextlib.contextmanager
def _no_end_by_a_plugin() -> Iterator[None]:
    """Nothing of ours raises `SystemExit` or its like while a command runs: who does so is named.

    Raises:
        PluginError: Something else than an `Exception` or Ctrl-C came out of the command.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        module = [frame.f_globals.get("__name__", "?") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
        raise PluginError(
            f"`{module}` wanted to end the program: {said(error)}",
            hint="a plugin raises an error instead, e.g. benchmark.errors.RunFailed; `-v` shows the place",
        ) from error


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
    options = [option for action in parser._actions for option in action.option_strings]
    if not word.startswith("-"):
        file = word.endswith(".toml") and "--config" in options
        hint = f"`{parser.prog} --config {word}` reads the file" if file else f"`{parser.prog} --help` explains it"
        return UsageError(f"{parser.prog}: `{word}` is one argument too many", hint=hint)
    return did_you_mean(f"option of {parser.prog}", word.partition("=")[0], options, more=f"{parser.prog} --help")


def module_of(name: str) -> Any:
    """The module of a verb; one that Python has for itself is that of what it does."""
    return importlib.import_module(f"benchmark.cli.{_MODULES.get(name, name.replace('-', '_'))}")


def _add_common(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """Options that work before and after the verb."""
    quiet: dict[str, Any] = {} if top else {"default": argparse.SUPPRESS}
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only results and errors", **quiet)
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks and details", **quiet)
    parser.add_argument(
        "-p", "--plugin", action="append", type=user_path, metavar="FILE.py", help="load an unpackaged plugin", **quiet
    )


def _complete(parser: argparse.ArgumentParser) -> None:
    """Shell completion, when the extra ``complete`` is installed."""
    if os.environ.get("_ARGCOMPLETE"):
        try:
            import argcomplete
        except ModuleNotFoundError:
            return
        argcomplete.autocomplete(parser)
