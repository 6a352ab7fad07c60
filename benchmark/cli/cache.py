"""``bench cache list|clear``: what the cache folder holds of derived files, and their removal."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli import terminal
from benchmark.errors import RunFailed, did_you_mean

ARRAYS, INDEX, DECODED = "decoded arrays", "hashes of image files", "decoded image files"
FEATURES = "features of frozen networks"


@dataclass(frozen=True)
class Entry:
    """One thing that can be made again.

    Attributes:
        name: Relative to the cache folder.
        kind: What it is.
        size: In bytes.
        path: Folder or file.
    """

    name: str
    kind: str
    size: int
    path: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shown = actions.add_parser("list", help="what is there, and how large it is")
    shown.add_argument("--json", action="store_true", help="machine-readable output")
    cleared = actions.add_parser("clear", help="remove entries; they are made again when they are needed")
    cleared.add_argument("names", nargs="*", metavar="NAME", help="of entries, from `bench cache list`; default: all")


def run(args: argparse.Namespace) -> int:
    """Does what was asked for."""
    from benchmark import data

    root = data.cache_root()
    found = entries(root)
    if args.action == "clear":
        return _clear(found, args.names)
    if args.json:
        told = [{"name": entry.name, "kind": entry.kind, "bytes": entry.size} for entry in found]
        terminal.show(json.dumps({"path": str(root), "entries": told}, indent=2))
        return 0
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        terminal.show(f"{entry.name:<{width}}  {data.mebibytes(entry.size):>10}  {entry.kind}")
    terminal.say(f"{len(found)} entries, {data.mebibytes(sum(entry.size for entry in found))}, in {root}")
    return 0


def entries(root: Path) -> list[Entry]:
    """What adaptbench has put into a cache folder; whatever else lies there is left alone."""
    from benchmark.readers import decoded, kept
    from benchmark.readers.cache import MANIFEST
    from benchmark.readers.index import FOLDER

    found = []
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        folder = manifest.parent
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        found.append(Entry(folder.name, ARRAYS, size, folder))
    for index in sorted((root / FOLDER).glob("*.npz")):
        found.append(Entry(f"{FOLDER}/{index.name}", INDEX, index.stat().st_size, index))
    for parent, kind in ((decoded.FOLDER, DECODED), (kept.FEATURES, FEATURES)):
        for folder in sorted(path for path in (root / parent).glob("*") if path.is_dir()):
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            found.append(Entry(f"{parent}/{folder.name}", kind, size, folder))
    return found


def _clear(found: list[Entry], names: list[str]) -> int:
    known = {entry.name: entry for entry in found}
    for name in names:
        if name not in known:
            raise did_you_mean("cache entry", name, known, more="bench cache list")
    for entry in [known[name] for name in names] or found:
        try:
            shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
        except OSError as error:
            raise RunFailed(f"{entry.path} cannot be removed: {error.strerror or error}") from error
        terminal.show(entry.name)
    return 0
