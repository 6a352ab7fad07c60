"""CSV: one row per run, raw values at full precision, for machines and spreadsheets.

Accuracies are fractions in [0, 1], times are seconds. A text that a spreadsheet would take for a
formula (`benchmark.tables.starts_formula`) gets a leading apostrophe; numbers stay numbers. See OWASP, "CSV
injection". Texts are on one line, without characters that nobody sees.
"""

from __future__ import annotations

import csv
import io

from benchmark import ExporterSpec, hookimpl
from benchmark.tables import Scalar, Table, one_line, starts_formula


def export(tables: list[Table]) -> str:
    """Returns one header and one line per run of all tables; columns in the order of first occurrence."""
    runs = [run for table in tables for run in table.runs]
    names = list(dict.fromkeys(name for run in runs for name in run))
    if not names:
        return ""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_field(name) for name in names])
    for run in runs:
        writer.writerow([_field(run.get(name)) for name in names])
    return buffer.getvalue()


def _field(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    text = one_line(value)
    return f"'{text}" if starts_formula(text) else text


@hookimpl
def bench_register_exporters() -> list[ExporterSpec]:
    """Registers the format."""
    return [ExporterSpec(name="csv", export=export, summary="one row per run, raw values", suffix=".csv")]
