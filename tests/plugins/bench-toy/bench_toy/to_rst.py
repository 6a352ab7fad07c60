"""toy-rst: tables as reStructuredText."""

from __future__ import annotations

from benchmark import ExporterSpec, hookimpl
from benchmark.tables import Table, one_line


def to_rst(tables: list[Table]) -> str:
    parts = []
    for table in tables:
        lines = [f".. list-table:: {one_line(table.title)}", "   :header-rows: 1", ""]
        rows = [[column.title for column in table.columns], *([cell.text for cell in row.cells] for row in table.rows)]
        for row in rows:
            lines += [f"   {'* -' if place == 0 else '  -'} {one_line(text)}" for place, text in enumerate(row)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    return [ExporterSpec(name="toy-rst", export=to_rst, summary="reStructuredText", suffix=".rst")]
