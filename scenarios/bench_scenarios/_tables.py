"""Tables of texts in files: CSV, TSV and JSON lines, read strictly, with messages that name the line.

Files are UTF-8 with or without a byte order mark. The first row of CSV and TSV names the columns unless the caller
does. Every cell is a text; of JSON, numbers and truth values become texts and null an empty one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from benchmark.datasets import Form, find
from benchmark.errors import DataMissing
from benchmark.readers.files import cannot_read, is_file, opened, shown
from benchmark.samples import Kind, Text, digest_of

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["csv", "tsv", "jsonl"]
SUFFIXES: dict[str, Layout] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
MOST = 1 << 32  # bytes; Amazon's reviews have 1.7e9
LONGEST = 1 << 26  # characters of a cell


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file.

    Attributes:
        path: The file, as messages name it.
        columns: Names of the columns, in their order.
        rows: Cells by column.
        lines: Line of the file in which each row begins, from 1.
    """

    path: str
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]


class Texts:
    """Texts in memory as a source that is hashed once."""

    kind: Kind = "text"

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = tuple(texts)
        self._digest = ""

    @property
    def digest(self) -> str:
        """See `benchmark.samples.Source.digest`."""
        self._digest = self._digest or digest_of(self._texts)
        return self._digest

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, rows: Tensor, /) -> Sequence[Text]:
        return tuple(self._texts[row] for row in rows.tolist())


def look(root: Path, folders: Sequence[str], names: Sequence[str]) -> Form | None:
    """The files of a data set of tables in the first of its folders that is below a data root; None: there is none.

    Raises:
        DataMissing: The folder is there, and one of the files is not.
    """
    folder = find(folders, root)
    if folder is None:
        return None
    for name in names:
        if not is_file(folder / name):
            raise DataMissing(f"{shown(folder / name)} is not there")
    suffix = names[0].rpartition(".")[2]
    return Form(name=suffix, files=tuple(folder / name for name in names))


def read(path: Path, layout: Layout, *, columns: Sequence[str] | None = None, quotes: bool = True) -> Table:
    """Reads a whole file. See `rows`."""
    names: dict[str, None] = {}
    found, lines = [], []
    for line, row in rows(path, layout, columns=columns, quotes=quotes):
        names |= dict.fromkeys(row)
        found.append(row)
        lines.append(line)
    return Table(shown(path), tuple(names), found, lines)


def rows(
    path: Path, layout: Layout, *, columns: Sequence[str] | None = None, quotes: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """Reads a file row by row, as long as the caller wants more.

    Args:
        path: The file.
        layout: What is in it.
        columns: Names of the columns of CSV or TSV without a first row of names.
        quotes: Whether ``"`` encloses cells of CSV or TSV.

    Yields:
        The line in which a row begins, from 1, and its cells by column.

    Raises:
        DataMissing: The file is absent, is no UTF-8, holds no rows, or a row is not as the others.
    """
    name, line = shown(path), 0
    with io.TextIOWrapper(opened(path, most=MOST), encoding="utf-8-sig", newline="") as file:
        try:
            for line, row in _json(file, name) if layout == "jsonl" else _cells(file, name, layout, columns, quotes):
                yield line, row
        except UnicodeDecodeError as error:
            place = f"from line {line} on" if line else "its first lines"
            raise DataMissing(f"{name}: {place} there are bytes that are not UTF-8", hint="save it as UTF-8") from error
        except OSError as error:
            raise cannot_read(path, error) from error
    if not line:
        raise DataMissing(f"{name} holds no rows", hint="give a file with texts")


def _cells(
    file: TextIO, name: str, layout: Layout, columns: Sequence[str] | None, quotes: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(
        file,
        delimiter="," if layout == "csv" else "\t",
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
    )
    enclosed = 'a cell that holds the separator, a quote or a line break is enclosed in "...", a quote in it doubled'
    hint = enclosed if quotes else None
    ends = 0
    while True:
        limit = csv.field_size_limit(LONGEST)  # of the whole process: others find it as it was
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataMissing(f"{name}: line {ends + 1}: {error}", hint=hint) from error
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        line, ends = ends + 1, reader.line_num
        if not cells:
            continue  # an empty line
        if columns is None:
            columns = cells
            if len(set(cells)) < len(cells) or "" in cells:
                raise DataMissing(
                    f"{name}: the first row is {', '.join(cells)}: these are not different names of columns"
                )
            continue
        if len(cells) != len(columns):
            raise DataMissing(
                f"{name}: line {line} has {len(cells)} cells instead of {len(columns)} ({', '.join(columns)})",
                hint=hint,
            )
        yield line, dict(zip(columns, cells, strict=True))


def _json(file: TextIO, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataMissing(f"{name}: line {line} is not JSON: {error}", hint="one object a line") from error
        if not isinstance(row, dict):
            raise DataMissing(f"{name}: line {line} is not a JSON object", hint='e.g. {"text": "...", "label": "..."}')
        yield line, {key: _text(value) for key, value in row.items()}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def column(table: Table, field: str, name: str) -> list[str]:
    """The cells of a column.

    Args:
        table: The rows.
        field: Option that names the column, for the message.
        name: The column.

    Raises:
        ValueError: There is no such column: a mistake in the option.
        DataMissing: A row lacks it.
    """
    if name not in table.columns:
        raise ValueError(f"{field}: {table.path} has no column {name!r}; it has {', '.join(table.columns)}")
    for line, row in zip(table.lines, table.rows, strict=True):
        if name not in row:
            raise DataMissing(f"{table.path}: line {line} has no `{name}`", hint="every row has the same fields")
    return [row[name] for row in table.rows]
