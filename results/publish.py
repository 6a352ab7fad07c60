"""Renders everything that is derived from the records: the leaderboards, and what ``bench info`` says of our runs.

    python results/publish.py

writes ``results/leaderboards/<track>.{md,csv,tex,html}`` and ``benchmark/published/measured.csv``. The same
records give the same bytes; a test fails while a file is stale.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark import records, registry
from benchmark.files import replace_file
from benchmark.leaderboard import HEADLINE, Table, leaderboard
from benchmark.metrics.statistics import summarize

HERE = Path(__file__).parent
MEASURED = HERE.parent / "benchmark" / "published" / "measured.csv"
FORMATS = ("markdown", "csv", "latex", "html")
COLUMNS = ("key", "row", "table", "metric", "value", "std", "seeds")


def files() -> Iterator[tuple[Path, str]]:
    """Every derived file with its content."""
    found, problems = records.read_all(HERE / "records")
    if problems:
        raise SystemExit("\n".join(problem.message for problem in problems))
    everything: list[Table] = []
    for track in sorted({run.track for run in found}):
        tables = leaderboard([run for run in found if run.track == track])
        everything += tables
        for name in FORMATS:
            exporter = registry.load_exporter(name)
            yield HERE / "leaderboards" / f"{track}{exporter.suffix}", exporter.export(tables)
    yield MEASURED, measured(everything)


def measured(tables: Sequence[Table]) -> str:
    """Mean and standard deviation over seeds of every row, in percent, as CSV."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for table in tables:
        for run in table.runs:
            if run["status"] == "completed" and isinstance(value := run.get(HEADLINE), float):
                groups.setdefault((str(run["method"]), str(run["row"]), table.title), []).append(value)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, values in sorted(groups.items()):
        summary = summarize(values)
        std = "" if summary.std is None else f"{100 * summary.std:.2f}"
        writer.writerow([*key, HEADLINE, f"{100 * (summary.mean or 0.0):.2f}", std, len(values)])
    return text.getvalue()


if __name__ == "__main__":
    for path, content in files():
        replace_file(path, content.encode())
        print(path.relative_to(HERE.parent))
