"""Checks that every exporter must pass: no text of a record may become markup, a formula or a command of a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

from benchmark.tables import Cell, Column, Row, Scalar, Table, starts_formula
from benchmark.testing.observation import CheckFailed
from benchmark.testing.subjects import ExporterSubject

STRANGE = "_ & % # $ { } ~ ^ \\ < > \" ' | é – ∞ =1+1\n second line"


def nothing(subject: ExporterSubject) -> None:
    """No table, and a table without rows, give text."""
    column = Column("method", "Method", "left")
    for tables in ([], [Table("t", "c", (column,), ())]):
        if not isinstance(found := subject.spec.export(tables), str):
            raise CheckFailed(f"`export` returned a {type(found).__name__}", hint="return text")


def strange(subject: ExporterSubject) -> None:
    """Characters that mean something to the format, empty cells and missing numbers do no harm."""
    found = subject.spec.export([_strange_table()])
    if not isinstance(found, str) or not found.strip():
        raise CheckFailed("nothing was written")


UNSEEN = "\x00\x1b[31m\x07\x85\u200b\u202e\u2066\ufeff"
ACTIVE = {
    ".html": ("<script>",),
    ".md": ("<script>", "[x](javascript:", "a | b"),
    ".tex": ("\\input{", "$\\write"),
}
"""What must not reach a file of that suffix as it stands."""


def escapes(subject: ExporterSubject) -> None:
    """No text becomes markup, a formula or a command; what nobody sees is left out or shown as a code."""
    active = ACTIVE.get(subject.spec.suffix, ())
    texts = [
        f"{before}{text} x" for text in (*active, "=1+1", "＝1+1", "@SUM(1)") for before in ("", " ", "\xa0\ufeff")
    ]
    rows = tuple(Row((Cell(f"{text}{UNSEEN}", text),)) for text in texts)
    runs: tuple[Mapping[str, Scalar], ...] = tuple({"method": f"{text}{UNSEEN}"} for text in texts)
    mark = (("", f"{UNSEEN}{' '.join(active)}"),)
    found = subject.spec.export([Table("title" + UNSEEN, "c", (Column("m", "M", "left"),), rows, mark, runs)])
    if raw := sorted({char for char in UNSEEN if not char.isprintable() and char in found}):
        shown = ", ".join(f"U+{ord(char):04X}" for char in raw)
        raise CheckFailed(
            f"characters that nobody sees, or that steer a terminal, are written as they are: {shown}",
            hint="take texts through `benchmark.tables.one_line` first",
        )
    if raw := [text for text in active if text in found]:
        raise CheckFailed(f"texts become markup: {', '.join(raw)}", hint=f"escape them for {subject.spec.suffix}")
    if subject.spec.suffix in (".csv", ".tsv"):
        between = "\t" if subject.spec.suffix == ".tsv" else ","
        for line in csv.reader(io.StringIO(found, newline=""), delimiter=between):
            if bad := [field for field in line if starts_formula(field)]:
                raise CheckFailed(
                    f"a spreadsheet takes {bad[0]!r} for a formula",
                    hint="see `benchmark.tables.starts_formula`; an apostrophe in front helps",
                )


def pure(subject: ExporterSubject) -> None:
    """The same tables give the same text."""
    if subject.spec.export([_strange_table()]) != subject.spec.export([_strange_table()]):
        raise CheckFailed("two exports of one table differ", hint="write no date and no random names")


def _strange_table() -> Table:
    columns = (Column("method", "Method", "left"), Column("acc", f"Accuracy [%] {STRANGE}"))
    rows = (
        Row((Cell(STRANGE, STRANGE), Cell("12.34", 0.1234, bold=True, marks=("a",)))),
        Row((Cell(""), Cell("–", None)), group="controls"),
    )
    runs: tuple[Mapping[str, Scalar], ...] = ({"method": STRANGE, "final": 0.1234}, {"method": "", "final": None})
    return Table("a table", STRANGE, columns, rows, footnotes=(("a", STRANGE), ("", STRANGE)), runs=runs)


EXPORTER_CHECKS: dict[str, Callable[[ExporterSubject], None]] = {
    "nothing": nothing,
    "strange": strange,
    "escapes": escapes,
    "pure": pure,
}
