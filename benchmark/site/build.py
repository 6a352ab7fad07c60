"""Puts a site together: every file by its path, one after the other; nothing is written here but by `write`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import __version__, leaderboard
from benchmark.errors import UsageError
from benchmark.files import check_folder, replace_file
from benchmark.leaderboard.comparison import PathOf
from benchmark.leaderboard.scores import boards_of
from benchmark.records.imported import Imported
from benchmark.records.schema import Record, plain
from benchmark.records.store import dumps
from benchmark.site import compare, methods, pages, plots, scenarios, tables
from benchmark.site.names import slug
from benchmark.site.pages import Pages
from benchmark.site.plots import Drawn, Report
from benchmark.site.scenarios import Look
from benchmark.site.tables import TableShown
from benchmark.specs import USES

MARKER = ".adaptbench-site.json"
"""Names what a build wrote, so that the next one takes away what is stale and touches nothing else."""

Files = Iterator[tuple[str, bytes]]


def _nowhere(run: Record) -> Path | None:
    """No predictions are at hand."""
    return None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a site is made of.

    Attributes:
        records: Our runs.
        imported: Runs of other suites, in rows of their own.
        methods: Only these rows beside the controls; none: all.
        title: Of the site.
        installed: Whether installed methods and scenarios that have no record get pages, too.
        kinds: Plots that are drawn for each table (`benchmark.site.plots.OF_TABLES`); none: no figures.
        linked: Whether the records are part of the site.
        look: Finds samples of scenarios; None: none are shown.
        predictions: Where the predictions of a run lie, or None, for comparisons over test samples.
        report: Told of what fails and is passed over.
        step: Told of what comes next, and of how many parts this is.
    """

    records: Sequence[Record]
    imported: Sequence[Imported] = ()
    methods: Sequence[str] = ()
    title: str = "Results"
    installed: bool = True
    kinds: Sequence[str] = plots.OF_TABLES
    linked: bool = True
    look: Look | None = None
    predictions: PathOf = _nowhere
    report: Report = field(default=lambda text: None)
    step: Callable[[str, int], None] = field(default=lambda part, parts: None)


def build(request: Request) -> Files:
    """The files of a site, each by its path with ``/``.

    Args:
        request: What it is made of.

    Yields:
        Path and content. The same records, plugins and data give the same files.
    """
    records = request.records
    by_id = {run.run_id: run for run in records}
    boards = {board.title: board for board in boards_of(records)}
    found = leaderboard.leaderboard(records, methods=request.methods, imported=request.imported)
    shown = [tables.shown(table, boards.get(table.title), by_id, request.linked) for table in found]
    every = methods.every(records, shown, request.installed, request.report)
    cut = scenarios.every(records, shown, request.installed, request.report)
    parts = 2 + len(shown) + len(every) + len(cut)
    render = Pages(request.title, __version__)
    kinds = plots.installed(request.kinds)
    names = {
        "methods": {method.name: method.path for method in every},
        "scenarios": {scenario.name: scenario.path for scenario in cut},
    }

    request.step("index", parts)
    yield from pages.static().items()
    counts = {"records": len(records), "tables": len(shown), "methods": len({run.method.name for run in records})}
    index = {"tables": shown, "methods": every, "scenarios": cut, "counts": counts, "uses": USES}
    yield "index.html", render.render("index.html", "index.html", index)
    for table in shown:
        request.step(table.name, parts)
        yield from _table(table, render, kinds, names, request)
    for method in every:
        request.step(method.name, parts)
        of_methods = plots.installed(plots.OF_METHODS) if kinds else []
        drawn = yield from _drawn(of_methods, method.records, f"figures/method-{slug(method.name)}", request.report)
        values = {"method": method, "figures": drawn, "uses": USES, "cells": tables.cell_shown}
        yield method.path, render.render("method.html", method.path, values)
    for scenario in cut:
        request.step(scenario.name, parts)
        yield from _scenario(scenario, render, request)
    request.step("compare", parts)
    yield from _compare(shown, records, render, kinds, request)
    for run in by_id.values() if request.linked else ():
        yield tables.record_path(run), (dumps(plain(run)) + "\n").encode()


