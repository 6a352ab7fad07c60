"""``bench run``: several scenarios, methods and seeds, one record each."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import terminal
from benchmark.errors import BenchError, UsageError, shorten
from benchmark.files import check_folder, user_path

if TYPE_CHECKING:
    from benchmark.run.plan import Plan, RunRequest


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
    how.add_argument("--force", action="store_true", help="run again what is finished, start anew what is not")
    how.add_argument("--dry-run", action="store_true", help="print every value and where it comes from, and stop")
    how.add_argument("--json", action="store_true", help="print the records' summaries as JSON")


MOST_DIGITS = 18  # of a seed: records hold 64 bits
MOST_SEEDS = 1000


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"`{shorten(text)}` is not a whole number that is 0 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Runs, or resumes, everything that was asked for."""
    from benchmark import config
    from benchmark.run import interruption, plan, provenance

    table: dict[str, Any] = config.read_toml(args.config) if args.config else {}
    picked, origin = _pick(args, table)
    requests = _requests(args, table, picked, origin)
    plans = [plan.resolve(request) for request in requests]
    download_of(args)
    check_folder(Path(picked["out"]), "--out")
    if args.dry_run:
        _print_dry_run([[*plan.rows(), *_places(args, picked, origin)] for plan in plans], as_json=args.json)
        return 0
    try:
        return _execute(args, plans, picked)
    except KeyboardInterrupt:  # while data or weights were read; the engine answers for the rest
        raise interruption.Interrupted(
            "stopped between two runs; what is finished is kept",
            hint=f"resume with: {provenance.resume_command()}",
        ) from None


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
}
"""What the file's table ``[run]`` may hold, with types as `benchmark.config.coerce` reads them."""
DEFAULTS = {"seed": 0, "out": "runs", "validate": 0, "device": "auto"}


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


def _requests(
    args: argparse.Namespace, table: dict[str, Any], picked: dict[str, Any], origin: dict[str, str]
) -> list[RunRequest]:
    from benchmark import config
    from benchmark.run.plan import RunRequest

    settings = config.parse_assignments(args.set)
    return [
        RunRequest(
            scenario=scenario,
            method=method,
            seed=seed,
            class_order_seed=args.class_order_seed,
            init_seed=args.init_seed,
            data_seed=args.data_seed,
            track=picked["track"],
            backbone=picked["backbone"],
            weights=Path(picked["weights"]) if picked["weights"] else None,
            settings=settings,
            file={name: part for name, part in table.items() if name != "run"},
            file_name=str(args.config) if args.config else "",
            validate=picked["validate"],
            device=picked["device"],
            origin=origin,
        )
        for scenario, seed, method in itertools.product(
            expand(_scenarios(picked["scenario"]), settings, table),
            parse_seeds(picked["seed"]),
            _names(picked["method"]),
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


def expand(names: list[str], settings: Mapping[str, str], table: Mapping[str, Any]) -> list[str]:
    """Replaces a scenario whose variants belong together by these: ``name`` or ``name/all`` by ``name/a``, ``name/b``.

    A bare name stays as it is when the variant's option is given in another way.

    Args:
        names: What was asked for.
        settings: ``--set`` assignments.
        table: The configuration file.

    Raises:
        UsageError: ``/all`` of a scenario without such variants.
    """
    from typing import cast

    from benchmark import registry
    from benchmark.specs import ScenarioSpec

    expanded = []
    for name in names:
        plain, _, variant = name.partition("/")
        if variant not in ("", "all"):
            expanded.append(name)
            continue
        spec = cast("ScenarioSpec", registry.load_scenario(plain).spec)
        if variant and not spec.variants:
            raise UsageError(
                f"`{name}`: the variants of `{plain}` do not belong together", hint=f"name one: {plain}/..."
            )
        scenarios = table.get("scenario")
        options = scenarios.get(plain) if isinstance(scenarios, Mapping) else None
        chosen = f"scenario.{spec.variant}" in settings or spec.variant in (
            options if isinstance(options, Mapping) else ()
        )
        if spec.variants and (variant or not chosen):
            expanded += [f"{plain}/{one}" for one in spec.variants]
        else:
            expanded.append(name)
    return list(dict.fromkeys(expanded))


def parse_seeds(value: str | int | tuple[int | str, ...]) -> list[int]:
    """Reads ``0``, ``0,3`` or ``0-4``.

    Raises:
        UsageError: Not a list of whole numbers that are 0 or more.
    """
    if not isinstance(value, str):
        value = ",".join(map(str, value if isinstance(value, tuple) else (value,)))
    seeds: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [first, last] if dash else [first, first]
        if not all(end.strip().isdecimal() and len(end.strip()) <= MOST_DIGITS for end in ends):
            numbers = range(0)
        else:
            numbers = range(int(ends[0]), int(ends[1]) + 1)
        if not numbers or len(numbers) > MOST_SEEDS:
            raise UsageError(
                f"--seed {shorten(value)}: `{shorten(part)}` is not a seed or a range of up to {MOST_SEEDS}",
                hint="for example --seed 0,1,2 or --seed 0-4",
            )
        seeds += numbers
    return list(dict.fromkeys(seeds))


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


def download_of(args: argparse.Namespace) -> str:
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


def _execute(args: argparse.Namespace, plans: list[Plan], picked: dict[str, Any]) -> int:
    from benchmark import data, registry
    from benchmark.cli import summary
    from benchmark.records import read
    from benchmark.run import engine, interruption, preparation

    places = {"data_root": args.data_root, "cache": data.cache_root(), "download": download_of(args)}
    out = Path(picked["out"])
    hooks = registry.life_cycle(lambda _, error: terminal.say(f"warning: {error.message}; left out"))
    failures: list[BenchError] = []
    shown = []
    scenarios: dict[str, Any] = {}
    for plan in plans:
        try:
            key = json.dumps([plan.scenario_name, plan.effective()["scenario"], plan.seeds["class_order"]])
            if key not in scenarios:
                scenarios.clear()  # one scenario in memory at a time
                scenarios[key] = preparation.build_scenario(plan, places)
            scenario, seconds = scenarios[key]
            prepared = preparation.prepare(plan, scenario, data_seconds=seconds)
            for warning in prepared.warnings:
                terminal.say(f"warning: {warning}")
            path = engine.record_path(out, prepared)
            known = not args.force and engine.is_finished(path)
            if known:
                _say(args, f"{prepared.label}: already done, not repeated (--force repeats it)")
            else:
                path = engine.execute(prepared, out, hooks=hooks, quiet=args.quiet, force=args.force)
            record = read(path)
        except interruption.Interrupted:
            raise
        except BenchError as error:
            if len(plans) == 1:
                raise
            from benchmark.cli import print_error

            if error.message not in {failure.message for failure in failures}:  # twelve pairs miss the same data
                print_error(error)
            failures.append(error)
            continue
        shown.append(summary.brief(record, path))
        if not args.json and not args.quiet:
            terminal.show(summary.render(record, path), coloured=True)
        elif args.quiet and not args.json:
            terminal.show(path)
    if args.json:
        terminal.show(json.dumps(shown, indent=2))
    if failures:
        terminal.say(f"{len(failures)} of {len(plans)} runs failed")
        return failures[0].exit_code
    return 0


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        terminal.say(text)
