"""``bench data list|get|verify|add|stats``: the data sets that scenarios read, here or to be had, whole or not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import terminal
from benchmark.errors import DataMissing
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.inventory import Known

MOST_LISTED = 20  # unreadable files that are named


def add_actions(verbs: Any) -> None:
    """Adds the actions to those of ``bench data`` (what `argparse` returns for sub-commands)."""
    for name, (function, summary) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        verb.set_defaults(data_action=function)
        if name == "add":
            verb.add_argument("path", type=user_path, metavar="PATH", help="folder, archive or table")
            verb.add_argument("--as", dest="name", metavar="NAME", help="data set that it is (default: recognised)")
        elif name != "list":
            verb.add_argument("name", metavar="NAME", help="of `bench data list`")
        if name == "get":
            verb.add_argument(
                "--from",
                dest="source",
                choices=("auto", "origin", "hub"),
                default="auto",
                help="its own addresses, its mirror on the Hugging Face hub, or the first that works (default)",
            )
        if name in ("list", "stats"):
            verb.add_argument("--json", action="store_true", help="machine-readable output")
        if name == "stats":
            verb.add_argument("--write", action="store_true", help="replace the committed ones (for maintainers)")
        verb.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets (default BENCH_DATA)")


def _warn(text: str) -> None:
    terminal.say(f"warning: {text}")


def _root(given: Path | None) -> Path:
    from benchmark import data

    return data.data_root(given)


def _list(args: argparse.Namespace) -> int:
    from benchmark import inventory

    root = _root(args.data_root)
    rows: list[dict[str, Any]] = []
    for key, entry in inventory.known(_warn).items():
        state = inventory.state(entry.dataset, root)
        files = () if state.form is None else state.form.files
        rows.append(
            {
                "name": key,
                "title": entry.dataset.title,
                "here": state.text,
                "place": str(state.folder or root / entry.dataset.folders[0]),
                "bytes here": sum(path.stat().st_size for path in files) if files else None,
                "download MB": round(entry.size_mb, 1) or None,
                "licence": entry.licence,
                "get": _how(entry),
                "source": entry.source,
                "forms": list(entry.dataset.layouts),
                "scenarios": entry.scenarios,
            }
        )
    if args.json:
        terminal.show(json.dumps({"root": str(root), "data sets": rows}, indent=2))
        return 0
    terminal.show(f"data root: {root}")
    for row in rows:
        here = f", {row['bytes here'] / 1e6:,.1f} MB" if row["bytes here"] else ""
        terminal.show(f"\n{row['name']}: {row['title']}, {row['here']}{here}")
        terminal.show(f"  folder     {row['place']}")
        terminal.show(f"  forms      {' | '.join(row['forms'])}")
        size = "not known" if row["download MB"] is None else f"{row['download MB']:,.1f} MB to get"
        terminal.show(f"  size       {size}")
        terminal.show(f"  get        {row['get']}")
        terminal.show(f"  licence    {row['licence'] or 'none stated'}")
        terminal.show(f"  scenarios  {', '.join(row['scenarios'])}")
    terminal.say(
        f"{len(rows)} data sets; scenarios that are named nowhere here bring their data or read a path of yours"
    )
    return 0


def _how(entry: Known) -> str:
    dataset = entry.dataset
    if not dataset.every_download and dataset.mirror is None:
        return f"by hand: {entry.source or 'no source is known'}"
    size = f" ({entry.size_mb:,.1f} MB)" if entry.size_mb else ""
    sources = [download.url for download in dataset.every_download[:1]]
    sources += [str(dataset.mirror)] if dataset.mirror else []
    return f"bench data get {dataset.key}{size}, from {' or '.join(sources)}"


def _get(args: argparse.Namespace) -> int:
    from benchmark import inventory

    dataset = inventory.one(args.name, _warn).dataset
    root = _root(args.data_root)
    state = inventory.state(dataset, root)
    if state.form is not None:
        terminal.show(f"{dataset.title} is here ({state.form.name}): {state.folder or root}")
        return 0
    folder = inventory.get(dataset, root, source=args.source)
    terminal.show(f"{dataset.title}: {folder}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from benchmark import data, inventory
    from benchmark.api import ScenarioRequest

    dataset = inventory.one(args.name, _warn).dataset
    root = _root(args.data_root)
    form = inventory.state(dataset, root).form
    total = None if form is None else len(form.files)
    problems = []
    found = inventory.verify(dataset, root)
    for number, (path, problem) in enumerate(tqdm(found, desc=dataset.key, total=total, unit="file", disable=None), 1):
        total = number
        if problem is not None:
            problems.append(f"{path}: {problem}")
    if problems:
        for line in problems[:MOST_LISTED]:
            terminal.show(line)
        more = f" ({len(problems) - MOST_LISTED:,} more are not shown)" if len(problems) > MOST_LISTED else ""
        raise DataMissing(
            f"{dataset.title}: {len(problems):,} of {total:,} files cannot be read or are not what was published{more}",
            hint=f"get them again: {_how(inventory.one(args.name))}",
        )
    if dataset.contents is not None:  # counts, classes and labels against the table
        dataset.contents(ScenarioRequest(data_root=root, cache=data.cache_root(), download="never"))
    terminal.show(f"{dataset.title}: {total:,} files read, all as they should be")
    return 0


def _add(args: argparse.Namespace) -> int:
    from benchmark import data, inventory

    given = args.data_root
    root = data.data_root(given) if given is None or given.is_dir() else given
    entry, form, link = inventory.add(args.path, root, args.name)
    terminal.show(f"{entry.dataset.title} ({form.name}): {link} -> {args.path.resolve()}")
    terminal.say(f"read by {', '.join(entry.scenarios)}")
    return 0


def _stats(args: argparse.Namespace) -> int:
    from benchmark import data, data_facts, inventory
    from benchmark.api import ScenarioRequest
    from benchmark.cli import counting

    entry = inventory.one(args.name, _warn)
    dataset = entry.dataset
    root = _root(args.data_root)
    request = ScenarioRequest(data_root=root, cache=data.cache_root(), download="never")
    if dataset.contents is None:
        name, parts, class_names, notes = counting.as_read(entry, request)
        terminal.say(f"as `{name}` reads it with its default options, seed 0")
    else:
        (parts, notes), class_names = dataset.contents(request), dataset.class_names
    here = data_facts.describe(parts, class_names, notes)
    if args.write and dataset.facts is not None:
        from benchmark.files import replace_file

        replace_file(dataset.facts, (json.dumps(here, indent=1) + "\n").encode())
    if args.json:
        terminal.show(json.dumps(here, indent=2))
    else:
        _show(dataset.title, here)
    committed = None if dataset.facts is None else data_facts.read(dataset.facts)
    if committed is None:
        return 0
    if committed["copy"] != here["copy"]:
        said = "; ".join(committed["copy"].values()) or "the original"
        terminal.say(f"the committed statistics are of another copy ({said}); nothing but the classes is compared")
    if told := data_facts.differences(committed, here):
        raise DataMissing(
            f"{dataset.title} is not as in the committed statistics: {'; '.join(told)}",
            hint="`bench data verify` reads every file; get the data again",
        )
    if committed["copy"] == here["copy"]:
        terminal.say("as in the committed statistics")
    return 0


def _show(title: str, facts: dict[str, Any]) -> None:
    terminal.show(f"{title}: {facts['classes']} classes")
    for name, text in facts["copy"].items():
        terminal.show(f"  {name}: {text}")
    for name, part in facts["parts"].items():
        low, high = part["per_class"]
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        sizes = ", ".join(f"{size} ({number:,})" for size, number in part["sizes"].items())
        terminal.show(f"  {name}: {part['samples']:,} samples, {each} per class, {sizes}")
        terminal.show(f"    duplicates {part['duplicates']:,}, also in an earlier part {part['shared']:,}")
        if part["absent"]:
            terminal.show(f"    no sample of {', '.join(part['absent'])}")
        terminal.show(f"    sha256 {part['sha256']}")


VERBS = {
    "list": (_list, "which data sets there are, where, in which form and size, their licence, how to get them"),
    "get": (_get, "fetch a data set from the sources that its entry names; resumed and checked"),
    "verify": (_verify, "read every file of a data set to its end"),
    "add": (_add, "make data that lie elsewhere known, by a link below the data root"),
    "stats": (_stats, "counts, classes, sizes, duplicates and hashes, against the committed ones"),
}
