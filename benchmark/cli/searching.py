"""What `bench tune` is asked for: command line, protocol and configuration file, to searches."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmark.cli import asking
from benchmark.errors import UsageError, did_you_mean
from benchmark.files import user_path
from benchmark.jobs import Job
from benchmark.specs import SELECT, ProtocolSpec
from benchmark.tuning.axes import Axis, axes, declared, prescribed
from benchmark.tuning.strategies import STRATEGIES

if TYPE_CHECKING:
    from benchmark.run.tuning import Search
    from benchmark.specs import MethodSpec, ScenarioSpec

FEW = 3  # experiences of a stream that are enough to see what is forgotten


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what is searched."""
    asking.add_arguments(parser, tuned=True)
    search = parser.add_argument_group("what to search")
    search.add_argument("--budget", type=asking.positive, metavar="N", help="most trials, those of the log included")
    search.add_argument(
        "--strategy",
        metavar="NAME",
        help="; ".join(f"{name}: {about}" for name, about in STRATEGIES.items()) + " (default random)",
    )
    search.add_argument(
        "--range",
        action="append",
        default=[],
        metavar="KEY=LOW..HIGH",
        help="search this option, within these values; with --range or --grid no other one is searched; repeatable",
    )
    search.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B[,...]",
        help="search these values of an option; values that hold commas are parted by `;`; repeatable",
    )
    search.add_argument("--metric", default="", metavar="NAME", help="of records, the higher the better")
    search.add_argument(
        "--select",
        metavar="RULE",
        help="; ".join(f"{name}: {about}" for name, about in SELECT.items()) + " (default training-domain)",
    )
    search.add_argument(
        "--protocol",
        metavar="NAME",
        help="ranges, strategy, budget and seeds of a benchmark, one search for each scenario and seed "
        "(`bench list protocols`)",
    )
    search.add_argument(
        "--log", type=user_path, metavar="FILE.csv", help="trials (default OUT/tuned/METHOD-SCENARIO.csv)"
    )


def read(args: argparse.Namespace) -> tuple[asking.Asked, list[Search], str]:
    """What was asked for, the searches, and the rule by which trials are compared.

    Raises:
        UsageError: Something is missing or cannot be searched.
    """
    from benchmark import registry
    from benchmark.tuning import strategies

    protocol = None if args.protocol is None else registry.load_protocol(args.protocol)
    if protocol is not None:
        args.budget = args.budget or protocol.budget
        args.strategy = args.strategy or protocol.strategy
        args.seed = args.seed or f"0-{protocol.seeds - 1}"
    rule = args.select or (protocol.select[0] if protocol else next(iter(SELECT)))
    if rule not in (rules := protocol.select if protocol else tuple(SELECT)):
        raise did_you_mean("rule of selection", rule, rules)
    if args.budget is None:
        raise UsageError("--budget is missing", hint="how many trials, e.g. --budget 20")
    args.strategy = args.strategy or next(iter(STRATEGIES))
    strategies.load(args.strategy)
    args.force = False
    asked = asking.read(args)
    if len({job.method for job in asked.jobs}) > 1:
        raise UsageError(f"{args.method}: one method is tuned at a time", hint="one `bench tune` for each")
    jobs = [replace(job, validate=job.validate or _experiences(job)) for job in asked.jobs]
    if protocol is not None:
        for job in jobs:
            _check_family(protocol, job)
    scenario = asked.picked["scenario"]
    named = scenario if isinstance(scenario, str) else ",".join(scenario)
    log = args.log or _beside(str(asked.picked["out"]), args.method, named)
    groups = [(job.scenario, [job]) for job in jobs] if protocol else [(named, jobs)]
    varied = _axes(args, jobs[0], protocol)
    return asked, [_search(args, varied, name, group, rule, log) for name, group in groups], rule


def _search(args: argparse.Namespace, varied: list[Axis], name: str, jobs: list[Job], rule: str, log: Path) -> Search:
    from benchmark.run import tuning

    return tuning.planned(
        tuning.judged_by(jobs, rule),
        varied,
        scenario=name,
        metric=args.metric,
        strategy=args.strategy,
        budget=args.budget,
        log=log,
    )


