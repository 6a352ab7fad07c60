"""toy-rst: tables as reStructuredText."""

from __future__ import annotations

import re

from benchmark import ExporterSpec, hookimpl
from benchmark.tables import Table, one_line


def escape(text: str) -> str:
    return re.sub(r"[\\`*_|<>]", lambda found: "\\" + found.group(), one_line(text))


def to_rst(tables: list[Table]) -> str:
    parts = []
    for table in tables:
        lines = [f".. list-table:: {escape(table.title)}", "   :header-rows: 1", ""]
        rows = [[column.title for column in table.columns], *([cell.text for cell in row.cells] for row in table.rows)]
        for row in rows:
            lines += [f"   {'* -' if place == 0 else '  -'} {escape(text)}" for place, text in enumerate(row)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    return [ExporterSpec(name="toy-rst", export=to_rst, summary="reStructuredText", suffix=".rst")]
