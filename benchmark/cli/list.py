"""``bench list``: names from package metadata; imports no plugin."""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmark import registry
from benchmark.cli import terminal

GROUPS = registry.KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("group", nargs="?", choices=GROUPS, help="what to list (default: everything)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Prints names and distributions."""
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
    for clash in clashes:
        terminal.say(f"warning: {clash}")
    if args.json:
        terminal.show(json.dumps({title: listing[title] for title in groups}, indent=2))
        return 0
    for title in groups:
        rows = listing[title]
        if len(groups) > 1:
            terminal.show(f"{title}:")
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            indent = "  " if len(groups) > 1 else ""
            terminal.show(f"{indent}{row['name']:<{width}}  {row['distribution']}")
    return 0
