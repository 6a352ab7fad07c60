"""``bench data ACTION``: what is known of data before anything is trained on them. One module for each action."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from benchmark.cli import data_sets

ACTIONS: dict[str, str] = {
    "check": "what a folder or list of your own images holds, and what is wrong with it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions, each with the options of its module."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        own = actions.add_parser(name, help=summary, description=summary)
        _module(name).add_arguments(own)
        own.set_defaults(data_action=_module(name).run)
    data_sets.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    """Does what was asked for."""
    code: int = args.data_action(args)
    return code


def _module(action: str) -> Any:
    return importlib.import_module(f"benchmark.cli.data_{action}")
