"""``bench bundle``: the records, predictions, locks and tables of a paper in one file that others can check."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import leaderboard, terminal
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.records import Record
    from benchmark.tables import Table

NUMBERS = ".runs.json"
"""Ending of the file with the numbers of a track's tables, which no exporter has laid out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    leaderboard.add_filters(parser)
    parser.add_argument("-o", "--output", type=user_path, required=True, metavar="FILE", help="the zip file to write")
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="NAME",
        help="tables in it: any exporters (default: all, `bench list exporters`)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="pack runs whose predictions are not there too; `bench verify` says that these were not recomputed",
    )
    parser.add_argument(
        "--data-root", type=user_path, metavar="DIR", help="data sets for the locks (default BENCH_DATA)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the bundle.

    Raises:
        UsageError: Unknown folder, filter or format; or there is no record that a table shows.
        DataMissing: Predictions of a run are not there, or are not those of its record.
    """
    import benchmark
    from benchmark import registry
    from benchmark.errors import EXIT_OK, UsageError
    from benchmark.files import check_file
    from benchmark.records import bundles

    check_file(args.output, "-o")
    formats = leaderboard.split(args.format) or registry.names("exporters")
    renderers = {name: leaderboard.renderer(name, to_file=True) for name in dict.fromkeys(formats)}
    located, methods = leaderboard.locate(args)
    by_track = tables_of(located, methods)
    shown = {str(run["run_id"]) for tables in by_track.values() for table in tables for run in table.runs}
    packed = {path: run for path, run in located.items() if run.run_id in shown and run.status == "completed"}
    if not packed:
        raise UsageError(
            f"no finished run in {args.results} that a table shows", hint="`bench leaderboard` shows what there is"
        )
    contents, without = _records(args.results, packed, allow_missing=args.allow_missing)
    locks, no_lock = _locks(packed.values(), args.data_root)
    contents |= {f"{bundles.LOCKS}/{name}": text for name, text in locks.items()}
    exporters = {}
    for track, tables in by_track.items():
        contents[f"{bundles.TABLES}/{track}{NUMBERS}"] = (json.dumps(numbers_of(tables), indent=1) + "\n").encode()
        for name, render in renderers.items():
            file = f"{track}{registry.load_exporter(name).suffix}"
            exporters[file] = name
            contents[f"{bundles.TABLES}/{file}"] = render(tables).encode()
    contents[bundles.ENVIRONMENT] = _environments(packed.values())
    contents["README.md"] = _README.format(version=benchmark.__version__, file=args.output.name).encode()
    bundles.write(
        args.output,
        contents,
        adaptbench=benchmark.__version__,
        methods=methods,
        exporters=exporters,
        no_predictions=without,
        no_lock=no_lock,
    )
    terminal.show(str(args.output))
    left = len(located) - len(packed)
    terminal.say(
        f"runs {len(packed)}, locks {len(locks)}, files of tables {len(exporters)}"
        + (f"; {left} unfinished or on validation data left out" if left else "")
    )
    for reason in no_lock.values():
        terminal.say(f"warning: {reason}")
    return EXIT_OK


def tables_of(located: Mapping[str, Record], methods: list[str]) -> dict[str, list[Table]]:
    """The tables of each track, as `results/` and bundles hold them."""
    from benchmark import leaderboard as boards

    tracks = sorted({run.track for run in located.values()})
    every = {
        track: boards.leaderboard([run for run in located.values() if run.track == track], methods=methods)
        for track in tracks
    }
    return {track: tables for track, tables in every.items() if tables}


def numbers_of(tables: list[Table]) -> dict[str, dict[str, Any]]:
    """Everything that tables hold of each run, by run id."""
    return {str(run["run_id"]): dict(run) for table in tables for run in table.runs}


def _records(
    results: Path, packed: Mapping[str, Record], *, allow_missing: bool
) -> tuple[dict[str, bytes | Path], list[str]]:
    """Files of the bundle, and the runs without predictions."""
    from benchmark.errors import DataMissing
    from benchmark.files import sha256
    from benchmark.records import bundles, predictions

    contents: dict[str, bytes | Path] = {}
    without, gone = [], []
    for text, record in packed.items():
        path = Path(text)
        place = f"{bundles.RECORDS}/{path.relative_to(results).parent.as_posix()}".removesuffix("/.")
        contents[f"{place}/{path.name}"] = path
        try:
            file = predictions.file_of(path, record)
        except ValueError as error:
            raise DataMissing(f"damaged record: {path}: {error}", hint="run it again with --force") from error
        if file is None or not file.is_file():
            without.append(record.run_id)
            gone.append(str(file or path))
        elif sha256(file) != record["predictions"]["sha256"]:
            raise DataMissing(
                f"{file} is not what its record says (sha256)", hint=f"run it again with --force: {path.stem}"
            )
        else:
            contents[f"{place}/{file.name}"] = file
    if without and not allow_missing:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise DataMissing(
            f"no predictions at {gone[0]}{more}: nobody could recompute its numbers",
            hint="run them again with --force, choose with --scenario, --track or --method, or add --allow-missing",
        )
    return contents, sorted(without)


def _locks(packed: Any, data_root: Path | None) -> tuple[dict[str, bytes], dict[str, str]]:
    """Lock files by name, and why others could not be made."""
    from benchmark import data, locks, registry
    from benchmark.config import Layer
    from benchmark.errors import BenchError
    from benchmark.run import locking, plan
    from benchmark.scenario_names import ScenarioName

    wanted: dict[str, Record] = {}
    for record in packed:
        if record.scenario.lock:
            wanted.setdefault(record.scenario.lock, record)
    made, failed = {}, {}
    for name, record in sorted(wanted.items()):
        asked = ScenarioName.parse(record.scenario.name)
        try:
            if asked.tag:
                raise BenchError("these are somebody's own data", hint="")
            loaded = registry.load_scenario(asked.base)
            options, _ = plan.resolve_scenario(loaded.spec, asked.variant, [Layer("record", record.scenario.options)])  # type: ignore[arg-type]
            places = {"data_root": data_root, "cache": data.cache_root(), "download": "never", "tag": ""}
            seed = record.seeds.class_order
            lock = locking.make(loaded, options, places, track=record.track, seed=seed)
            if lock.id != name:
                raise BenchError(f"the data here give {lock.id}", hint="")
        except BenchError as error:
            failed[name] = f"no lock file of {name}: {error.message}"
        else:
            made[f"{name.replace(':', '-')}.json"] = locks.dumps(lock).encode()
    return made, failed


def _environments(packed: Any) -> bytes:
    """What the runs were computed with: every distinct environment with its runs."""
    keys = ("git_commit", "git_dirty", "packages", "python", "platform", "device", "threads", "deterministic")
    found: dict[str, dict[str, Any]] = {}
    for record in packed:
        facts = {key: record["provenance"][key] for key in keys}
        place = found.setdefault(json.dumps(facts, sort_keys=True), {**facts, "runs": []})
        place["runs"].append(record.run_id)
    listed = sorted(found.values(), key=lambda facts: sorted(facts["runs"]))
    for facts in listed:
        facts["runs"].sort()
    return (json.dumps(listed, indent=1) + "\n").encode()


_README = """\
# A bundle of adaptbench

Records, predictions, locks and tables. Made by adaptbench {version}; with it

    pip install adaptbench
    bench verify {file}

recomputes every number of the tables from the predictions, and says what differs.
"""
