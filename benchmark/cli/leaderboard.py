"""``bench leaderboard``: tables of all records below a folder."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmark import filtering
from benchmark.cli import equal_cost, terminal
from benchmark.files import check_file, user_path

if TYPE_CHECKING:
    from benchmark.leaderboard import Table
    from benchmark.records import Record
    from benchmark.records.predictions import Predictions

NARROW = 8  # columns of a part of a wide table, beside the first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add_filters(parser)
    parser.add_argument(
        "--format", default=None, metavar="NAME", help="table (default) or an exporter: `bench list exporters`"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help="write to a file instead of stdout")
    equal_cost.add_arguments(parser)
    look = parser.add_argument_group("for papers")
    look.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="NAME",
        help="only these, in this order, by key or heading or pattern, e.g. final_avg_acc,'variant *'; csv has all",
    )
    look.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="NAME",
        help="only these, by label, method or pattern, e.g. 'l2p*'",
    )
    look.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="another name of a row, a method or a column"
    )
    look.add_argument("--display-names", action="store_true", help="methods by the names of people: L2P, DualPrompt")
    look.add_argument(
        "--caption", choices=("full", "short"), default="full", help="short: one sentence, notes on single rows alone"
    )
    look.add_argument("--transpose", action="store_true", help="rows become columns")
    look.add_argument(
        "--split",
        type=int,
        nargs="?",
        const=NARROW,
        default=0,
        metavar="N",
        help=f"wide tables in parts of N columns beside the first (default {NARROW})",
    )
    look.add_argument(
        "--over-samples",
        choices=("wilson", "bootstrap"),
        help="accuracies with 95 %% intervals over test samples; bootstrap needs the predictions beside the records",
    )
    look.add_argument("--bib", type=user_path, metavar="FILE", help="write the BibTeX entries of the methods shown")


def add_filters(parser: argparse.ArgumentParser, *, methods: bool = True) -> None:
    """Adds the options that choose records (`read`), by method only where that is wanted."""
    parser.set_defaults(method=[])
    parser.add_argument(
        "--results", type=user_path, default=Path("runs"), metavar="DIR", help="folder with records (default: runs)"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME",
        help="only these, e.g. split-cifar100 or name/variant",
    )
    parser.add_argument("--track", action="append", default=[], metavar="NAME", help="only these tracks")
    if methods:
        help_text = "only these beside the controls, e.g. l2p@pilot"
        parser.add_argument("--method", action="append", default=[], metavar="NAME", help=help_text)


def run(args: argparse.Namespace) -> int:
    """Prints or writes the tables.

    Raises:
        UsageError: Unknown format, folder or filter; or there is no record.
    """
    from benchmark import leaderboard
    from benchmark.errors import EXIT_OK
    from benchmark.files import replace_file
    from benchmark.leaderboard import arrangement
    from benchmark.leaderboard.sampling import Sampling
    from benchmark.records import imported

    for name in ("output", "bib"):
        if getattr(args, name) is not None:
            check_file(getattr(args, name), f"--{name}")
    form = "json" if args.json else args.format or "table"
    render = renderer(form, to_file=args.output is not None)
    theirs, problems = imported.read_all(args.results)
    for problem in problems:
        terminal.say(f"warning: {problem.message}; skipped")
    theirs = filtering.imported(
        theirs, scenarios=split(args.scenario), tracks=split(args.track), methods=split(args.method)
    )
    chosen, methods = read(args, needed=not theirs)
    chosen, notes = equal_cost.within(args.budget, chosen)
    sampling = Sampling(args.over_samples, kept(args.results)) if args.over_samples else None
    tabulate = functools.partial(
        leaderboard.leaderboard,
        chosen,
        methods=methods,
        imported=theirs,
        sampling=sampling,
        raw=form != "table" or args.bib is not None,  # an exporter may want everything
    )
    tables = tabulate()
    if not tables:
        terminal.say("warning: all records are of runs on validation data, which no table shows")
    rows, headings = _renamed(args, chosen, tables)
    if rows:
        tables = tabulate(names=rows)
    tables = equal_cost.noted(tables, chosen, notes, args.pareto)
    view = arrangement.View(
        columns=names_in(args.columns),
        rows=names_in(args.rows),
        headings=headings,
        caption=args.caption,
        transpose=args.transpose,
        split=args.split,
    )
    tables = arrangement.arranged(tables, view)
    if args.bib:
        _write_bibliography(args.bib, chosen, tables)
    text = render(tables)
    if args.output:
        replace_file(args.output, text.encode())
        terminal.say(f"wrote {args.output}")
    else:
        terminal.write(text)
    return EXIT_OK


def names_in(values: Sequence[str]) -> tuple[str, ...]:
    """As `split`; the commas within the brackets of a label, ``coop (augment=true, views=1)``, part nothing."""
    return tuple(name.strip() for value in values for name in re.split(r",(?![^(]*\))", value) if name.strip())


def kept(folder: Path) -> Callable[[Record], Predictions | None]:
    """Reads the predictions of a run below a folder: None where there are none, an error where they are others."""
    from benchmark.records import predictions

    @functools.cache
    def paths() -> dict[str, Path]:
        return {path.name: path for path in folder.rglob("*.parquet")}

    load = functools.lru_cache(maxsize=256)(predictions.read_checked)  # every column of a row asks

    def read(run: Record) -> Predictions | None:
        path = paths().get(run.predictions.file) if run.predictions else None
        return None if run.predictions is None or path is None else load(path, run.predictions.sha256)

    return read


def _renamed(
    args: argparse.Namespace, chosen: Sequence[Record], tables: Sequence[Table]
) -> tuple[dict[str, str], dict[str, str]]:
    """What rows and columns are called instead.

    Raises:
        UsageError: A name is in none of the tables.
    """
    from benchmark.config import parse_assignments
    from benchmark.errors import did_you_mean

    methods = {run.method.name for run in chosen}
    rows = {name: display for name in methods if (display := _display(name))} if args.display_names else {}
    headings = {}
    known = {row.cells[0].text for table in tables for row in table.rows}
    known |= {label.partition(" (")[0] for label in known} | methods
    columns = {name for table in tables for column in table.columns for name in (column.key, column.title)}
    for old, new in parse_assignments(args.rename, option="--rename").items():
        if old in known:
            rows[old] = new
        elif old in columns:
            headings[old] = new
        else:
            raise did_you_mean("row or column in these tables", old, sorted(known | columns))
    return rows, headings


def _display(method: str) -> str:
    """What people call a method; empty where nobody says so. Its plugin is asked where it is no name that we know."""
    from benchmark.leaderboard import published

    return published.names().get(method) or _brought(method, "display")


def _brought(method: str, what: str) -> str:
    """A text of a method's spec; empty where its plugin is not installed."""
    from benchmark import registry
    from benchmark.specs import MethodSpec

    if method not in registry.names("methods"):
        return ""
    spec = cast("MethodSpec", registry.load_method(method).spec)
    return str(getattr(spec, what))


