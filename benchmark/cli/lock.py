"""``bench lock SCENARIO``: which data a scenario has here, and how they are cut, as a small file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, cast

from benchmark.cli import terminal
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.specs import ScenarioSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    from benchmark.cli.asking import count

    parser.add_argument("scenario", metavar="NAME[/VARIANT | :PATH]", help="e.g. split-cifar100/20x5")
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help="write the lock there, not to stdout")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the scenario")
    parser.add_argument("--track", metavar="TRACK", help="whose preset is locked (default: the scenario's first)")
    parser.add_argument(
        "--class-order-seed", type=count, default=0, metavar="N", help="where the split follows it (default 0)"
    )
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets (default BENCH_DATA)")
    parser.add_argument("--download", action="store_true", help="fetch data sets of any size")
    parser.add_argument("--no-download", action="store_true", help="never fetch anything")


def run(args: argparse.Namespace) -> int:
    """Builds the scenario and writes its lock."""
    from benchmark import data, locks, registry
    from benchmark.cli.asking import download_of
    from benchmark.config import Layer, parse_assignments
    from benchmark.files import check_file
    from benchmark.run import locking, plan
    from benchmark.scenario_names import ScenarioName

    if args.output is not None:
        check_file(args.output, "-o")
    asked = ScenarioName.parse(args.scenario)
    loaded = registry.load_scenario(asked.base)
    settings = {key.removeprefix("scenario."): value for key, value in parse_assignments(args.set).items()}
    options, _ = plan.resolve_scenario(cast("ScenarioSpec", loaded.spec), asked.variant, [Layer("--set", settings)])
    places = {"data_root": args.data_root, "cache": data.cache_root(), "download": download_of(args), "tag": asked.tag}
    lock = locking.make(loaded, options, places, track=args.track, seed=args.class_order_seed)
    if args.output is None:
        terminal.write(locks.dumps(lock))
    else:
        locks.write(lock, args.output)
        terminal.show(lock.id)
        terminal.say(f"wrote {args.output}; `bench run --lock {args.output} --method NAME` runs on these data only")
    return 0
