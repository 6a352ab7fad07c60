"""``bench list``: names from package metadata; imports no plugin."""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmark import registry
from benchmark.cli import terminal

GROUPS = (*registry.KINDS, "backbones")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("group", nargs="?", choices=GROUPS, help="what to list (default: everything)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Prints names and distributions."""
    groups = (args.group,) if args.group else GROUPS
    listing: dict[str, list[dict[str, Any]]] = {}
    clashes = []
    if "backbones" in groups:
        listing["backbones"] = _backbones()
    for group in registry.KINDS:
        if group not in groups:
            continue
        rows = []
        for name, claims in registry.entries(group).items():
            owners = " and ".join(claim.distribution for claim in claims)
            rows.append({"name": name, "distribution": owners, "module": claims[0].module})
            if len(claims) > 1:
                clashes.append(f"{group[:-1]} `{name}` is claimed by {owners}: uninstall one of them, or hide the name")
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


def _backbones() -> list[dict[str, Any]]:
    from benchmark.backbones.loading import bundled

    rows = [{"name": name, "distribution": "bundled with adaptbench", "module": ""} for name in bundled()]
    return [
        *rows,
        {"name": "timm:MODEL.TAG", "distribution": "any plain ViT of timm, with its full tag", "module": ""},
        {"name": "open_clip:MODEL/TAG", "distribution": "any dual encoder of open_clip, with its tag", "module": ""},
    ]
