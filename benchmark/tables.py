"""Tables as data: what every exporter is given, and the plain text for the terminal.

Texts are plain Unicode; an exporter escapes them for its format. Nothing here knows what a table
is about.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = str | int | float | bool | None
MISSING = "–"
_WIDTH = 110  # of the text below a table
FORMULA = frozenset("=+-@\N{MINUS SIGN}")
_GAP = 2  # blanks that tabulate leaves between columns, and before a heading


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: Stable name for machines.
        title: Heading, with the unit in brackets.
        align: Side to which cells are flushed.
        group: Columns of one group belong together where a wide table is split; empty: it stands for itself.
    """

    key: str
    title: str
    align: Literal["left", "right"] = "right"
    group: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: What people read.
        value: The number behind it at full precision, or the text.
        bold: Whether it is better than the rest by more than the noise.
        marks: Marks of the footnotes that apply.
        interval: Both ends of the value's 95 % interval over test samples, where that was asked for; the text has them.
    """

    text: str
    value: Scalar = None
    bold: bool = False
    marks: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: One per column.
        group: Rows of one group stand together; formats may draw a line between groups.
    """

    cells: tuple[Cell, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        title: Short, unique within a list of tables.
        caption: How to read it.
        columns: Columns from left to right.
        rows: Rows from top to bottom.
        footnotes: Pairs of mark and text; an empty mark for notes on the whole table.
        runs: Raw values, one mapping per run, for formats that machines read.
        short: What the numbers are in one sentence, for papers that explain the rest in the text.
    """

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    runs: tuple[Mapping[str, Scalar], ...] = field(default=())
    short: str = ""


def render_text(tables: list[Table], *, width: int | None = None) -> str:
    """Renders tables for a terminal; bold is a trailing ``*``, as colour may be missing.

    Args:
        tables: What to render.
        width: Characters in a line. Columns for which there is no room follow below, behind the first column once
            more. None: rows are never folded.
    """
    return "\n\n".join(_text(table, width) for table in tables) + "\n" if tables else ""


def _text(table: Table, width: int | None) -> str:
    from tabulate import tabulate

    def show(cell: Cell) -> str:
        marks = f" [{','.join(cell.marks)}]" if cell.marks else ""
        return one_line(cell.text) + ("*" if cell.bold else "") + marks

    body: list[list[str]] = []
    previous = table.rows[0].group if table.rows else ""
    for row in table.rows:
        if row.group != previous:
            body.append([""] * len(table.columns))
        previous = row.group
        body.append([show(cell) for cell in row.cells])
    headers = [one_line(column.title) for column in table.columns]
    grids = []
    widths = [max([_GAP + len(title), *map(len, cells)]) for title, *cells in zip(headers, *body, strict=True)]
    for places in _folds(widths, width):
        aligned = [table.columns[place].align for place in places]
        lines = [[row[place] for place in places] for row in body]
        titles = [headers[place] for place in places]
        grids.append(tabulate(lines, titles, colalign=aligned if body else None, disable_numparse=True))
    notes = [f"[{mark}] {one_line(text)}" if mark else one_line(text) for mark, text in table.footnotes]
    room = min(width or _WIDTH, _WIDTH)
    below = [line for text in (one_line(table.caption), *notes) for line in textwrap.wrap(text, room)]
    return "\n".join([one_line(table.title), "", "\n\n".join(grids), "", *below])


def _folds(widths: list[int], room: int | None) -> list[list[int]]:
    """Which columns stand beside one another, each time behind the first."""
    if room is None or not widths:
        return [list(range(len(widths)))]
    folds, used = [[0]], widths[0]
    for place, width in enumerate(widths[1:], start=1):
        if len(folds[-1]) > 1 and used + _GAP + width > room:
            folds.append([0])
            used = widths[0]
        folds[-1].append(place)
        used += _GAP + width
    return folds


def one_line(text: str) -> str:
    """The text on one line, as every exporter should take it before it escapes for its format.

    Each run of white space, control, formatting and bidirectional characters (byte order marks, overrides of the
    direction, escape sequences), lone surrogates and unassigned characters becomes one blank; none is left at the ends.
    """
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def starts_formula(text: str) -> bool:
    """Whether a spreadsheet could take the text for a formula: also behind blanks, and with full-width signs."""
    first = one_line(text)[:1]
    return bool(first) and unicodedata.normalize("NFKC", first) in FORMULA
