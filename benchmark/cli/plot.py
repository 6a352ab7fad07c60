"""``bench plot KIND``: a figure of all records below a folder, at the width it has on paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark import filtering
from benchmark.cli import leaderboard, terminal
from benchmark.errors import EXIT_OK, UsageError
from benchmark.files import check_file, replace_file, user_path

if TYPE_CHECKING:
    from benchmark.records import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("kind", help="what to draw: `bench list plots`")
    leaderboard.add_filters(parser)
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="NAME",
        help="only these rows of tables, by label, method or pattern, e.g. 'l2p*'; controls too",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the plot, e.g. cost=seconds of pareto (`bench info pareto` lists them); repeatable",
    )
    parser.add_argument(
        "--width",
        default="double",
        metavar="WIDTH",
        help="on paper: single (8.4 cm, one column of two), double (default, 17.4 cm, the page), or a number of cm",
    )
    parser.add_argument(
        "-o", "--output", type=user_path, required=True, metavar="FILE", help="ends in .png, .pdf, .svg or .pgf"
    )


def run(args: argparse.Namespace) -> int:
    """Draws the figure; no display is needed.

    Raises:
        UsageError: Unknown kind, format, option, folder or filter; or these records cannot be drawn so.
        PluginError: The plugin fails.
        DataMissing: Predictions are damaged, or not those of the record.
    """
    from benchmark import figures, registry
    from benchmark.config import parse_assignments

    suffix = args.output.suffix.lower()
    if suffix not in figures.FORMATS:
        allowed = ", ".join(figures.FORMATS)
        raise UsageError(f"-o {args.output}: no format of figures", hint=f"end the name in {allowed}")
    check_file(args.output, "--output")
    width = figures.width_of(args.width, where="--width")
    registry.load_plot(args.kind)  # a name that is none is told before records are read
    records, methods = leaderboard.read(args)
    if methods:
        records = [run for run in records if run.method.control or filtering.names_of(run) & set(methods)]
    if patterns := leaderboard.names_in(args.rows):
        records = _of_rows(records, patterns)
    figure = figures.draw(
        args.kind,
        records,
        options=parse_assignments(args.set),
        origin="--set",
        width=width,
        predictions=leaderboard.kept(args.results),
    )
    replace_file(args.output, figures.encode(figure, suffix))
    terminal.say(f"wrote {args.output}")
    return EXIT_OK


def _of_rows(records: Sequence[Record], patterns: Sequence[str]) -> list[Record]:
    """The finished runs of some rows of the tables.

    Raises:
        UsageError: No row is called so.
    """
    from benchmark.errors import did_you_mean
    from benchmark.leaderboard.arrangement import matches
    from benchmark.leaderboard.scores import boards_of

    rows = [row for board in boards_of(records) for row in board.rows]
    known = {name for row in rows for name in row.names}
    for pattern in patterns:
        if not matches(pattern, known):
            raise did_you_mean("row in these tables", pattern, known)
    return [run for row in rows if any(matches(pattern, row.names) for pattern in patterns) for run in row.runs]
