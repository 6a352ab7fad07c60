"""``bench run``: several scenarios, methods and seeds, one record each."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import warnings
from collections.abc import Iterator
from typing import Any, Literal

from benchmark.cli import terminal
from benchmark.errors import BenchError, BenchWarning, UsageError, shorten
from benchmark.files import user_path
from benchmark.jobs import MOST_DIGITS, Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    pick = parser.add_argument_group("what to run")
    pick.add_argument(
        "--scenario",
        metavar="NAME[/VARIANT][,...]",
        help="e.g. split-glyphs or split-cifar100/20x5; a family such as glyphs-uda runs all its variants (also /all)",
    )
    pick.add_argument("--method", metavar="NAME[@RECIPE][,...]", help="e.g. l2p,finetune or l2p@pilot")
    pick.add_argument("--seed", metavar="N[,M][,A-B]", help="seeds, e.g. 0 or 0-4 (default 0)")
    pick.add_argument("--class-order-seed", type=_count, metavar="N", help="seed of the class order alone")
    pick.add_argument("--init-seed", type=_count, metavar="N", help="seed of the initialisation alone")
    pick.add_argument("--data-seed", type=_count, metavar="N", help="seed of data order and augmentation alone")
    pick.add_argument("--track", metavar="TRACK", help="nano, mini or paper (default: the scenario's first)")
    pick.add_argument(
        "--backbone",
        metavar="NAME",
        help="e.g. nano-vit, nano-clip, timm:vit_base_patch16_224.augreg_in21k or open_clip:ViT-B-16/openai",
    )
    pick.add_argument(
        "--weights", type=user_path, metavar="FILE", help="your own .safetensors, .npz or .pt weights of the --backbone"
    )
    options = parser.add_argument_group("options of method, scenario and engine")
    options.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="method option, or l2p.KEY, scenario.KEY, engine.KEY; repeatable",
    )
    options.add_argument(
        "--config", type=user_path, metavar="FILE.toml", help="tables [run], [method.NAME], [scenario.NAME], [engine]"
    )
    options.add_argument(
        "--validate",
        type=_count,
        metavar="N",
        help="choose hyper-parameters: first N experiences, tested on held-out training images",
    )
    places = parser.add_argument_group("where")
    places.add_argument("--out", type=user_path, metavar="DIR", help="results folder (default runs)")
    places.add_argument(
        "--data-root", type=user_path, metavar="DIR", help="data sets (default BENCH_DATA or the user's data folder)"
    )
    places.add_argument("--download", action="store_true", help="fetch data sets of any size")
    places.add_argument("--no-download", action="store_true", help="never fetch anything (also BENCH_OFFLINE=1)")
    places.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--executor", metavar="NAME", help="where runs are done (default local: one after the other, in this process)"
    )
    how.add_argument("--force", action="store_true", help="run again what is finished, start anew what is not")
    how.add_argument("--dry-run", action="store_true", help="print every value and where it comes from, and stop")
    how.add_argument("--json", action="store_true", help="print the records' summaries as JSON")


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"`{shorten(text)}` is not a whole number that is 0 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Runs, or resumes, everything that was asked for."""
    from benchmark.run import interruption, provenance

    with interruption.Stop().installed(), _warnings_said():
        try:
            return _run(args)
        except KeyboardInterrupt:  # while plugins, data or weights were read; the engine answers for the rest
            raise interruption.Interrupted(
                "stopped between two runs; what is finished is kept",
                hint=f"resume with: {provenance.resume_command()}",
            ) from None


def _run(args: argparse.Namespace) -> int:
    from benchmark import config, registry
    from benchmark.run import jobs as running

    table: dict[str, Any] = config.read_toml(args.config) if args.config else {}
    picked, origin = _pick(args, table)
    jobs = _jobs(args, table, picked, origin)
    plans = [running.plan_of(job) for job in jobs]
    registry.load("executors", picked["executor"])
    if args.dry_run:
        _print_dry_run([[*plan.rows(), *_places(args, picked, origin)] for plan in plans], as_json=args.json)
        return 0
    return _execute(args, jobs, picked["executor"])


@contextlib.contextmanager
def _warnings_said() -> Iterator[None]:
    """What a run has to say goes to stderr, every time; other warnings go where they went."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", BenchWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, BenchWarning):
                terminal.say(f"warning: {message}")
            else:
                usual(message, category, *rest, **options)

        warnings.showwarning = show
        yield


_NAMES = str | tuple[str, ...]
RUN_KEYS: dict[str, Any] = {
    "scenario": _NAMES,
    "method": _NAMES,
    "seed": int | str | tuple[int | str, ...],
    "track": str,
    "backbone": str,
    "weights": str,
    "out": str,
    "validate": int,
    "device": str,
    "executor": str,
}
"""What the file's table ``[run]`` may hold, with types as `benchmark.config.coerce` reads them."""
DEFAULTS = {"seed": 0, "out": "runs", "validate": 0, "device": "auto", "executor": "local"}


