"""HTML: one self-contained page without scripts or outside resources."""

from __future__ import annotations

import html

from benchmark import ExporterSpec, hookimpl
from benchmark.tables import Cell, Row, Table, one_line

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; margin: 1em 0; }
th, td { padding: .2em .7em; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid; }
.left { text-align: left; }
tr.first td { border-top: 1px solid #aaa; }
.notes { font-size: 90%; max-width: 60em; }
.scroll { overflow-x: auto; }
"""


def export(tables: list[Table]) -> str:
    """Returns a whole document."""
    body = "\n".join(_section(table) for table in tables)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Leaderboard</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Escapes a text for element content and attributes."""
    return html.escape(one_line(text))


def _section(table: Table) -> str:
    sides = [' class="left"' if column.align == "left" else "" for column in table.columns]
    head = "".join(f"<th{side}>{escape(column.title)}</th>" for side, column in zip(sides, table.columns, strict=True))
    rows, previous = [], None
    for row in table.rows:
        rows.append(_row(row, sides, first=previous is not None and row.group != previous))
        previous = row.group
    notes = [f"<sup>{escape(mark)}</sup> {escape(text)}" if mark else escape(text) for mark, text in table.footnotes]
    listed = "".join(f"<br>\n{note}" for note in notes)
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n<div class="scroll">\n<table>\n<thead><tr>{head}</tr></thead>\n'
        "<tbody>\n" + "".join(f"{row}\n" for row in rows) + "</tbody>\n</table>\n</div>\n"
        f'<p class="notes">{escape(table.caption)}{listed}</p>\n</section>'
    )


def _row(row: Row, sides: list[str], *, first: bool) -> str:
    cells = "".join(f"<td{side}>{_cell(cell)}</td>" for side, cell in zip(sides, row.cells, strict=True))
    return f'<tr class="first">{cells}</tr>' if first else f"<tr>{cells}</tr>"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.bold:
        text = f"<strong>{text}</strong>"
    return text + (f"<sup>{escape(','.join(cell.marks))}</sup>" if cell.marks else "")


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    """Registers the format."""
    return [ExporterSpec(name="html", export=export, summary="one self-contained page", suffix=".html")]
