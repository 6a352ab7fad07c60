"""The page of a method: its paper, recipes, differences and options; published figures and ours; its rows in tables."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from benchmark import registry
from benchmark.config import ranges
from benchmark.errors import BenchError
from benchmark.leaderboard import bibliography, ledger, published
from benchmark.leaderboard.arrangement import View, arranged
from benchmark.leaderboard.rows import show
from benchmark.records.schema import Record
from benchmark.site import links, prose
from benchmark.site.names import slug
from benchmark.site.plots import Report
from benchmark.site.tables import IMPORTED, RowShown, TableShown
from benchmark.specs import MethodSpec
from benchmark.tables import Table

_LEDGER = ("row", "scenario", "backbone", "metric", "reported", "ours", "difference", "tolerance", "status")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A row of a table that is this method's.

    Attributes:
        table: The table.
        row: The row.
        place: Among the rows that are no upper bound, the best is 1; None for those.
        of: How many these are.
    """

    table: TableShown
    row: RowShown
    place: int | None
    of: int


@dataclass(frozen=True, kw_only=True)
class MethodShown:
    """A method.

    Attributes:
        path: Of its page in the site.
        name: On the command line.
        display: What people call it.
        summary: One line; empty where its plugin is not installed.
        distribution: Package and version.
        installed: Whether its plugin is here.
        paper: Id of its paper, or empty.
        about: What is known of the paper: author, title, venue, year.
        link: Address of the paper, or None.
        reference: Official code, in words.
        code: Address of that, or None.
        uses: What it declares.
        tags: Further words to filter by.
        text: Its module's documentation.
        recipes: Each with what differs from the default.
        tracks: Each with its values.
        rule: How these were found.
        default: Name of the default recipe.
        options: Name, default, range, source.
        ledger: Published figures and ours, or None.
        bibtex: Entry of its paper, or empty.
        rows: Where it stands in the tables.
        records: Its runs.
    """

    path: str
    name: str
    display: str
    summary: str
    distribution: str
    installed: bool
    paper: str
    about: Mapping[str, str]
    link: str | None
    reference: str
    code: str | None
    uses: tuple[str, ...]
    tags: tuple[str, ...]
    text: Sequence[prose.Block]
    recipes: Mapping[str, str]
    tracks: Mapping[str, str]
    rule: str
    default: str
    options: Sequence[tuple[str, str, str, str]]
    ledger: Table | None
    bibtex: str
    rows: Sequence[Placed]
    records: Sequence[Record]


def path_of(name: str) -> str:
    """Of the page of a method."""
    return f"methods/{slug(name)}.html"


def every(
    records: Iterable[Record], tables: Sequence[TableShown], installed: bool, report: Report
) -> list[MethodShown]:
    """All methods that records name, by name.

    Args:
        records: Of the site.
        tables: Of the site.
        installed: Whether those come, too, that are installed and have no record.
        report: Told of plugins that cannot be loaded.
    """
    runs: dict[str, list[Record]] = {}
    for run in records:
        runs.setdefault(run.method.name, []).append(run)
    known = registry.names("methods")
    reached = ledger.index(run for some in runs.values() for run in some)
    figures: dict[str, list[ledger.Target]] = {}
    for target in ledger.targets(known):
        figures.setdefault(target.method or target.key, []).append(target)
    placed = placements(tables)
    return [
        _method(
            name,
            runs.get(name, []),
            _loaded(name, report) if name in known else None,
            [(target, ledger.look(target, reached)) for target in figures.get(name, [])],
            placed.get(name, []),
        )
        for name in sorted({*runs, *(known if installed else ())})
    ]


def placements(tables: Sequence[TableShown]) -> dict[str, list[Placed]]:
    """The rows of every method, in the order of the tables."""
    found: dict[str, list[Placed]] = {}
    for table in tables:
        order = {row.id: place for place, (row, _) in enumerate(table.best, start=1)}
        for row in table.rows:
            if row.group != IMPORTED and row.runs:
                one = Placed(table=table, row=row, place=order.get(row.id), of=len(order))
                found.setdefault(row.method, []).append(one)
    return found


def _loaded(name: str, report: Report) -> registry.Loaded | None:
    try:
        return registry.load_method(name)
    except BenchError as error:
        report(error.message)
        return None


def _method(
    name: str,
    records: Sequence[Record],
    loaded: registry.Loaded | None,
    found: Sequence[tuple[ledger.Target, ledger.Found]],
    placed: Sequence[Placed],
) -> MethodShown:
    recorded = records[-1].method if records else None
    known: dict[str, Any] = {}
    paper = recorded.paper if recorded else ""
    if loaded is not None:
        spec = cast("MethodSpec", loaded.spec)
        paper = spec.paper or paper
        known = _known(spec, loaded.entry.module)
    uses = known.pop("uses", None) or tuple(recorded.uses if recorded else ())
    entry, without = bibliography.bibtex({name: paper}, {name: known.pop("bibtex", "")})
    return MethodShown(
        path=path_of(name),
        name=name,
        distribution=loaded.entry.distribution if loaded else recorded.distribution if recorded else "",
        installed=loaded is not None,
        paper=paper,
        about=published.paper(paper),
        link=links.paper(paper),
        uses=tuple(sorted(uses)),
        bibtex="" if without else entry,
        ledger=_ledger(found),
        rows=placed,
        records=records,
        **{**_UNKNOWN, "display": published.names().get(name, name), **known},
    )


_UNKNOWN: Mapping[str, Any] = {
    "summary": "",
    "reference": "",
    "code": None,
    "tags": (),
    "text": (),
    "recipes": {},
    "tracks": {},
    "rule": "",
    "default": "",
    "options": (),
}


def _known(spec: MethodSpec, module: str) -> dict[str, Any]:
    """What the plugin says."""
    declared = ranges(spec.config)
    tags: list[str] = [spec.stream] if spec.stream != "sequential" else []
    tags += ["control"] if spec.control else []
    tags += [f"reads {spec.reads}s"]
    tags += ["names of classes"] if spec.text else []
    tags += ["writes texts"] if spec.generates else []
    found = {
        "summary": spec.summary,
        "reference": spec.reference,
        "code": links.reference(spec.reference),
        "uses": tuple(spec.uses_of(spec.config())),
        "tags": tuple(tags),
        "text": prose.blocks(inspect.getdoc(sys.modules[module]) or ""),
        "recipes": {name: _values(values) for name, values in spec.recipes.items()},
        "tracks": {name: _values(values) for name, values in spec.tracks.items()},
        "rule": spec.rule,
        "default": spec.default_recipe,
        "options": [
            (field.name, show(field.default), str(declared.get(field.name, "")), spec.sources.get(field.name, ""))
            for field in dataclasses.fields(spec.config)
        ],
        "bibtex": spec.bibtex,
    }
    return found | ({"display": spec.display} if spec.display else {})


def _values(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={show(value)}" for key, value in values.items())


def _ledger(found: Sequence[tuple[ledger.Target, ledger.Found]]) -> Table | None:
    """Published against ours; what cannot be tried is counted in the notes."""
    tried = [(target, ours) for target, ours in found if ours.state != "impossible"]
    others = [target for target, ours in found if ours.state == "impossible"]
    if not found:
        return None
    table = ledger.table(tried, {}, title="Published figures and ours", counted=others)
    (shown,) = arranged([table], View(columns=_LEDGER)) if tried else [table]
    return shown
