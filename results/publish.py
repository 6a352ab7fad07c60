"""Renders everything that is derived from the records: the leaderboards, and what ``bench info`` says of our runs.

    python results/publish.py

writes ``results/leaderboards/<track>.{md,csv,tex,html}``, ``results/comparisons/*.txt`` (what ``bench compare`` says of
the best rows) and ``benchmark/published/measured.csv``. The same records give the same bytes; a test fails while a file
is stale.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark import records, registry
from benchmark.files import replace_file
from benchmark.leaderboard import HEADLINE, Table, compared, comparison, leaderboard, scores
from benchmark.leaderboard.arrangement import View, arranged
from benchmark.metrics.statistics import summarize
from benchmark.scenario_names import base_of

HERE = Path(__file__).parent
MEASURED = HERE.parent / "benchmark" / "published" / "measured.csv"
PAGE = View(split=12)  # what a page of LaTeX takes
FORMATS = ("markdown", "csv", "latex", "html")
BEST = {
    "split-glyphs": 10,
    "glyph-domains": 10,
    "glyphs-uda": 5,
    "glyphs-dg": 5,
    "glyphs-few-shot/16": 5,
    "corrupted-glyphs/continual": 5,
}
"""How many rows of a table on nano are compared, the best ones."""
STREAMS = ("split-mnist", "split-cifar10", "split-cifar100", "corrupted-cifar10", "rotated-mnist", "pacs")
RANKED = ("joint", "nearest-mean", "l2p", "vpt-deep", "finetune")
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
            shown = arranged(tables, PAGE) if name == "latex" else tables
            yield HERE / "leaderboards" / f"{track}{exporter.suffix}", exporter.export(shown)
    yield MEASURED, measured(everything)
    for scenario, count in BEST.items():
        yield HERE / "comparisons" / f"{scenario.replace('/', '-')}.txt", best_rows(found, scenario, count)
    yield HERE / "comparisons" / "mini.txt", over_scenarios(found)


def best_rows(found: Sequence[records.Record], scenario: str, count: int) -> str:
    """The best rows of a table on nano that are no upper bounds, every one against every other.

    Where other weights make a second table, it is the larger one.
    """
    runs = [run for run in found if scenario in (run.scenario.name, base_of(run.scenario.name)) and run.track == "nano"]
    board = max(scores.boards_of(runs), key=lambda one: len(one.rows))
    rows = [row for row in board.rows if row.group != "upper bound"]
    rows = sorted(rows, key=lambda row: -sum(row.values.values()) / len(row.values))[:count]
    # Predictions are not in the repository: nothing is said over test samples.
    pairs = comparison.compare(rows, lambda run: None)
    return "\n".join(compared.of_board(board, rows, pairs)) + "\n"


def over_scenarios(found: Sequence[records.Record]) -> str:
    """Ranks over six streams of real images on mini."""
    runs = [run for run in found if base_of(run.scenario.name) in STREAMS and run.track == "mini"]
    chosen = [(board, comparison.choose(board, RANKED)) for board in scores.boards_of(runs)]
    ranks = comparison.rank(chosen, RANKED)
    if ranks is None:
        raise SystemExit("no two streams have all methods that are ranked")
    return "\n".join(compared.of_ranks(ranks)) + "\n"


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
