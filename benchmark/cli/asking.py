"""What `bench run` and `bench sweep` are asked for: command line, configuration file and lock, to jobs."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchmark.cli import terminal, tracking
from benchmark.errors import UsageError, shorten, warnings_told
from benchmark.files import user_path
from benchmark.jobs import MOST_DIGITS, Job

if TYPE_CHECKING:
    from benchmark.locks import Lock


def add_arguments(parser: argparse.ArgumentParser, *, tuned: bool = False) -> None:
    """Adds the options that say what to run and where.

    Args:
        parser: Of the command.
        tuned: Whether it is about one method, which is an argument, and always validates.
    """
    pick = parser.add_argument_group("what to run")
    if tuned:
        pick.add_argument("method", metavar="METHOD[@RECIPE]", help="e.g. l2p or l2p@pilot")
    pick.add_argument(
        "--scenario",
        metavar="NAME[/VARIANT | :PATH][,...]",
        help="e.g. split-glyphs or split-cifar100/20x5; a family such as glyphs-uda runs all its variants (also /all)",
    )
    if not tuned:
        pick.add_argument("--method", metavar="NAME[@RECIPE][,...]", help="e.g. l2p,finetune or l2p@pilot")
    pick.add_argument("--seed", metavar="N[,M][,A-B]", help="seeds, e.g. 0 or 0-4 (default 0)")
    pick.add_argument("--class-order-seed", metavar="N[,M][,A-B]", help="seeds of the class order alone")
    pick.add_argument("--init-seed", metavar="N[,M][,A-B]", help="seeds of the initialisation alone")
    pick.add_argument("--data-seed", metavar="N[,M][,A-B]", help="seeds of data order and augmentation alone")
    pick.add_argument("--track", metavar="TRACK", help="nano, mini or paper (default: the scenario's first)")
    pick.add_argument(
        "--preset", metavar="NAME", help="input preset, to repeat an old run (default: the scenario's on the track)"
    )
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
        "--config",
        type=user_path,
        metavar="FILE.toml",
        help="tables [run] (and [sweep] for bench sweep), [method.NAME], [scenario.NAME], [engine], [executor.NAME], "
        "[tracker.NAME]",
    )
    options.add_argument(
        "--experiences" if tuned else "--validate",
        dest="validate",
        type=positive if tuned else count,
        metavar="N",
        help="first N experiences, tested on held-out training images"
        + (" (default 3 of a stream, else 1)" if tuned else ": to choose hyper-parameters"),
    )
    options.add_argument(
        "--lock",
        type=user_path,
        metavar="FILE",
        help="of `bench lock`: its scenario, on these data and this split only",
    )
    places = parser.add_argument_group("where")
    places.add_argument("--out", type=user_path, metavar="DIR", help="results folder (default runs)")
    places.add_argument(
        "--data-root", type=user_path, metavar="DIR", help="data sets (default BENCH_DATA or the user's data folder)"
    )
    places.add_argument("--download", action="store_true", help="fetch data sets of any size")
    places.add_argument("--no-download", action="store_true", help="never fetch anything (also BENCH_OFFLINE=1)")
    places.add_argument(
        "--lock-kind",
        choices=("file", "lease"),
        help="file locks (default), or leases where these do not work between machines that share --out",
    )
    places.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (default auto)")


def count(text: str) -> int:
    """A whole number of the command line."""
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"`{shorten(text)}` is not a whole number that is 0 or more")
    return int(text)


def positive(text: str) -> int:
    """A whole number of the command line that is 1 or more."""
    if not (number := count(text)):
        raise argparse.ArgumentTypeError("0 is not a whole number that is 1 or more")
    return number


def warnings_said() -> contextlib.AbstractContextManager[None]:
    """What a run has to say goes to stderr, every time; other warnings go where they went."""
    return warnings_told(lambda text: terminal.say(f"warning: {text}"))


_NAMES = str | tuple[str, ...]
RUN_KEYS: dict[str, Any] = {
    "scenario": _NAMES,
    "method": _NAMES,
    "seed": int | str | tuple[int | str, ...],
    "track": str,
    "preset": str,
    "backbone": str,
    "weights": str,
    "out": str,
    "validate": int,
    "device": str,
    "executor": str,
    "jobs": int,
    "tracker": _NAMES,
    "lock_kind": Literal["file", "lease"],
}
"""What the file's table ``[run]`` may hold, with types as `benchmark.config.coerce` reads them."""
SWEEP_KEYS = {**RUN_KEYS, "results": _NAMES}
"""What ``[sweep]`` may hold beside ``grid``; it wins over ``[run]``."""
DEFAULTS = {"seed": 0, "out": "runs", "validate": 0, "device": "auto", "executor": "local", "lock_kind": "file"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for.

    Attributes:
        jobs: The runs.
        grids: For each of them, the options that differ within the sweep.
        picked: Values of `RUN_KEYS` or `SWEEP_KEYS`.
        origin: Where each of them comes from.
        executors: The file's table ``[executor]``.
    """

    jobs: list[Job]
    grids: list[Mapping[str, str]]
    picked: dict[str, Any]
    origin: dict[str, str]
    executors: Any


def read(args: argparse.Namespace, *, sweep: bool = False) -> Asked:
    """From the command line, its configuration file and its lock to jobs.

    Args:
        args: What `add_arguments` reads, and ``executor``, ``jobs``, ``force`` and ``quiet``.
        sweep: Whether there are ``results`` and ``grid`` as well, and the file's table ``[sweep]``.

    Raises:
        UsageError: Something is missing or cannot be read.
    """
    from benchmark import config, locks

    table: dict[str, Any] = config.read_toml(args.config) if args.config else {}
    if "sweep" in table and not sweep:
        raise UsageError(f"{args.config}: [sweep] is for many runs", hint=f"`bench sweep --config {args.config}`")
    lock = locks.read(args.lock) if args.lock else None
    picked, origin = _pick(args, table, lock, sweep=sweep)
    jobs, grids = _jobs(args, table, picked, origin, lock, _grid(args, table) if sweep else {})
    return Asked(jobs=jobs, grids=grids, picked=picked, origin=origin, executors=table.get("executor", {}))


def _pick(
    args: argparse.Namespace, table: dict[str, Any], lock: Lock | None, *, sweep: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Command line over the file's ``[sweep]``, its ``[run]``, the lock, defaults; and where each value comes from."""
    from benchmark import config

    keys = SWEEP_KEYS if sweep else RUN_KEYS
    given = {key: ("run", value) for key, value in _section(args, table, "run", RUN_KEYS).items()}
    if sweep:
        further = _section(args, table, "sweep", {**SWEEP_KEYS, "grid": dict})
        given |= {key: ("sweep", value) for key, value in further.items()}
    picked, origin = {}, {}
    for key, hint in keys.items():
        picked[key], origin[key] = getattr(args, key), f"--{key.replace('_', '-')}"
        if picked[key] is None and key in given:
            section, value = given[key]
            picked[key] = config.coerce(value, hint, where=f"{args.config}: {section}.{key}")
            origin[key] = str(args.config)
            if key in ("out", "weights"):
                picked[key] = user_path(picked[key])
        elif picked[key] is None:
            picked[key], origin[key] = DEFAULTS.get(key), "default"
    if lock is not None:
        from benchmark.run import locking

        picked["scenario"] = locking.scenario_of(lock, picked["scenario"])
        picked["track"] = picked["track"] or lock.track
        origin |= {key: "--lock" for key in ("scenario", "track") if origin[key] == "default"}
    for key in ("scenario", "method"):
        if not picked[key]:
            group = f"{key}s"
            raise UsageError(
                f"--{key} is missing", hint=f"`bench list {group}` shows all; e.g. --scenario split-glyphs --method l2p"
            )
    return picked, origin


def _section(args: argparse.Namespace, table: dict[str, Any], name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A table of the file, with keys that there are."""
    from benchmark.errors import did_you_mean

    given = table.get(name, {})
    if not isinstance(given, dict):
        raise UsageError(f"{args.config}: `{name}` is not a table", hint=f"write [{name}] on its own line")
    for key in given:
        if key not in keys:
            error = did_you_mean("key", f"{name}.{key}", [f"{name}.{known}" for known in keys])
            raise UsageError(f"{args.config}: {error.message}", hint=error.hint)
    return given


def _grid(args: argparse.Namespace, table: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Every option that is to differ, with its values as ``--set`` takes them.

    Raises:
        UsageError: An option has no values, or ``--set`` gives it, too.
    """
    from benchmark import config

    found: dict[str, tuple[str, ...]] = {}
    given = table.get("sweep", {}).get("grid", {})
    if not isinstance(given, dict):
        raise UsageError(f"{args.config}: sweep.grid is not a table", hint="write [sweep.grid] on its own line")
    for key, values in given.items():
        if isinstance(values, dict):
            raise UsageError(
                f"{args.config}: sweep.grid.{key} is a table",
                hint=f'quote keys with a dot: "{key}.{next(iter(values), "x")}" = [...]',
            )
        found[key] = tuple(config.as_text(value) for value in (values if isinstance(values, list) else [values]))
    for key, text in config.parse_assignments(args.grid, option="--grid").items():
        found[key] = tuple(part.strip() for part in text.split(";" if ";" in text else ","))
    for key, texts in found.items():
        if not texts or "" in texts:
            raise UsageError(f"--grid {key}: a value is missing", hint=f"for example --grid {key}=1,2")
        if key in config.parse_assignments(args.set):
            raise UsageError(f"`{key}` is in --set and in the grid", hint="leave one of them out")
    return {key: tuple(dict.fromkeys(texts)) for key, texts in found.items()}


def _jobs(
    args: argparse.Namespace,
    table: dict[str, Any],
    picked: dict[str, Any],
    origin: dict[str, str],
    lock: Lock | None,
    grid: Mapping[str, tuple[str, ...]],
) -> tuple[list[Job], list[Mapping[str, str]]]:
    from benchmark import config, locks
    from benchmark.run import requests

    settings = config.parse_assignments(args.set)
    class_order_seed = args.class_order_seed
    if lock is not None:
        from benchmark.run import locking

        settings = {**locking.settings_of(lock, picked["scenario"], settings), **settings}
        class_order_seed = str(lock.seed) if class_order_seed is None and lock.seed is not None else class_order_seed
    common = Job(
        scenario="",
        method="",
        track=picked["track"],
        preset=picked["preset"],
        backbone=picked["backbone"],
        weights=str(picked["weights"]) if picked["weights"] else None,
        settings=settings,
        tables={name: part for name, part in table.items() if name not in ("run", "sweep", "executor", "tracker")},
        file=str(args.config) if args.config else "",
        validate=picked["validate"],
        device=picked["device"],
        out=str(picked["out"]),
        data_root=None if args.data_root is None else str(args.data_root),
        download=download_of(args),
        lock_kind=picked["lock_kind"],
        trackers=tracking.read(args, picked["tracker"], table.get("tracker", {})),
        lock="" if lock is None else locks.dumps(lock),
        force=args.force,
        quiet=args.quiet,
        origin=origin,
    )
    return requests.jobs_of(
        common,
        scenarios=picked["scenario"],
        methods=picked["method"],
        seeds=picked["seed"],
        class_order_seeds=class_order_seed,
        init_seeds=args.init_seed,
        data_seeds=args.data_seed,
        grid=grid,
    )


def places(args: argparse.Namespace, picked: dict[str, Any], origin: dict[str, str]) -> list[tuple[str, Any, str]]:
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