def _drawn(kinds: Sequence[str], records: Sequence[Record], path: str, report: Report) -> Any:
    """Yields the files of figures and returns the figures."""
    drawn: list[Drawn] = []
    for figure in plots.draw(kinds, records, path, report):
        drawn.append(figure)
        yield figure.path, figure.content
    return drawn


def _table(
    table: TableShown, render: Pages, kinds: Sequence[str], names: Mapping[str, Mapping[str, str]], request: Request
) -> Files:
    records = plots.chosen(table.board) if table.board else []
    drawn = yield from _drawn(kinds, records, f"figures/{table.key}", request.report)
    values = {
        "table": table,
        "figures": drawn,
        "uses": USES,
        "paths": names,
        "comparable": table.board is not None and compare.comparable(table.board),
    }
    yield table.path, render.render("table.html", table.path, values)


def _scenario(scenario: scenarios.ScenarioShown, render: Pages, request: Request) -> Files:
    samples = request.look(scenario.first) if request.look and scenario.first is not None else None
    picture = ""
    if samples is not None and samples.picture:
        picture = f"samples/{slug(scenario.name)}.png"
        yield picture, samples.picture
    values = {"scenario": scenario, "samples": samples, "picture": picture}
    yield scenario.path, render.render("scenario.html", scenario.path, values)


def _compare(
    shown: Sequence[TableShown], records: Sequence[Record], render: Pages, kinds: Sequence[str], request: Request
) -> Files:
    offered = [table for table in shown if table.board is not None and compare.comparable(table.board)]
    for table in offered:
        if table.board is not None:
            yield compare.path(table.board), compare.data(table.board, request.predictions)
    tracks: dict[str, list[Drawn]] = {}
    for track in sorted({run.track for run in records}) if kinds else ():
        runs = [run for run in records if run.track == track]
        over = plots.installed(plots.OVER_TABLES)
        tracks[track] = yield from _drawn(over, runs, f"figures/track-{slug(track)}", request.report)
    values = {"tables": offered, "tracks": {track: drawn for track, drawn in tracks.items() if drawn}}
    yield "compare.html", render.render("compare.html", "compare.html", values)


# --- on disk --------------------------------------------------------------------------------------


def check(folder: Path, option: str) -> None:
    """Sees to it, before any work, that a site can be written into a folder.

    Args:
        folder: It may not exist yet, be empty, or hold a site that `write` made.
        option: What named it, for messages.

    Raises:
        UsageError: It cannot be written, or holds something else.
    """
    check_folder(folder, option)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(
            f"{option} {folder}: the folder holds other files, and no site that `bench site` made",
            hint="give a new or an empty folder",
        )


def write(folder: Path, files: Files) -> int:
    """Writes the files of a site, and removes those of an earlier build that are no part of this one.

    Args:
        folder: See `check`.
        files: Of `build`.

    Returns:
        How many were written.

    Raises:
        RunFailed: A file cannot be written.
        ValueError: Two files have one path.
    """
    before = _before(folder)
    written: set[str] = set()
    # First of all, so that a build that is interrupted can be repeated.
    replace_file(folder / MARKER, _marker(before))
    for path, content in files:
        if path in written:
            raise ValueError(f"two files of the site are called {path}")
        written.add(path)
        target = folder / path
        if not target.is_file() or target.is_symlink() or target.read_bytes() != content:
            replace_file(target, content)
    for path in before - written:
        (folder / path).unlink(missing_ok=True)
    replace_file(folder / MARKER, _marker(written))
    return len(written)


def _marker(paths: set[str]) -> bytes:
    return (json.dumps({"files": sorted(paths)}, indent=1) + "\n").encode()


def _before(folder: Path) -> set[str]:
    """Files of an earlier build that lie where a build would put them; whatever else the marker names is left alone."""
    try:
        told = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {path for path in told if isinstance(path, str) and _ours(path)} if isinstance(told, list) else set()


def _ours(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= 2 and all(part and not part.startswith(".") and "\\" not in part for part in parts)
