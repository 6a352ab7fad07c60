"""``bench check NAME``: the contract of one method, scenario, table format, backbone, metric, plot or tracker."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from benchmark import registry
from benchmark.cli import terminal
from benchmark.errors import EXIT_FAILED, EXIT_OK, UsageError, did_you_mean
from benchmark.files import user_path
from benchmark.registry import Kind

if TYPE_CHECKING:
    from benchmark.testing.checks import Result

CHECKED: tuple[Kind, ...] = ("methods", "scenarios", "exporters", "backbones", "metrics", "plots", "trackers")
LISTENER = "life-cycle plugin"  # of no kind: it registers nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "name",
        nargs="+",
        help="method (with @RECIPE), scenario (with /VARIANT or :PATH), exporter, backbone, metric, plot, tracker or "
        "life-cycle plugin",
    )
    parser.add_argument("--only", metavar="CHECK[,...]", help="run these checks only")
    parser.add_argument(
        "--data-root", type=user_path, metavar="DIR", help="data sets; nothing is downloaded by a check"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Runs the checks; the exit code is 1 if one fails."""
    kinds = {name: _kinds(name) for name in args.name}  # unknown names are refused before torch is imported
    import torch

    from benchmark.testing import checks

    torch.set_num_threads(1)  # for products of toy size, several threads would only wait for each other
    make = {
        "method": checks.method_subject,
        "scenario": lambda name: checks.scenario_subject(name, args.data_root),
        "exporter": checks.exporter_subject,
        "backbone": checks.backbone_subject,
        "metric": checks.metric_subject,
        "plot": checks.plot_subject,
        "tracker": checks.tracker_subject,
        LISTENER: checks.listener_subject,
    }
    shown: list[dict[str, Any]] = []
    failed = False
    for name, found in kinds.items():
        for kind in found:
            subject = make[kind](name)
            only = _only(args.only, list(checks.checks_of(subject)))
            results = []
            if not args.json:
                terminal.show(f"{kind} {name}")
            for result in checks.run_checks(subject, only):
                results.append(result)
                if not args.json:
                    _line(result, results)
            failed = failed or any(result.result == "fail" for result in results)
            if args.json:
                rows = [{key: getattr(result, key) for key in result.__slots__} for result in results]
                shown.append({"name": name, "kind": kind, "checks": rows})
            else:
                _summary(results)
    if args.json:
        terminal.show(json.dumps(shown, indent=2))
    return EXIT_FAILED if failed else EXIT_OK


def _kinds(name: str) -> list[str]:
    """What a name is, in words; a method and a scenario may share one."""
    plain = name.partition("@")[0].partition(":")[0].partition("/")[0]
    listed = {registry.singular(kind): registry.names(kind) for kind in CHECKED}
    listed[LISTENER] = list(registry.listeners())
    found = [kind for kind, names in listed.items() if plain in names]
    if not found:
        known = [known for names in listed.values() for known in names]
        raise did_you_mean("name", plain, known, more="bench list")
    return found


def _only(text: str | None, known: list[str]) -> frozenset[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise did_you_mean("check", name, known)
    if text is not None and not names:
        raise UsageError("--only names no check", hint=f"one or more of {', '.join(known)}")
    return frozenset(names)


def _line(result: Result, results: list[Result]) -> None:
    """One check; a cause that an earlier one has had is not said again."""
    terminal.show(f"  {result.check:<15} {result.result}  {result.seconds:6.2f} s  {result.meaning}")
    if next(other for other in results if _cause(other) == _cause(result)) is not result:
        return
    if result.message:
        terminal.show(f"  {'':<15}       {result.message}")
    if result.hint:
        terminal.show(f"  {'':<15}       hint: {result.hint}")


def _cause(result: Result) -> tuple[str, str, str]:
    return result.result, result.message, result.hint


def _summary(results: list[Result]) -> None:
    causes: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.message:
            causes.setdefault(_cause(result), []).append(result.check)
    for checks in causes.values():
        if len(checks) > 1:
            terminal.show(f"  {', '.join(checks)} have one cause, told at `{checks[0]}`")
    counts = {word: sum(result.result == word for result in results) for word in ("pass", "fail", "skip")}
    seconds = sum(result.seconds for result in results)
    terminal.show(f"  {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped in {seconds:.1f} s")