def _pick(args: argparse.Namespace, table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Command line over the file's table ``[run]`` over defaults; and where each value comes from."""
    from benchmark import config
    from benchmark.errors import did_you_mean

    given = table.get("run", {})
    if not isinstance(given, dict):
        raise UsageError(f"{args.config}: `run` is not a table", hint="write [run] on its own line")
    for key in given:
        if key not in RUN_KEYS:
            error = did_you_mean("key", f"run.{key}", [f"run.{name}" for name in RUN_KEYS])
            raise UsageError(f"{args.config}: {error.message}", hint=error.hint)
    picked, origin = {}, {}
    for key, hint in RUN_KEYS.items():
        picked[key], origin[key] = getattr(args, key), f"--{key}"
        if picked[key] is None and key in given:
            picked[key] = config.coerce(given[key], hint, where=f"{args.config}: run.{key}")
            origin[key] = str(args.config)
            if key in ("out", "weights"):
                picked[key] = user_path(picked[key])
        elif picked[key] is None:
            picked[key], origin[key] = DEFAULTS.get(key), "default"
    for key in ("scenario", "method"):
        if not picked[key]:
            group = f"{key}s"
            raise UsageError(
                f"--{key} is missing", hint=f"`bench list {group}` shows all; e.g. --scenario split-glyphs --method l2p"
            )
    return picked, origin


def _jobs(args: argparse.Namespace, table: dict[str, Any], picked: dict[str, Any], origin: dict[str, str]) -> list[Job]:
    from benchmark import config
    from benchmark.run import jobs

    settings = config.parse_assignments(args.set)
    scenarios = jobs.expand(_scenarios(picked["scenario"]), settings, table)
    return [
        Job(
            scenario=scenario,
            method=method,
            seed=seed,
            class_order_seed=args.class_order_seed,
            init_seed=args.init_seed,
            data_seed=args.data_seed,
            track=picked["track"],
            backbone=picked["backbone"],
            weights=str(picked["weights"]) if picked["weights"] else None,
            settings=settings,
            tables={name: part for name, part in table.items() if name != "run"},
            file=str(args.config) if args.config else "",
            validate=picked["validate"],
            device=picked["device"],
            out=str(picked["out"]),
            data_root=None if args.data_root is None else str(args.data_root),
            download=download_of(args),
            force=args.force,
            quiet=args.quiet,
            origin=origin,
        )
        for scenario, seed, method in itertools.product(
            scenarios, jobs.parse_seeds(picked["seed"]), _names(picked["method"])
        )
    ]


def _names(value: str | tuple[str, ...]) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    return list(dict.fromkeys(item.strip() for item in items if item.strip()))


def _scenarios(value: str | tuple[str, ...]) -> list[str]:
    """Names of scenarios; a number behind a comma goes on with the variant before it, as in ``name/50,30,20``.

    Raises:
        UsageError: A word behind the comma of a variant is no scenario.
    """
    from benchmark import registry

    found: list[str] = []
    for name in _names(value) if isinstance(value, tuple) else (word.strip() for word in value.split(",")):
        before = found[-1] if found else ""
        if "/" in before and name.isdecimal():
            found[-1] += f",{name}"
        elif "/" in before and name and name.partition("/")[0] not in registry.names("scenarios"):
            raise UsageError(
                f"`{shorten(name)}` behind the comma of `{shorten(before)}` is not a scenario",
                hint="a comma separates scenarios; give a variant that holds commas as an option, "
                "e.g. --set scenario.order=a,b,c",
            )
        elif name:
            found.append(name)
    return list(dict.fromkeys(found))


def _places(args: argparse.Namespace, picked: dict[str, Any], origin: dict[str, str]) -> list[tuple[str, Any, str]]:
    """Where results go and data come from, with the origin of each value."""
    import os

    from benchmark import data

    root, where = args.data_root, "--data-root"
    if root is None and os.environ.get("BENCH_DATA"):
        root, where = os.environ["BENCH_DATA"], "BENCH_DATA"
    elif root is None:
        root, where = data.user_folder("data"), "default"
    given = "--download" if args.download else "--no-download" if args.no_download else "default"
    return [
        ("out", str(picked["out"]), origin["out"]),
        ("data root", str(root), where),
        ("download", download_of(args), given),
    ]


def download_of(args: argparse.Namespace) -> Literal["auto", "always", "never"]:
    """What ``--download`` and ``--no-download`` say: ``always``, ``never`` or ``auto``.

    Raises:
        UsageError: Both were given.
    """
    if args.download and args.no_download:
        raise UsageError("--download and --no-download exclude each other", hint="give one of them")
    return "always" if args.download else "never" if args.no_download else "auto"


def _print_dry_run(listing: list[list[tuple[str, Any, str]]], *, as_json: bool) -> None:
    if as_json:
        terminal.show(
            json.dumps([[{"key": k, "value": v, "origin": o} for k, v, o in rows] for rows in listing], indent=2)
        )
        return
    for place, values in enumerate(listing):
        if place:
            terminal.show("")
        rows = [(key, str(value), origin) for key, value, origin in values]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        second = min(second, 60)
        for key, value, origin in rows:
            terminal.show(f"{key:<{first}}  {value:<{second}}  {origin}")


def _execute(args: argparse.Namespace, jobs: list[Job], executor: str) -> int:
    from benchmark.cli import print_error, summary
    from benchmark.records import read
    from benchmark.run import executors

    failures: list[BenchError] = []
    shown = []
    for outcome in executors.execute(executor, jobs):
        if outcome.error is not None:
            if len(jobs) == 1:
                raise outcome.error
            if outcome.status == "skipped":
                terminal.say(f"skipped: {outcome.error.message}")
                continue
            if outcome.error.message not in {failure.message for failure in failures}:  # twelve pairs miss one data set
                print_error(outcome.error)
            failures.append(outcome.error)
        if outcome.path is None:
            continue
        if outcome.status == "known" and not args.quiet:
            terminal.say(f"{outcome.label}: already done, not repeated (--force repeats it)")
        record = read(outcome.path)
        shown.append(summary.brief(record, outcome.path))
        if not args.json and not args.quiet:
            terminal.show(summary.render(record, outcome.path), coloured=True)
        elif args.quiet and not args.json:
            terminal.show(outcome.path)
    if args.json:
        terminal.show(json.dumps(shown, indent=2))
    if failures:
        terminal.say(f"{len(failures)} of {len(jobs)} runs failed")
        return failures[0].exit_code
    return 0
