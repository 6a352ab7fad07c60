"""What commands print: data on stdout, words on stderr, in any encoding, and nothing that could steer a terminal.

While a command runs, `sys.stdout` and the file descriptor behind it are those of stderr: what plugins, the libraries
that they import and the programs that they start print is words. Only `show` and `write` reach stdout.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from benchmark.errors import plain

# What a terminal of few characters shows instead; everything else becomes an escape.
ASCII = {
    "░": ".", "▒": ":", "▓": "*", "█": "#", "·": ".", "•": "*", "…": "...", "→": "->", "×": "x", "±": "+-",
    "–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " ", "²": "^2", "≥": ">=", "≤": "<=",
}  # fmt: skip
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")

_data: TextIO | None = None  # stdout, while `sys.stdout` is stderr


def stdout() -> TextIO:
    """The stream for data."""
    return _data or sys.stdout


def show(text: object, *, coloured: bool = False) -> None:
    """Prints data for people, line by line.

    Args:
        text: One or several lines.
        coloured: Whether the colours that it holds are ours.
    """
    print("\n".join(_clean(line, coloured) for line in str(text).split("\n")), file=stdout(), flush=True)


def say(text: object) -> None:
    """Prints words about what happens, line by line, to stderr."""
    print("\n".join(plain(line) for line in str(text).split("\n")), file=sys.stderr)


def write(document: str) -> None:
    """Writes a document of some format: UTF-8 as in a file, or what the terminal can show."""
    stream, buffer = stdout(), getattr(stdout(), "buffer", None)
    if buffer is None or stream.isatty():
        stream.write(document)
    else:
        stream.flush()
        buffer.write(document.encode())
    stream.flush()


def is_terminal() -> bool:
    """Whether people read stdout as it comes."""
    return stdout().isatty()


def width() -> int:
    """Columns of the terminal that stdout is."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stdout().fileno()).columns
    return shutil.get_terminal_size().columns


def _clean(line: str, coloured: bool) -> str:
    if not coloured:
        return plain(line)
    return "".join(part if place % 2 else plain(part) for place, part in enumerate(_COLOUR.split(line)))


@contextlib.contextmanager
def encodable() -> Iterator[None]:
    """Inside, every text can be printed, whatever the streams' encoding."""
    codecs.register_error("bench", _instead)
    changed: list[tuple[Any, str | None]] = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="bench")
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(OSError, ValueError):  # a reader that has gone, a stream that was closed
                stream.reconfigure(errors=errors)


def _instead(error: UnicodeError) -> tuple[str, int]:
    """The codec error handler ``bench``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(ASCII.get(char) or char.encode("ascii", "backslashreplace").decode() for char in text), error.end


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Inside, stdout is for `show` and `write` alone; whatever else is printed goes to stderr."""
    global _data
    own: TextIO
    outer, own = _data, sys.stdout  # never None: the program was started from a shell or by a test
    with contextlib.ExitStack() as stack:
        _data = stack.enter_context(_second(own)) if outer is None and own is sys.__stdout__ else own
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            yield
        finally:
            _data = outer


@contextlib.contextmanager
def _second(own: TextIO) -> Iterator[TextIO]:
    """Another stream to where the process's stdout leads, while descriptor 1 leads to stderr."""
    try:
        descriptor, other = own.fileno(), sys.stderr.fileno()
        own.flush()
        kept = os.dup(descriptor)
    except (OSError, ValueError):  # closed, or no file of the system
        yield own
        return
    try:
        os.dup2(other, descriptor)
        # Not line by line into a pipe, and closed without its descriptor, which is put back first.
        with open(os.dup(kept), "w", encoding=own.encoding, errors=own.errors) as stream:
            yield stream
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
