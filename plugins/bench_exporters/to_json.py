"""JSON: tables as they are, with texts, values at full precision, footnotes and raw runs."""

from __future__ import annotations

import json
from dataclasses import asdict

from benchmark import ExporterSpec, hookimpl
from benchmark.records import TABLES_FORMAT
from benchmark.tables import Table


def export(tables: list[Table]) -> str:
    """Returns one JSON document, ``{"format": "adaptbench-tables", "version": 1, "tables": [...]}``."""
    document = {"format": TABLES_FORMAT, "version": 1, "tables": [asdict(table) for table in tables]}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    """Registers the format."""
    return [ExporterSpec(name="json", export=export, summary="tables with their values", suffix=".json")]
