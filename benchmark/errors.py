"""The exception tree: every expected failure carries a hint and an exit code.

::

    BenchError                1   a run or a check failed
    ├── UsageError            2   wrong name, option, value or configuration
    ├── PluginError           3   a plugin is broken or breaks its contract
    │   └── UndeclaredUse     3   a method reached for something it did not declare
    ├── DataMissing           4   data or weights absent, truncated or altered
    ├── RunBusy               1   another process works on the same run
    └── RunFailed             1   training stopped (NaN loss, full disk, ...)

An exception that is not a ``BenchError`` is a bug of ours and shows its traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PLUGIN = 3
EXIT_DATA = 4
EXIT_INTERRUPTED = 130

MOST_CHARACTERS = 200  # of one value in a message


class BenchError(Exception):
    """Base of all expected errors.

    Args:
        message: What is wrong and where, without a trailing full stop.
        hint: What is allowed, or what to do next; printed on a line of its own.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BenchError):
    """The user asked for something that does not exist or is out of range."""

    exit_code = EXIT_USAGE


class PluginError(BenchError):
    """A plugin cannot be loaded, or breaks the contract of its hook."""

    exit_code = EXIT_PLUGIN


class UndeclaredUse(PluginError):
    """A method reached for something that its ``uses`` does not name."""


class BenchWarning(UserWarning):
    """What a person should know about a run that goes on all the same."""


class DataMissing(BenchError):
    """Data or weights are absent, truncated, or not what their checksum says."""

    exit_code = EXIT_DATA


class RunBusy(BenchError):
    """Another process holds the lock of the same run."""


class RunFailed(BenchError):
    """Training or evaluation had to stop; finished work is kept."""


def deprecated(old: str, *, since: str, instead: str) -> None:
    """Warns whoever calls what is to go: it is kept for two minor releases (docs/releasing.md).

    Args:
        old: What is to go, by the name that people use.
        since: Version that deprecated it, e.g. ``0.3``.
        instead: What to use.
    """
    major, minor = map(int, since.split(".")[:2])
    text = f"{old} is deprecated since {since} and will be gone in {major}.{minor + 2}; use {instead}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def warn(text: str) -> None:
    """Says something about a run that goes on: a `BenchWarning`."""
    warnings.warn(text, BenchWarning, stacklevel=3)


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """Gives every `BenchWarning` to ``tell``, repeated ones too; other warnings go where they went."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", BenchWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, BenchWarning):
                tell(str(message))
            else:
                usual(message, category, *rest, **options)

        warnings.showwarning = show
        yield


def did_you_mean(kind: str, wrong: str, allowed: Iterable[str], *, more: str | None = None) -> UsageError:
    """Builds the error for an unknown name.

    Args:
        kind: What the name should have been, e.g. ``method``.
        wrong: The name that was given.
        allowed: All names that would have been accepted.
        more: The command that lists them.
    """
    names = sorted(allowed)
    wrong = shorten(wrong)
    close = difflib.get_close_matches(wrong, names, n=3, cutoff=0.5)
    parts = []
    if close:
        parts.append("did you mean " + " or ".join(f"`{name}`" for name in close) + "?")
    if more:
        parts.append(f"`{more}` shows all {len(names)}")
    elif not close and names:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        parts.append(f"allowed: {shown}")
    return UsageError(f"unknown {kind} `{wrong}`", hint=" ".join(parts) or None)


def shorten(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text, or its beginning and end with three dots between them."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} ... {text[-(most // 3) :]} ({len(text)} characters)"


def shown(value: object) -> str:
    """A value as messages show it: its `repr`, never long, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # an integer of more digits than Python prints, or a stranger's `__repr__`
        text = f"a value of type {type(value).__name__} that cannot be printed"
    return shorten(plain(text))


def plain(text: str) -> str:
    r"""The text on one line, with everything that could steer a terminal as a visible escape.

    White space becomes a blank; control characters, bidirectional and other invisible marks, and lone surrogates
    become ``\x1b``, ``\u202e``, ... .
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable()
        else " "
        if char.isspace() and char not in "\x1c\x1d\x1e\x1f\x85"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