def _write_bibliography(path: Path, chosen: Sequence[Record], tables: Sequence[Table]) -> None:
    """The entries of the methods whose runs are in the tables."""
    from benchmark.files import replace_file
    from benchmark.leaderboard import bibliography, published

    shown = {run.get("method") for table in tables for run in table.runs}
    papers = bibliography.papers_of(run for run in chosen if run.method.name in shown)
    unknown = [method for method, paper in papers.items() if not published.paper(paper)]
    text, without = bibliography.bibtex(papers, {method: _brought(method, "bibtex") for method in unknown})
    replace_file(path, text.encode())
    terminal.say(f"wrote {path}" + (f"; no paper is known of {', '.join(sorted(without))}" if without else ""))


def read(args: argparse.Namespace, *, needed: bool = True) -> tuple[list[Record], list[str]]:
    """The records that the filters choose; what cannot be read is told and skipped.

    Args:
        args: Of the command.
        needed: Whether there must be some.

    Returns:
        Records of the scenarios and tracks, and the methods that are asked for (none: all).

    Raises:
        UsageError: Unknown folder or filter; or there is no record.
    """
    located, methods = locate(args, needed=needed)
    return list(located.values()), methods


def locate(args: argparse.Namespace, *, needed: bool = True) -> tuple[dict[str, Record], list[str]]:
    """As `read`, with the path of every record.

    Raises:
        UsageError: Unknown folder or filter; or there is no record.
    """
    from benchmark import records
    from benchmark.errors import UsageError

    found, problems = records.locate(args.results)
    for problem in problems:
        terminal.say(f"warning: {problem.message}; skipped")
    if not found and not needed:
        return {}, []
    if not found:
        raise UsageError(f"no records in {args.results}", hint="`bench run` makes some; or give --results DIR")
    chosen, methods = filtering.chosen(found, split(args.scenario), split(args.track)), split(args.method)
    filtering.check_methods(chosen.values(), methods)
    return chosen, methods


def split(values: Sequence[str]) -> list[str]:
    """``--method a,b --method c`` means a, b and c."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def renderer(name: str, *, to_file: bool) -> Callable[[list[Table]], str]:
    """What turns tables into text: ``table``, or an exporter, whose answers are checked.

    Args:
        name: Of the format.
        to_file: Whether the text goes into a file, which has no width.

    Raises:
        UsageError: There is no such format.
    """
    from benchmark import exporting
    from benchmark.tables import render_text

    if name == "table":
        width = terminal.width() if terminal.is_terminal() and not to_file else None
        return functools.partial(render_text, width=width)
    return exporting.exporter(name, others=("table",))
