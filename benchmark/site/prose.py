"""Docstrings of plugins as blocks that a page can set: paragraphs, lists, literal text. No markup is read or made."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a text.

    Attributes:
        kind: ``p``, a ``list``, or ``pre``: as it stands.
        parts: One text, or the items of the list; each in pieces of plain words and code in turn.
    """

    kind: Literal["p", "list", "pre"]
    parts: tuple[tuple[str, ...], ...]


def blocks(text: str) -> list[Block]:
    """The blocks of a docstring.

    Args:
        text: Paragraphs with blank lines between them, lists whose items begin with ``- ``, and literal blocks, which
            are indented.
    """
    found: list[Block] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            found.append(Block(kind="pre", parts=((textwrap.dedent(paragraph),),)))
            continue
        items: list[list[str]] = []
        words: list[str] = []
        for line in lines:
            if line.startswith("- "):
                items.append([line[2:]])
            elif items and line.startswith("  "):
                items[-1].append(line)
            elif items:
                found += _of(words, items)
                items, words = [], [line]
            else:
                words.append(line)
        found += _of(words, items)
    return found


def _of(words: list[str], items: list[list[str]]) -> list[Block]:
    found = []
    if words and (text := " ".join(words).strip()):
        found.append(Block(kind="p", parts=(pieces(text),)))
    if items:
        found.append(Block(kind="list", parts=tuple(pieces(" ".join(" ".join(item).split())) for item in items)))
    return found


def pieces(text: str) -> tuple[str, ...]:
    """Plain words and code in turn, as backticks part them."""
    parts = re.split(r"``(.+?)``|`([^`]+?)`", text)
    return tuple(part for place, part in enumerate(parts) if place % 3 == 0 or part is not None)
