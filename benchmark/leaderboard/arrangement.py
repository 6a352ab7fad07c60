"""Tables for papers: chosen rows and columns, other headings, short captions, wide ones in parts or on their side.

All functions are pure, from tables to tables; no number is computed here: what is bold stays bold whatever is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from benchmark.errors import UsageError, did_you_mean
from benchmark.tables import MISSING, Cell, Column, Row, Table

NARROW = 8  # columns of a part beside the first: about the width of a page


@dataclass(frozen=True, kw_only=True)
class View:
    """What to show of tables, and how. The default leaves them as they are.

    Attributes:
        columns: Keys or headings of columns, or patterns of them (``variant *``), in this order; empty: all. The first
            column is always there.
        rows: Labels of rows, names of methods, or patterns of them; empty: all.
        headings: Other headings, by key or heading.
        caption: ``full``; or ``short``: what the numbers are in one sentence, without notes on the whole table.
        transpose: Rows become columns.
        split: Largest number of columns beside the first one; what is wider comes in several tables. 0: any number.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    headings: Mapping[str, str] = field(default_factory=dict)
    caption: Literal["full", "short"] = "full"
    transpose: bool = False
    split: int = 0


def arranged(tables: Sequence[Table], view: View) -> list[Table]:
    """The tables as a view shows them; those of which nothing is left are dropped.

    Raises:
        UsageError: A row, a column or a heading is in none of the tables.
    """
    _check("column", view.columns, [name for table in tables for column in table.columns for name in _names(column)])
    _check("row", view.rows, [name for table in tables for row in table.rows for name in _labels(row)])
    _check("column", view.headings, [name for table in tables for column in table.columns for name in _names(column)])
    steps: list[Callable[[Table], Table | None]] = []
    if view.rows:
        steps.append(lambda table: with_rows(table, view.rows))
    if view.columns:
        steps.append(lambda table: with_columns(table, view.columns))
    if view.headings:
        steps.append(lambda table: with_headings(table, view.headings))
    if view.caption == "short":
        steps.append(shortened)
    if view.transpose:
        steps.append(transposed)
    found = []
    for table in tables:
        shown: Table | None = table
        for step in steps:
            shown = step(shown) if shown is not None else None
        if shown is not None:
            found += split(shown, view.split) if view.split else [shown]
    return found


def with_columns(table: Table, wanted: Sequence[str]) -> Table | None:
    """The first column and those that are wanted, in their order; None where the table has none of them."""
    first = table.columns[0]
    places: list[int] = []
    for pattern in wanted:
        for place, column in enumerate(table.columns):
            if place and place not in places and matches(pattern, _names(column)):
                places.append(place)
    if not places and not any(matches(pattern, _names(first)) for pattern in wanted):
        return None
    return _of_columns(table, [0, *places])


def with_rows(table: Table, wanted: Sequence[str]) -> Table | None:
    """The rows that are wanted, in the order of the table; None where it has none of them.

    A label as a whole is that row alone; anything else is matched with the name of the method and its label, too.
    What is bold, the gain and the number of seeds stay those of the whole table, as the caption then says.
    """
    whole = {row.cells[0].text for row in table.rows}
    rows = tuple(
        row
        for row in table.rows
        if any(row.cells[0].text == one if one in whole else matches(one, _labels(row)) for one in wanted)
    )
    if not rows:
        return None
    said = (
        "" if len(rows) == len(table.rows) else f" {len(rows)} of {len(table.rows)} rows; bold and gain refer to all."
    )
    labels = {row.cells[0].text for row in rows}
    return replace(
        table,
        rows=rows,
        caption=table.caption + said,
        short=table.short + said,
        footnotes=_used(table.footnotes, rows),
        runs=tuple(run for run in table.runs if run.get("row") in labels),
    )


def with_headings(table: Table, headings: Mapping[str, str]) -> Table:
    """Other headings of columns."""
    columns = []
    for column in table.columns:
        names = [name for name in headings if name.lower() in {own.lower() for own in _names(column)}]
        columns.append(replace(column, title=headings[names[0]]) if names else column)
    return replace(table, columns=tuple(columns))


