"""Calls into plugins: whatever comes out of one is a `PluginError` that names it.

Plugin code can raise anything, `SystemExit` included, return anything, and fork. None of that may end the program in
silence, show a traceback of ours, or let a second process go on with our work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from benchmark.errors import EXIT_PLUGIN, BenchError, PluginError, plain, shorten

HINT = "-v shows where; `bench check` runs the contract that every method must pass"
_SHOWN = 300  # characters of a foreign message


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

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Blames the plugin for what the block raises.

        Expected errors, Ctrl-C and a full memory pass as they are. A child process that leaves the block ends here:
        the plugin forked, and only its parent is the run.

        Args:
            what: The function that is called, for the message.

        Raises:
            PluginError: The block raised.
        """
        process = os.getpid()
        try:
            yield
        except (BenchError, KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's, which is no MemoryError
                raise
            who = self._who if isinstance(self._who, str) else self._who(error)
            raise PluginError(f"{who}: `{what}` failed: {said(error)}", hint=self._hint) from error
        finally:
            if os.getpid() != process:
                os._exit(EXIT_PLUGIN)

    def refuse(self, what: str, found: object, *, hint: str) -> PluginError:
        """The error for a result of a wrong kind.

        Args:
            what: The function that returned it.
            found: The result.
            hint: What it should have been.
        """
        return PluginError(f"{self._who}: `{what}` returned {described(found)}", hint=hint)


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
