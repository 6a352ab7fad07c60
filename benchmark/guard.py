"""Calls into plugins: whatever comes out of one is a `PluginError` that names it.

Plugin code can raise anything, `SystemExit` included, return anything, and fork. None of that may end the program in
silence, show a traceback of ours, or let a second process go on with our work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from types import TracebackType

from benchmark.errors import EXIT_PLUGIN, BenchError, PluginError, plain, shorten

HINT = "-v shows where; `bench check` runs the contract that every method must pass"
_SHOWN = 300  # characters of a foreign message
_FULL = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Guard:
    """Stands around every call into one plugin.

    Args:
        who: The plugin as messages name it, e.g. ``method `l2p` of `adaptbench 0.1.0```, or a function that finds it
            from the exception.
        hint: What to do about an exception out of it.
    """

    def __init__(self, who: str | Callable[[BaseException], str], *, hint: str = HINT) -> None:
        self._who = who
        self._hint = hint

    def __call__(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Blames the plugin for what the block raises.

        Expected errors, Ctrl-C and a full memory pass as they are. A child process that leaves the block ends here:
        the plugin forked, and only its parent is the run.

        Args:
            what: The function that is called, for the message.

        Raises:
            PluginError: The block raised.
        """
        return _Call(self._who, self._hint, what)

    def refuse(self, what: str, found: object, *, hint: str) -> PluginError:
        """The error for a result of a wrong kind.

        Args:
            what: The function that returned it.
            found: The result.
            hint: What it should have been.
        """
        return PluginError(f"{self._who}: `{what}` returned {described(found)}", hint=hint)


class _Call(contextlib.AbstractContextManager[None]):
    """One call into a plugin.

    No generator: Ctrl-C between `__enter__` and the block would leave one suspended, and its end would be blamed on the
    plugin.
    """

    def __init__(self, who: str | Callable[[BaseException], str], hint: str, what: str) -> None:
        self._who = who
        self._hint = hint
        self._what = what
        self._process = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process:
            os._exit(EXIT_PLUGIN)
        if error is None or isinstance(error, (BenchError, KeyboardInterrupt)) or memory_is_full(error):
            return
        who = self._who if isinstance(self._who, str) else self._who(error)
        raise PluginError(f"{who}: `{self._what}` failed: {said(error)}", hint=self._hint) from error


def memory_is_full(error: BaseException) -> bool:
    """Whether an exception says that memory is full: Python's own, torch's of a device, torch's of the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is no MemoryError
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def said(error: BaseException) -> str:
    """Type and message of a foreign exception; its ``__str__`` is foreign code too."""
    try:
        text = shorten(plain(str(error)), _SHOWN)
    except Exception as second:
        text = f"(its message cannot be read: {type(second).__name__})"
    return f"{type(error).__name__}: {text}"


def described(value: object) -> str:
    """A foreign value in a few words: its type, and itself where that is short and cannot fail."""
    name = type(value).__name__
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        shown = repr(value)
        return "None" if value is None else f"{shown[:60]} ({name})"
    return f"a {name}" + (" that is empty" if isinstance(value, (dict, list, tuple, set)) and not value else "")