def shortened(table: Table) -> Table:
    """The short caption, and of the footnotes those of single rows."""
    return replace(
        table, caption=table.short or table.caption, footnotes=tuple(note for note in table.footnotes if note[0])
    )


def transposed(table: Table) -> Table:
    """Rows become columns, e.g. for few methods and many variants. Marks of rows stand in a row of their own."""
    first, *columns = table.columns
    heads = tuple(Column(row.cells[0].text, row.cells[0].text) for row in table.rows)
    rows = [
        Row((Cell(column.title, column.title), *(row.cells[place] for row in table.rows)), column.group)
        for place, column in enumerate(columns, start=1)
    ]
    if any(row.cells[0].marks for row in table.rows):
        marks = (Cell("", marks=row.cells[0].marks) if row.cells[0].marks else Cell(MISSING) for row in table.rows)
        rows.append(Row((Cell("Notes", "Notes"), *marks), "notes"))
    return replace(table, columns=(Column(first.key, "", "left"), *heads), rows=tuple(rows))


def split(table: Table, most: int = NARROW) -> list[Table]:
    """A wide table as several, each with the first column and at most ``most`` others.

    Columns of one group stay together where they fit. Caption and footnotes stand below the first part.

    Raises:
        UsageError: ``most`` is not positive.
    """
    if most < 1:
        raise UsageError(f"{most} columns beside the first are no table", hint="use 1 or more")
    parts = _parts(table.columns, most)
    if len(parts) < 2:
        return [table]
    found = []
    for number, places in enumerate(parts, start=1):
        part = replace(_of_columns(table, [0, *places]), title=f"{table.title}, part {number} of {len(parts)}")
        if number > 1:
            part = replace(part, caption="Caption and notes: part 1.", short="", footnotes=(), runs=())
        else:
            part = replace(part, footnotes=table.footnotes)  # its notes are those of all parts
        found.append(part)
    return found


def _parts(columns: Sequence[Column], most: int) -> list[list[int]]:
    """Places of the columns of every part, the first column left out."""
    groups: list[list[int]] = []
    for place, column in enumerate(columns[1:], start=1):
        if groups and column.group and columns[groups[-1][-1]].group == column.group:
            groups[-1].append(place)
        else:
            groups.append([place])
    parts: list[list[int]] = [[]]
    for group in groups:
        if len(group) <= most:
            if len(parts[-1]) + len(group) > most:
                parts.append([])
            parts[-1] += group
            continue
        for place in group:  # wider than any part
            if len(parts[-1]) == most:
                parts.append([])
            parts[-1].append(place)
    return [part for part in parts if part]


def _of_columns(table: Table, places: Sequence[int]) -> Table:
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in table.rows)
    columns = tuple(table.columns[place] for place in places)
    return replace(table, columns=columns, rows=rows, footnotes=_used(table.footnotes, rows))


def _used(footnotes: Iterable[tuple[str, str]], rows: Iterable[Row]) -> tuple[tuple[str, str], ...]:
    """The footnotes whose marks are left, and those without a mark."""
    marks = {mark for row in rows for cell in row.cells for mark in cell.marks}
    return tuple(note for note in footnotes if not note[0] or note[0] in marks)


def _names(column: Column) -> tuple[str, ...]:
    return column.key, column.title


def _labels(row: Row) -> tuple[str, ...]:
    """A row by its label, by the same without options, and by what it was called before it was given another name."""
    first = row.cells[0]
    texts = (first.text, str(first.value))
    return tuple(dict.fromkeys((*texts, *(text.partition(" (")[0] for text in texts))))


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Whether one of the names is the pattern, or like it in small letters (``l2p*``)."""
    return any(name == pattern or fnmatchcase(name.lower(), pattern.lower()) for name in names)


def _check(what: str, wanted: Iterable[str], there: Sequence[str]) -> None:
    for pattern in wanted:
        if not matches(pattern, there):
            raise did_you_mean(f"{what} in these tables", pattern, sorted(set(there)))