def _beside(out: str, method: str, scenario: str) -> Path:
    """Where a log lies unless it was told."""
    return user_path(out) / "tuned" / f"{as_name(f'{method}-{scenario}')}.csv"


def as_name(text: str) -> str:
    """A text as part of the name of a file."""
    return re.sub(r"[^\w@.+-]+", "-", text)[-100:]


def _spec(job: Job) -> ScenarioSpec:
    from benchmark import registry
    from benchmark.scenario_names import base_of

    return cast("ScenarioSpec", registry.load_scenario(base_of(job.scenario)).spec)


def _experiences(job: Job) -> int:
    """How many experiences are enough where nobody says."""
    from benchmark import families

    return FEW if families.get(_spec(job).family).stream else 1


def _check_family(protocol: ProtocolSpec, job: Job) -> None:
    if (family := _spec(job).family) != protocol.family:
        raise UsageError(
            f"--protocol {protocol.name} is for scenarios of the family {protocol.family}; "
            f"`{job.scenario}` is of {family}",
            hint="`bench list scenarios` shows families",
        )


def _axes(args: argparse.Namespace, job: Job, protocol: ProtocolSpec | None) -> list[Axis]:
    """What is searched: what the user says, else the protocol, else every option that says where a search begins.

    Raises:
        UsageError: An option is searched in two ways, is set, or is the scenario's.
    """
    from benchmark import config, registry
    from benchmark.run.options import EngineConfig

    method = job.method.partition("@")[0]
    spec = cast("MethodSpec", registry.load_method(method).spec)
    chosen = _grouped(config.parse_assignments(args.range, option="--range"), method)
    listed = _grouped(config.parse_assignments(args.grid, option="--grid"), method)
    given = _grouped(job.settings, method, strict=False)
    for group in chosen:
        twice = chosen[group].keys() & (listed[group].keys() | given[group].keys())
        for key in twice | (listed[group].keys() & given[group].keys()):
            raise UsageError(f"`{key}` is given in two ways", hint="one of --set, --range and --grid for an option")
    values = {group: {key: _split(key, text) for key, text in found.items()} for group, found in listed.items()}
    found = [
        *axes(spec.config, chosen=chosen["method"], listed=values["method"], key=f"method.{method}"),
        *axes(EngineConfig, chosen=chosen["engine"], listed=values["engine"], key="engine", prefix="engine."),
    ]
    fixed = {*given["method"], *job.tables.get("method", {}).get(method, {})}
    if found:
        return found
    return prescribed(spec.config, protocol.axes, but=fixed) if protocol else declared(spec.config, but=fixed)


def _grouped(settings: Mapping[str, str], method: str, *, strict: bool = True) -> dict[str, dict[str, str]]:
    """Keys by group, without it: options of the method and of the engine.

    Raises:
        UsageError: An option is of something else, and ``strict``.
    """
    groups: dict[str, dict[str, str]] = {"method": {}, "engine": {}}
    for key, value in settings.items():
        prefix, dot, name = key.removeprefix(f"method.{method}.").partition(".")
        if not dot or prefix in ("method", method):
            groups["method"][name if dot else prefix] = value
        elif prefix == "engine":
            groups["engine"][name] = value
        elif strict:
            raise UsageError(
                f"`{key}` is no option of {method} or of the engine",
                hint="what is tested is not searched: --set fixes options of the scenario",
            )
    return groups


def _split(key: str, text: str) -> list[str]:
    values = [part.strip() for part in text.split(";" if ";" in text else ",")]
    if "" in values:
        raise UsageError(f"--grid {key}: a value is missing", hint=f"for example --grid {key}=1,2")
    return values


def real(search: Search, point: Mapping[str, Any], out: str) -> list[Job]:
    """The runs of a point by the real protocol, on test data; their records go to ``out``."""
    from benchmark.run import tuning

    runs = [replace(job, validate=0, validate_on="", out=out) for job in tuning.jobs_of(search, point)]
    return list(dict.fromkeys(runs))
