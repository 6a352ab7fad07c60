"""``bench new-plugin NAME``: the skeleton of a plugin package that works as it is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from benchmark.cli import terminal
from benchmark.errors import UsageError, shorten
from benchmark.files import check_folder, user_path

TEMPLATES = Path(__file__).parent.parent / "templates" / "plugin"

LONGEST = 100  # characters of a name: it becomes part of file names

# Template file -> where it goes in the new package.
TARGETS: dict[str, str] = {
    "pyproject.toml.tmpl": "pyproject.toml",
    "README.md.tmpl": "README.md",
    "module.py.tmpl": "@PACKAGE@/__init__.py",
    "test_contract.py.tmpl": "tests/test_contract.py",
    "ci.yml.tmpl": ".github/workflows/ci.yml",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", help="name on the command line: lower-case letters, digits and hyphens")
    parser.add_argument("--kind", choices=("method", "scenario"), default="method", help="default: method")
    parser.add_argument(
        "--dir",
        type=user_path,
        default=Path(),
        metavar="DIR",
        help="parent of the new folder (default: the current one)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the package and prints its files; what to do next goes to stderr."""
    from benchmark.files import replace_file

    words = names(args.name, args.kind)
    folder = args.dir / words["DISTRIBUTION"]
    check_folder(args.dir, "--dir")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already", hint="nothing was overwritten; choose another name or --dir")
    for template, target in TARGETS.items():
        path = folder / fill(target, words)
        text = fill((TEMPLATES / args.kind / template).read_text(encoding="utf-8"), words)
        replace_file(path, text.encode())
        terminal.show(path)
    terminal.say(
        f"next: python -m pip install -e {folder} && bench check {args.name}\n"
        f"then edit {folder / words['PACKAGE'] / '__init__.py'}"
    )
    return 0


def names(name: str, kind: str) -> dict[str, str]:
    """The words that a template needs.

    Args:
        name: Name of the plugin on the command line, e.g. ``my-method``.
        kind: ``method`` or ``scenario``.

    Raises:
        UsageError: The name is malformed, or taken by an installed plugin.
    """
    from benchmark import __version__, registry

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise UsageError(
            f"`{shorten(name)}` cannot be the name of a plugin",
            hint=f"use lower-case letters, digits and single hyphens, {LONGEST} at most, e.g. my-method",
        )
    claims = registry.entries("methods" if kind == "method" else "scenarios").get(name)
    if claims:
        raise UsageError(
            f"{kind} `{name}` exists already in `{claims[0].distribution}`", hint="a name has one owner: choose another"
        )
    return {
        "NAME": name,
        "KIND": kind,
        "PACKAGE": f"bench_{name.replace('-', '_')}",
        "DISTRIBUTION": f"bench-{name}",
        "CLASS": "".join(word.capitalize() for word in name.split("-")),
        "VERSION": __version__,
    }


def fill(text: str, words: dict[str, str]) -> str:
    """Replaces ``@WORD@`` by its value."""
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
