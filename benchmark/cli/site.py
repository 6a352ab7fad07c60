"""``bench site -o DIR``: static pages of all records below a folder, opened from a file, without server or network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmark import filtering
from benchmark.cli import leaderboard, terminal
from benchmark.errors import EXIT_OK, BenchError, DataMissing, did_you_mean, plain
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.records import Record
    from benchmark.site.scenarios import Look, Samples

MOST = 30  # characters of what is being made, on the line of progress
NO_PLOTS = "none"
COLOURS = 256  # of pictures of samples: files a third as large


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    leaderboard.add_filters(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=user_path,
        required=True,
        metavar="DIR",
        help="a new or empty folder, or a site that was made before: what is stale in it is removed",
    )
    parser.add_argument("--title", default="Results", metavar="TEXT", help="of the site (default: Results)")
    parser.add_argument(
        "--only-used", action="store_true", help="no pages of installed methods and scenarios without a record"
    )
    parser.add_argument(
        "--plot",
        action="append",
        default=[],
        metavar="KIND",
        help="figures of each table instead of the usual ones: `bench list plots`; none: no figures",
    )
    parser.add_argument("--no-samples", action="store_true", help="no images and texts of scenarios, so read no data")
    parser.add_argument("--no-records", action="store_true", help="leave the records out; pages do not link to them")
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets, for samples (BENCH_DATA)")


def run(args: argparse.Namespace) -> int:
    """Writes the site.

    Raises:
        UsageError: Unknown folder, filter or plot; the folder holds something else; or there is no record.
        RunFailed: A file cannot be written.
    """
    from tqdm import tqdm

    from benchmark.records import imported, predictions
    from benchmark.site import build, plots

    build.check(args.output, "--output")
    kinds = _kinds(leaderboard.split(args.plot), plots.OF_TABLES)
    theirs, problems = imported.read_all(args.results)
    for problem in problems:
        terminal.say(f"warning: {problem.message}; skipped")
    names = {name: leaderboard.split(getattr(args, name)) for name in ("scenario", "track", "method")}
    theirs = filtering.imported(theirs, scenarios=names["scenario"], tracks=names["track"], methods=names["method"])
    located, methods = leaderboard.locate(args, needed=not theirs)
    places = {id(record): Path(path) for path, record in located.items()}
    # To stderr, and silent where that is no terminal.
    with tqdm(disable=True if args.quiet else None, unit="page", leave=False) as line:

        def step(part: str, parts: int) -> None:
            line.total = parts
            line.set_description(plain(part)[:MOST])
            line.update()

        def report(text: str) -> None:
            line.clear()
            terminal.say(f"warning: {text}; left out")

        request = build.Request(
            records=list(located.values()),
            imported=theirs,
            methods=methods,
            title=args.title,
            installed=not args.only_used,
            kinds=kinds,
            linked=not args.no_records,
            look=None if args.no_samples else _look(args.data_root),
            predictions=lambda record: predictions.beside(places[id(record)], record),
            report=report,
            step=step,
        )
        written = build.write(args.output, build.build(request))
    terminal.say(f"wrote {args.output} ({written:,} files); open {args.output / 'index.html'} in a browser")
    return EXIT_OK


def _kinds(asked: Sequence[str], usual: Sequence[str]) -> Sequence[str]:
    """The plots that are asked for.

    Raises:
        UsageError: There is no such plot.
    """
    from benchmark import registry

    known = registry.names("plots")
    for name in asked:
        if name not in (*known, NO_PLOTS):
            raise did_you_mean("plot", name, [*known, NO_PLOTS], more="bench list plots")
    return [name for name in asked if name != NO_PLOTS] if asked else usual


def _look(data_root: Path | None) -> Look:
    """Builds scenarios as records had them, to see samples of them. Nothing is downloaded."""
    from benchmark import data, registry
    from benchmark.cli import contact_sheet, text_sheet
    from benchmark.config import Layer
    from benchmark.run import plan, preparation
    from benchmark.scenario_names import ScenarioName
    from benchmark.site.scenarios import Samples
    from benchmark.specs import ScenarioSpec

    def look(record: Record) -> Samples:
        name = record.scenario.name
        asked = ScenarioName.parse(name)
        if asked.tag:
            return Samples(scenario=name, problem="these are data of somebody's own, and records do not say where")
        if asked.base not in registry.names("scenarios"):
            return Samples(scenario=name, problem="its plugin is not installed")
        places = {"data_root": data_root, "cache": data.cache_root(), "download": "never", "tag": ""}
        try:
            loaded = registry.load_scenario(asked.base)
            layers = [Layer("record", record.scenario.options)]
            options, _ = plan.resolve_scenario(cast("ScenarioSpec", loaded.spec), "", layers)
            scenario = preparation.make_scenario(loaded, options, places, seed=record.seeds.class_order)
            if scenario.kind == "image":
                return Samples(scenario=name, picture=contact_sheet.png(scenario, colours=COLOURS))
            return Samples(scenario=name, text=text_sheet.markdown(scenario))
        except DataMissing:
            # Not its message, which names places on this machine.
            return Samples(scenario=name, problem="its data were not here when the site was made (`bench data list`)")
        except BenchError as error:
            terminal.say(f"warning: no samples of {name}: {error.message}")
            return Samples(scenario=name, problem="this version of the scenario cannot be built as the record has it")

    return look
