"""``bench list``: names from package metadata; ``bench list scenarios`` also imports them to say what each is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmark import registry
from benchmark.cli import terminal
from benchmark.errors import BenchError, DataMissing
from benchmark.files import user_path

GROUPS = registry.KINDS
SHOWN = ("family", "tracks", "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("group", nargs="?", choices=GROUPS, help="what to list (default: everything)")
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets, for `bench list scenarios`")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Prints names and distributions, and for scenarios alone what they are and whether their data are here."""
    groups = (args.group,) if args.group else GROUPS
    listing: dict[str, list[dict[str, Any]]] = {}
    clashes = []
    for group in groups:
        rows = []
        for name, claims in registry.entries(group).items():
            owners = " and ".join(claim.distribution for claim in claims)
            rows.append({"name": name, "distribution": owners, "module": claims[0].module})
            if len(claims) > 1:
                one = registry.singular(group)
                clashes.append(f"{one} `{name}` is claimed by {owners}: uninstall one of them, or hide the name")
        listing[group] = rows
    if args.group == "scenarios":
        for row in listing["scenarios"]:
            row.update(_scenario(row["name"], args.data_root))
    for clash in clashes:
        terminal.say(f"warning: {clash}")
    if args.json:
        terminal.show(json.dumps({title: listing[title] for title in groups}, indent=2))
        return 0
    for title in groups:
        rows = listing[title]
        if len(groups) > 1:
            terminal.show(f"{title}:")
        told = [key for key in ("name", *SHOWN) if any(key in row for row in rows)]
        widths = {key: max((len(row[key]) for row in rows), default=0) for key in told}
        for row in rows:
            indent = "  " if len(groups) > 1 else ""
            cells = "  ".join(f"{row[key]:<{widths[key]}}" for key in told)
            terminal.show(f"{indent}{cells}  {row['distribution']}")
    return 0


def _scenario(name: str, root: Path | None) -> dict[str, str]:
    """Family, tracks, and whether the data of a scenario are here; a broken plugin says so in its own line only."""
    from typing import cast

    from benchmark import data
    from benchmark.specs import ScenarioSpec

    try:
        spec = cast("ScenarioSpec", registry.load_scenario(name).spec)
    except BenchError as error:
        terminal.say(f"warning: {error.message}")
        return dict.fromkeys(SHOWN, "broken")
    try:
        missing = data.absent(spec.data, root)
    except DataMissing as error:
        terminal.say(f"warning: {error.message}")
        missing = list(spec.data)
    if missing:
        there = "missing: " + ", ".join(dataset.title for dataset in missing)
    elif spec.data:
        there = "here"
    else:
        there = "unknown" if spec.size_mb else "bundled"
    family = spec.family if name == spec.name else f"{spec.family} (alias of {spec.name})"
    return {"family": family, "tracks": ", ".join(spec.tracks), "data": there}
