"""Markdown with pipe tables, as GitHub renders it."""

from __future__ import annotations

import re

from benchmark import ExporterSpec, hookimpl
from benchmark.tables import Cell, Column, Table, one_line

# Everything that starts markup inside a line; brackets alone do not ("[80.1, 82.3]").
_SPECIAL = re.compile(r"[\\`*_{}<>#|~$]|(?<=\])\(")
# What GitHub makes a link of by itself; an escape does not prevent it, an empty comment does.
_LINK = re.compile(r"(?i)(?:https?|ftp|mailto|xmpp)(?=:)|www(?=\.)|(?<=[\w.+-])(?=@[\w\\-]+\.\w)")


def export(tables: list[Table]) -> str:
    """Returns a section per table; the heading levels fit below a document's title."""
    return "\n".join(_section(table) for table in tables)


def escape(text: str) -> str:
    """Escapes a text for use inside a line or a cell."""
    escaped = _SPECIAL.sub(lambda found: "\\" + found.group(), one_line(text).replace("&", "&amp;"))
    return _LINK.sub(lambda found: found.group() + "<!-- -->", escaped)


def _section(table: Table) -> str:
    lines = [f"## {escape(table.title)}", ""]
    lines.append(_line([escape(column.title) for column in table.columns]))
    lines.append(_line([_rule(column) for column in table.columns]))
    lines += [_line([_cell(cell) for cell in row.cells]) for row in table.rows]
    lines += ["", escape(table.caption)]
    if table.footnotes:
        lines.append("")
        lines += [
            f"- <sup>{escape(mark)}</sup> {escape(text)}" if mark else f"- {escape(text)}"
            for mark, text in table.footnotes
        ]
    return "\n".join(lines) + "\n"


def _line(parts: list[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def _rule(column: Column) -> str:
    return "---:" if column.align == "right" else ":---"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.bold and text:
        text = f"**{text}**"
    return text + (f"<sup>{escape(','.join(cell.marks))}</sup>" if cell.marks else "")


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    """Registers the format."""
    return [ExporterSpec(name="markdown", export=export, summary="pipe tables for GitHub", suffix=".md")]
