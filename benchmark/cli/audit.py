"""``bench audit METHOD``: is its number what it seems to be? One page with a verdict for every question."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from benchmark.cli import terminal
from benchmark.files import user_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.jobs import Job
    from benchmark.testing.audits import Item

NONE = "none"
_VERDICTS = {
    "clean": "nothing found",
    "declared": "it does, and declares it: tables mark it",
    "found": "it does, and does not say so",
    "weak": "nothing leaks, but something simpler does as well",
    "unknown": "not answered here",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    from benchmark.cli.asking import count

    parser.add_argument("method", metavar="METHOD[@RECIPE]", help="what to audit; or the file of an imported run")
    parser.add_argument("--scenario", metavar="NAME", help="stream to train on (default: a bundled one)")
    parser.add_argument("--track", metavar="TRACK", help="track (default: the scenario's first)")
    parser.add_argument("--backbone", metavar="NAME", help="backbone (default: the track's)")
    parser.add_argument("--weights", type=user_path, metavar="FILE", help="weights of your own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="options, as for bench run")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="seed (default 0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="device (default auto)")
    parser.add_argument("--controls", metavar="A,B", help=f"yardsticks (default: all that run there); {NONE}: no such")
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets (default BENCH_DATA)")
    parser.add_argument("-o", "--output", type=user_path, metavar="FILE", help="write the page there, as Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints or writes the page.

    Returns:
        0, or 1 if something was found that the method does not declare.

    Raises:
        UsageError: Unknown method, scenario or option, or the method does not run there.
        DataMissing: The data of the scenario are not there.
    """
    from benchmark import registry
    from benchmark.cli.leaderboard import split
    from benchmark.config import parse_assignments
    from benchmark.errors import EXIT_FAILED, EXIT_OK, did_you_mean
    from benchmark.files import check_file, replace_file
    from benchmark.jobs import Job
    from benchmark.testing import audits

    if args.output is not None:
        check_file(args.output, "-o")
    if args.method.endswith(".json"):
        return _of_log(args)
    controls = None if args.controls is None else split([args.controls])
    for name in controls or ():
        if name != NONE and name.partition("@")[0] not in registry.names("methods"):
            raise did_you_mean("method", name, registry.names("methods"))
    subject = audits.spec_of(args.method)
    job = Job(
        scenario=args.scenario or audits.stream_for(subject),
        method=args.method,
        seed=args.seed,
        track=args.track,
        backbone=args.backbone,
        weights=None if args.weights is None else str(args.weights),
        settings=parse_assignments(args.set),
        device=args.device,
        data_root=None if args.data_root is None else str(args.data_root),
        download="never",
    )
    items = []
    for item in audits.items(job, None if controls is None else [name for name in controls if name != NONE]):
        items.append(item)
        if not args.json and args.output is None and not args.quiet:
            terminal.say(f"{item.verdict:<8}  {item.question}")
    found = any(item.verdict == "found" for item in items)
    if args.json:
        rows = [{"question": item.question, "verdict": item.verdict, "finding": item.finding} for item in items]
        terminal.show(json.dumps({"method": args.method, "scenario": job.scenario, "items": rows}, indent=1))
    elif args.output is None:
        terminal.write(page(args.method, job, items, controls))
    else:
        replace_file(args.output, page(args.method, job, items, controls).encode())
        terminal.say(f"wrote {args.output}")
    return EXIT_FAILED if found else EXIT_OK


def _of_log(args: argparse.Namespace) -> int:
    """The audit of a run of another suite, from its file below ``imported/``.

    Raises:
        DataMissing: It is not there, or no imported run.
    """
    from benchmark.errors import EXIT_FAILED, EXIT_OK
    from benchmark.files import replace_file
    from benchmark.records import imported
    from benchmark.testing import log_audits

    found = imported.read(user_path(args.method))
    items = list(log_audits.items(found))
    title = f"{found.method or 'a method'} of {found.source.suite}, {found.source.file}"
    text = _page(title, f"bench audit {args.method}", items)
    if args.json:
        rows = [{"question": item.question, "verdict": item.verdict, "finding": item.finding} for item in items]
        terminal.show(json.dumps({"imported": found.import_id, "items": rows}, indent=1))
    elif args.output is None:
        terminal.write(text)
    else:
        replace_file(args.output, text.encode())
        terminal.say(f"wrote {args.output}")
    return EXIT_FAILED if any(item.verdict == "found" for item in items) else EXIT_OK


def page(method: str, job: Job, items: Sequence[Item], controls: Sequence[str] | None = None) -> str:
    """The audit as Markdown."""
    import shlex

    command = ["bench", "audit", method, "--scenario", job.scenario]
    command += ["--track", job.track] if job.track else []
    command += ["--backbone", job.backbone] if job.backbone else []
    command += [word for key, value in job.settings.items() for word in ("--set", f"{key}={value}")]
    command += ["--seed", str(job.seed)] if job.seed else []
    command += ["--controls", ",".join(controls)] if controls else []
    return _page(f"{method} on {job.scenario}", shlex.join(command), items)


def _page(title: str, command: str, items: Sequence[Item]) -> str:
    from benchmark import __version__

    counts = {verdict: sum(item.verdict == verdict for item in items) for verdict in _VERDICTS}
    lines = [
        f"# Audit of {title}",
        "",
        f"    {command}",
        "",
        f"adaptbench {__version__}. "
        + ", ".join(f"{number} {word}" for word, number in counts.items() if number)
        + ".",
        "",
        "| question | verdict | finding |",
        "|---|---|---|",
    ]
    lines += [f"| {item.question} | **{item.verdict}** | {_cell(item.finding)} |" for item in items]
    lines += ["", *(f"- *{word}*: {meaning}." for word, meaning in _VERDICTS.items() if counts[word])]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
