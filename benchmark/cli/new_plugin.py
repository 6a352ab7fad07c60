"""``bench new-plugin NAME``: the skeleton of a plugin package that works as it is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmark.cli import terminal
from benchmark.errors import UsageError, shorten
from benchmark.files import check_folder, user_path

TEMPLATES = Path(__file__).parent.parent / "templates" / "plugin"

if TYPE_CHECKING:
    from benchmark.registry import Kind

LONGEST = 100  # characters of a name: it becomes part of file names

# What can be written, with the entry-point group that it is registered in.
GROUPS: dict[str, str] = {
    "method": "bench.methods",
    "scenario": "bench.scenarios",
    "exporter": "bench.exporters",
    "tracker": "bench.trackers",
    "backbone": "bench.backbones",
    "metric": "bench.metrics",
    "plot": "bench.plots",
}

# File of the new package -> its template, below `TEMPLATES`.
TARGETS: dict[str, str] = {
    "pyproject.toml": "common/pyproject.toml.tmpl",
    "README.md": "common/README.md.tmpl",
    "@PACKAGE@/__init__.py": "@KIND@/module@FAMILY@.py.tmpl",
    "tests/test_contract.py": "common/test_contract.py.tmpl",
    ".github/workflows/ci.yml": "common/ci.yml.tmpl",
}
USE = "@KIND@/use@FAMILY@.tmpl"  # commands that the README shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", help="name on the command line: lower-case letters, digits and hyphens")
    parser.add_argument("--kind", choices=tuple(GROUPS), default="method", help="default: method")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="of a method or a scenario, the family that it begins from: "
        + "; ".join(f"{kind}: {', '.join(families(kind))}" for kind in GROUPS if families(kind))
        + " (default: the first)",
    )
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

    words = names(args.name, args.kind, args.family)
    folder = args.dir / words["DISTRIBUTION"]
    check_folder(args.dir, "--dir")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already", hint="nothing was overwritten; choose another name or --dir")
    for target, template in TARGETS.items():
        path = folder / fill(target, words)
        replace_file(path, fill(_read(template, words), words).encode())
        terminal.show(path)
    terminal.say(
        f"next: python -m pip install -e {folder} && bench check {args.name}\n"
        f"then edit {folder / words['PACKAGE'] / '__init__.py'}"
    )
    return 0


def families(kind: str) -> list[str]:
    """The families for which there is a skeleton of a kind, the usual one first; empty where none matters."""
    return sorted(path.name.split(".")[1] for path in (TEMPLATES / kind).glob("module.*.py.tmpl"))


def names(name: str, kind: str, family: str | None = None) -> dict[str, str]:
    """The words that a template needs.

    Args:
        name: Name of the plugin on the command line, e.g. ``my-method``.
        kind: A key of `GROUPS`.
        family: One of `families`; None: the first of them, if there are any.

    Raises:
        UsageError: The name is malformed, or taken by an installed plugin; or the family has no skeleton.
    """
    from benchmark import __version__, registry

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise UsageError(
            f"`{shorten(name)}` cannot be the name of a plugin",
            hint=f"use lower-case letters, digits and single hyphens, {LONGEST} at most, e.g. my-method",
        )
    known = families(kind)
    if family is not None and family not in known:
        hint = f"use one of {', '.join(known)}" if known else f"a {kind} is of no family: leave --family out"
        raise UsageError(f"--family {shorten(family)}: there is no such skeleton of a {kind}", hint=hint)
    claims = registry.entries(cast("Kind", f"{kind}s")).get(name)
    if claims:
        raise UsageError(
            f"{kind} `{name}` exists already in `{claims[0].distribution}`", hint="a name has one owner: choose another"
        )
    words = {
        "NAME": name,
        "KIND": kind,
        "GROUP": GROUPS[kind],
        "CONTRACT": f"{kind.capitalize()}Contract",
        "FAMILY": f".{family or known[0]}" if known else "",
        "PACKAGE": f"bench_{name.replace('-', '_')}",
        "DISTRIBUTION": f"bench-{name}",
        "CLASS": "".join(word.capitalize() for word in name.split("-")),
        "VERSION": __version__,
    }
    words["USE"] = fill(_read(USE, words), words)
    return words


def fill(text: str, words: dict[str, str]) -> str:
    """Replaces ``@WORD@`` by its value."""
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _read(template: str, words: dict[str, str]) -> str:
    return (TEMPLATES / fill(template, words)).read_text(encoding="utf-8")
