"""``bench reproduce``: published figures, what our records say of them, and one command to try one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from benchmark.cli import asking, leaderboard, terminal
from benchmark.errors import EXIT_OK, BenchError, UsageError, did_you_mean
from benchmark.files import check_file, check_folder, replace_file, user_path

if TYPE_CHECKING:
    from benchmark.leaderboard.ledger import Target
    from benchmark.records import Record
    from benchmark.run.plan import Plan
    from benchmark.run.reproduction import Cost, Prices
    from benchmark.tables import Table

PATIENCE = 3600.0  # seconds that a run may be taken to need before a CPU is refused
TITLE = "Published figures"

Run: TypeAlias = tuple[str, tuple[str, ...], str]
Plans: TypeAlias = "dict[Run, list[Plan]]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("method", nargs="?", metavar="METHOD", help="name, or name@recipe; runs its first figure")
    parser.add_argument("--list", action="store_true", help="only print the ledger, also of one method; runs nothing")
    parser.add_argument("--all", action="store_true", help="also the figures that cannot be tried, and why")
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help="only figures on this scenario")
    parser.add_argument("--target", metavar="ID", help="the figure of this id, as the ledger shows it")
    parser.add_argument("--seed", default="0", metavar="N[,M][,A-B]", help="seeds to run (default 0)")
    parser.add_argument(
        "--results", action="append", type=user_path, default=[], metavar="DIR", help="further folders with records"
    )
    parser.add_argument(
        "--out", type=user_path, default=Path("runs"), metavar="DIR", help="results folder (default runs)"
    )
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets")
    parser.add_argument("--download", action="store_true", help="fetch data sets of any size")
    parser.add_argument("--no-download", action="store_true", help="never fetch anything (also BENCH_OFFLINE=1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="X",
        help="TFLOP/s that the GPU is taken to sustain, for costs where no record tells the time (default 30)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the runs, and stop")
    parser.add_argument("--format", metavar="NAME", help="table (default) or an exporter: `bench list exporters`")
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help="write the table to a file")


def run(args: argparse.Namespace) -> int:
    """Prints the ledger, or runs one figure and prints what came of it.

    Raises:
        UsageError: Unknown method, scenario or target; or the figure cannot be tried here.
        DataMissing: Data or weights are absent.
    """
    from benchmark import registry
    from benchmark.leaderboard import ledger
    from benchmark.run import reproduction

    if args.output is not None:
        check_file(args.output, "--output")
    if args.tflops is not None and not 0 < args.tflops < 1e6:
        raise UsageError(f"--tflops {args.tflops:g} is no rate", hint="give TFLOP/s, e.g. 30")
    render = leaderboard.renderer(args.format or "table", to_file=args.output is not None)
    found = _records(args)
    prices = reproduction.Prices(found, args.tflops or reproduction.RATE)
    chosen, plans = _planned(_chosen(args, ledger.targets(registry.names("methods"))))
    if args.method is None or args.list:
        _show(args, render, chosen, found, prices, plans)
        return EXIT_OK
    picked = _picked(args, chosen)
    same = [target for target in chosen if target.run == picked.run and not target.reason]
    _run(args, picked, plans[picked.run], prices)
    if not args.dry_run:
        _show(args, render, same, _records(args), prices, plans)
    return EXIT_OK


def _records(args: argparse.Namespace) -> list[Record]:
    from benchmark import records

    folders = [*args.results, *([args.out] if args.out.is_dir() else [])]
    found: dict[str, Record] = {}
    for folder in folders:
        runs, problems = records.read_all(folder)
        for problem in problems:
            terminal.say(f"warning: {problem.message}; skipped")
        found |= {run.run_id: run for run in runs if run.status == "completed" or run.run_id not in found}
    return list(found.values())


def _planned(chosen: Sequence[Target]) -> tuple[list[Target], Plans]:
    """The figures, those that have no plan with the reason, and the plans of the others."""
    from benchmark import registry
    from benchmark.leaderboard import ledger
    from benchmark.run import reproduction

    plans: Plans = {}
    reasons: dict[Run, str] = {}
    found = []
    with registry.remembered():
        for target in chosen:
            if not target.reason and target.run not in plans:
                made = [
                    reproduction.plan_or_reason(
                        reproduction.job_of(target.label, scenario, target.backbone, ledger.TRACK)
                    )
                    for scenario in target.scenarios
                ]
                reasons[target.run] = next((one for one in made if isinstance(one, str)), "")
                plans[target.run] = [one for one in made if not isinstance(one, str)]
            reason = target.reason or reasons[target.run]
            found.append(ledger.refused(target, reason) if reason else target)
    return found, plans


def _chosen(args: argparse.Namespace, every: list[Target]) -> list[Target]:
    chosen = every
    if args.method is not None:
        names = {name for target in every for name in (target.method, target.label) if target.method}
        if args.method not in names:
            raise did_you_mean("method with published figures", args.method, names)
        chosen = [target for target in chosen if args.method in (target.method, target.label)]
    for name in args.scenario:
        if not any(_on(target, name) for target in every):
            known = {place for target in every for place in target.scenarios}
            raise did_you_mean("scenario with published figures", name, known)
    if args.scenario:
        chosen = [target for target in chosen if any(_on(target, name) for name in args.scenario)]
    if args.target is not None:
        chosen = [target for target in chosen if target.id == args.target]
        if not chosen:
            raise UsageError(f"no figure {args.target}", hint="`bench reproduce --list` shows them in its last column")
    return chosen


def _on(target: Target, name: str) -> bool:
    """Whether a figure is on a scenario, named with or without its variant, or as the source names it."""
    return name == target.published[0] or any(name in (place, place.partition("/")[0]) for place in target.scenarios)


def _picked(args: argparse.Namespace, chosen: Sequence[Target]) -> Target:
    possible = [target for target in chosen if not target.reason]
    if possible:
        return possible[0]
    reasons = list(dict.fromkeys(target.reason for target in chosen))
    raise UsageError(
        f"no figure of `{args.method}` can be tried: {reasons[0] if reasons else 'none is chosen'}",
        hint=f"`bench reproduce {args.method} --list --all` shows them all",
    )


def _run(args: argparse.Namespace, target: Target, plans: Sequence[Plan], prices: Prices) -> None:
    """Runs what a figure asks for, every scenario and seed."""
    import shlex

    from benchmark.cli import print_error
    from benchmark.leaderboard import ledger
    from benchmark.run import interruption, jobs, reproduction
    from benchmark.run.preparation import pick_device

    seeds = jobs.parse_seeds(args.seed)
    cost = _cost(target, plans, prices)
    std = f" ± {target.std:g}" if target.std is not None else ""
    terminal.say(
        f"{target.label} on {' '.join(target.scenarios)}, {target.backbone}: reported {target.value:g}{std} "
        f"{target.published[2]} ({target.source}); {len(target.scenarios) * len(seeds)} runs, {cost.text} a seed"
    )
    if args.dry_run:
        for scenario in target.scenarios:
            words = ["bench", "run", "--scenario", scenario, "--method", target.label, "--track", ledger.TRACK]
            terminal.show(shlex.join([*words, "--backbone", target.backbone, "--seed", args.seed]))
        return
    check_folder(args.out, "--out")
    slow = cost.seconds is None or cost.seconds * len(seeds) > PATIENCE / 100  # a CPU is a hundred times slower
    if args.device == "auto" and slow and pick_device("auto").type == "cpu":
        raise UsageError(
            f"there is no GPU here, and {cost.text} a seed on one would be days on a CPU",
            hint="run it on a machine with a GPU; --device cpu runs it here all the same, --dry-run prints commands",
        )
    work = [
        reproduction.job_of(
            target.label,
            scenario,
            target.backbone,
            ledger.TRACK,
            seed=seed,
            device=args.device,
            out=str(args.out),
            data_root=None if args.data_root is None else str(args.data_root),
            download=asking.download_of(args),
            quiet=args.quiet,
        )
        for seed in seeds
        for scenario in target.scenarios
    ]
    failures: list[BenchError] = []
    with interruption.Stop().installed(), asking.warnings_said():
        for outcome in jobs.run_jobs(work):
            if outcome.error is not None:
                if len(work) == 1:
                    raise outcome.error
                print_error(outcome.error)
                failures.append(outcome.error)
    if len(failures) == len(work):
        raise failures[0]


def _cost(target: Target, plans: Sequence[Plan], prices: Prices) -> Cost:
    return prices.of(plans, train=target.train, test=target.test, experiences=target.experiences, gflops=target.gflops)


def _show(
    args: argparse.Namespace,
    render: Callable[[list[Table]], str],
    chosen: Sequence[Target],
    found: Sequence[Record],
    prices: Prices,
    plans: Plans,
) -> None:
    """Prints or writes the ledger of some figures."""
    from benchmark.leaderboard import ledger

    known = ledger.index(found)
    looked = [(target, ledger.look(target, known)) for target in chosen]
    shown = [pair for pair in looked if args.all or pair[1].state != "impossible"]
    hidden = [target for target, ours in looked if ours.state == "impossible"] if not args.all else []
    if not shown and hidden:
        terminal.say(f"none of {len(hidden)} figures can be tried; --all shows why")
    costs = {target.id: _cost(target, plans[target.run], prices).text for target, _ in shown if not target.reason}
    text = render([ledger.table(shown, costs, title=TITLE, counted=hidden)])
    counts = {state: sum(ours.state == state for _, ours in looked) for state in ledger.STATES}
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    if args.output:
        replace_file(args.output, text.encode())
        terminal.say(f"wrote {args.output}")
    else:
        terminal.write(text)
    terminal.say(f"{len(looked)} figures: {told}")
