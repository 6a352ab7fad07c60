"""``bench verify``: recomputes every number of a bundle (`bench bundle`) from the predictions in it."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli import bundle, leaderboard, terminal
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.records import Record
    from benchmark.records.bundles import Manifest
    from benchmark.tables import Table

MOST_SHOWN = 20  # of what differs
NO_BUNDLE = "give the path of a zip file that `bench bundle --results DIR -o FILE` has written, whole"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("bundle", type=user_path, metavar="BUNDLE", help="a zip file of `bench bundle`")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints what was checked; says on stderr what differs.

    Returns:
        0, or 1 if something differs.

    Raises:
        DataMissing: No such file, or it is no bundle.
    """
    from benchmark.errors import EXIT_FAILED, EXIT_OK, DataMissing
    from benchmark.readers.unpack import unpack
    from benchmark.records import bundles

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "bundle")
        try:
            unpack(args.bundle, folder)
            manifest = bundles.read(folder)
        except DataMissing as error:
            raise DataMissing(error.message, hint=error.hint or NO_BUNDLE) from error
        wrong = {"files": bundles.wrong_files(folder, manifest)}
        located, wrong["records"] = _read(folder)
        recomputed, wrong["numbers"] = _recompute(folder, located, manifest)
        wrong["locks"] = _locks(folder, located, manifest)
        same_program, wrong["tables"] = _tables(folder, located, manifest)
    counts = {
        "files": len(manifest.files),
        "records": len(located),
        "numbers": recomputed,
        "locks": len({run.scenario.lock for run in located.values()} - {""}) - len(manifest.no_lock),
        "tables": len(manifest.exporters),
    }
    unproven = len(manifest.no_predictions)
    failed = any(wrong.values())
    if args.json:
        told = {"checked": counts, "without_predictions": manifest.no_predictions, "differences": wrong}
        terminal.show(json.dumps({"verified": not failed, "adaptbench": manifest.adaptbench, **told}, indent=1))
    else:
        for what, number in counts.items():
            terminal.show(f"{what:<8} {number:>6,} checked, {len(wrong[what])} wrong")
    for line in [line for lines in wrong.values() for line in lines][:MOST_SHOWN]:
        terminal.say(f"differs: {line}")
    if unproven:
        terminal.say(f"warning: runs without predictions: {unproven}; their numbers rest on the records alone")
    for reason in manifest.no_lock.values():
        terminal.say(f"warning: {reason}")
    if not same_program:
        terminal.say(
            f"warning: the tables were rendered by adaptbench {manifest.adaptbench}, which may lay them out otherwise: "
            "the numbers were compared, not the bytes"
        )
    terminal.say("NOT verified" if failed else "verified")
    return EXIT_FAILED if failed else EXIT_OK


def _read(folder: Path) -> tuple[dict[str, Record], list[str]]:
    from benchmark import records
    from benchmark.records import bundles

    if not (folder / bundles.RECORDS).is_dir():
        return {}, ["it holds no records"]
    located, problems = records.locate(folder / bundles.RECORDS)
    return located, [problem.message.replace(f"{folder}/", "") for problem in problems]


def _recompute(folder: Path, located: dict[str, Record], manifest: Manifest) -> tuple[int, list[str]]:
    """How many numbers were recomputed from predictions, and those that differ."""
    from benchmark.errors import BenchError
    from benchmark.run.recomputation import recompute

    done, told = 0, []
    for text, record in located.items():
        where = Path(text).relative_to(folder).as_posix()
        try:
            again = recompute(Path(text), record)
        except BenchError as error:
            told.append(error.message.replace(f"{folder}/", ""))
            continue
        told += [line.replace(f"{folder}/", "") for line in again.damage]
        told += [
            f"{where}: {name} is {recorded} in the record, but {value} from the {again.source}"
            for name, (recorded, value) in again.differences.items()
        ]
        if again.source != "predictions" and record.run_id not in manifest.no_predictions:
            told.append(f"{where}: no predictions")
        elif again.source == "predictions":
            done += len(again.values) + sum(len(row) for row in record.accuracy)
    return done, told


def _locks(folder: Path, located: dict[str, Record], manifest: Manifest) -> list[str]:
    """What is wrong with the lock files: edited, missing, or of no record."""
    from benchmark import locks
    from benchmark.errors import BenchError
    from benchmark.records import bundles

    told, known = [], {}
    for path in sorted((folder / bundles.LOCKS).glob("*.json")):
        try:
            known[locks.read(path).id] = path.name
        except BenchError as error:
            told.append(error.message.replace(f"{folder}/", ""))
    wanted = {run.scenario.lock for run in located.values()} - {""} - manifest.no_lock.keys()
    told += [f"no lock file of {name}" for name in sorted(wanted - known.keys())]
    told += [f"{known[name]} is the lock of no record" for name in sorted(known.keys() - wanted)]
    return told


def _tables(folder: Path, located: dict[str, Record], manifest: Manifest) -> tuple[bool, list[str]]:
    """Whether this program is the one that rendered the tables, and how they differ from what the records give."""
    import benchmark
    from benchmark import registry
    from benchmark.records import bundles

    same = manifest.adaptbench == benchmark.__version__
    known = registry.names("exporters")
    told, rendered = list[str](), {}
    for track, tables in bundle.tables_of(located, manifest.methods).items():
        file = f"{track}{bundle.NUMBERS}"
        told += [f"tables/{file}: {line}" for line in _numbers(folder / bundles.TABLES / file, tables)]
        for name in sorted(set(manifest.exporters.values()) & set(known)):
            rendered[f"{track}{registry.load_exporter(name).suffix}"] = leaderboard.renderer(name, to_file=True)(tables)
    for file, exporter in sorted(manifest.exporters.items()):
        path = folder / bundles.TABLES / file
        if exporter not in known:
            told.append(f"tables/{file}: there is no exporter `{exporter}` here")
        elif file not in rendered:
            told.append(f"tables/{file}: the records give no such table")
        elif same and path.is_file() and path.read_bytes() != rendered[file].encode():
            told.append(f"tables/{file}: not what the records give")
    return same, told


def _numbers(path: Path, tables: list[Table]) -> Iterator[str]:
    """Runs and numbers of tables that differ; what only one of two versions tabulates is passed over."""
    from benchmark.run.recomputation import equal

    try:
        old = json.loads(path.read_text("utf-8"))
        if not (isinstance(old, dict) and all(isinstance(run, dict) for run in old.values())):
            raise ValueError("no table of runs")
    except (OSError, ValueError) as error:
        yield f"cannot be read: {error}".replace(f"{path}", path.name)
        return
    new = bundle.numbers_of(tables)
    yield from (f"run {name} is not in both" for name in sorted(old.keys() ^ new.keys()))
    for name in sorted(old.keys() & new.keys()):
        for column in sorted(old[name].keys() & new[name].keys()):
            there, here = old[name][column], new[name][column]
            if isinstance(there, (int, float)) and isinstance(here, (int, float)) and not equal(there, here):
                yield f"run {name}: {column} is {there}, but the record gives {here}"
