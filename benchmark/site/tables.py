"""The page of a table: rows with what lies behind them, and what they can be filtered by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.leaderboard import boards, commands, rows
from benchmark.leaderboard.scores import Board
from benchmark.records.schema import Record
from benchmark.scenario_names import base_of
from benchmark.site.names import slug
from benchmark.tables import Cell, Column, Row, Table

IMPORTED = "imported"
_TITLE = re.compile(r"(?P<name>.+?) \((?P<options>.*)\), track (?P<track>[^,]+), (?P<backbone>.+)", re.DOTALL)
_USES = "uses "
_COMMIT = 10  # digits
_LONGEST_TAG = 20

Numbers = Mapping[str, str]
"""Options by their names, as texts."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A cell.

    Attributes:
        text: What people read first.
        spread: What follows it, in smaller letters; may be empty.
        order: What it is sorted by: a number or a text; empty where there is nothing.
        bold: Whether it stands out.
        notes: Marks and texts of its footnotes.
    """

    text: str
    spread: str
    order: str
    bold: bool
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class RunShown:
    """One run behind a row.

    Attributes:
        scenario: With its variant.
        seed: In words.
        status: Of the record.
        score: What ranks the rows, of this run; empty where it has none.
        seconds: Of training, as a text.
        commit: First digits, with a word where there were uncommitted changes.
        command: That makes it again; empty where nobody knows.
        record: Path of the record in the site, or empty.
    """

    scenario: str
    seed: str
    status: str
    score: str
    seconds: str
    commit: str
    command: str
    record: str


@dataclass(frozen=True, kw_only=True)
class RowShown:
    """A row.

    Attributes:
        id: Anchor.
        label: What the table calls it.
        method: Name of the method; empty where it is unknown.
        recipe: Its recipe.
        group: ``method``, ``control``, ``upper bound`` or ``imported``.
        uses: What the method declared.
        tags: Words that set it apart, from its footnotes: ``unverified``, ``leaking``, ``oracle``, ``warning``, ...
        cells: One per column; the first is the label.
        notes: Footnotes of all its cells.
        changed: Options that are not as track and recipe have them.
        options: All of them.
        facts: Of rows of other suites: what their files say.
        runs: Behind it.
    """

    id: str
    label: str
    method: str
    recipe: str
    group: str
    uses: tuple[str, ...]
    tags: tuple[str, ...]
    cells: tuple[Shown, ...]
    notes: tuple[tuple[str, str], ...]
    changed: Numbers
    options: Numbers
    facts: Numbers
    runs: tuple[RunShown, ...]

    @property
    def commands(self) -> str:
        """Those of all runs, one a line."""
        return "\n".join(dict.fromkeys(run.command for run in self.runs if run.command))


@dataclass(frozen=True, kw_only=True)
class TableShown:
    """A table.

    Attributes:
        path: Of its page in the site.
        title: Full.
        name: Of the scenario, as the title has it.
        about: Options and version, as the title has them; empty where the title is of another form.
        scenario: Name of the scenario's entry point.
        family: Of the scenario.
        track: Of the runs.
        backbone: As the title has it.
        columns: From left to right.
        headline: Key of the column that ranks the rows; empty in tables of other suites.
        of: What that is, in words.
        rows: From top to bottom.
        caption: How to read it.
        notes: On the whole table.
        board: The values behind it, where it is of our records.
        runs: Number of them.
    """

    path: str
    title: str
    name: str
    about: str
    scenario: str
    family: str
    track: str
    backbone: str
    columns: tuple[Column, ...]
    headline: str
    of: str
    rows: tuple[RowShown, ...]
    caption: str
    notes: tuple[str, ...]
    board: Board | None
    runs: int

    @property
    def key(self) -> str:
        """Name of its files."""
        return slug(self.title)

    @property
    def uses(self) -> list[str]:
        """Of any row."""
        return sorted({use for row in self.rows for use in row.uses})

    @property
    def tags(self) -> list[str]:
        """Of any row."""
        return sorted({tag for row in self.rows for tag in row.tags})

    @property
    def marks(self) -> list[tuple[str, str]]:
        """Footnotes of rows, each once, in the order in which they occur."""
        return list(dict.fromkeys(note for row in self.rows for note in row.notes))

    @property
    def groups(self) -> list[str]:
        """Of any row, in their order."""
        return list(dict.fromkeys(row.group for row in self.rows))

    @property
    def place(self) -> int | None:
        """Of the column that ranks."""
        return next((place for place, column in enumerate(self.columns) if column.key == self.headline), None)

    @property
    def best(self) -> list[tuple[RowShown, float]]:
        """Rows that are no upper bound, the best first, with what ranks them as a fraction."""
        if self.place is None:
            return []
        found = [
            (row, float(row.cells[self.place].order))
            for row in self.rows
            if row.group not in ("upper bound", IMPORTED) and row.cells[self.place].order
        ]
        return sorted(found, key=lambda pair: -pair[1])


def shown(table: Table, board: Board | None, records: Mapping[str, Record], linked: bool) -> TableShown:
    """What the page of a table shows.

    Args:
        table: Of the leaderboard.
        board: The values behind it; None for tables of other suites.
        records: By run id.
        linked: Whether the site has the records.
    """
    found = _TITLE.fullmatch(table.title)
    first: Mapping[str, Any] = table.runs[0] if table.runs else {}
    notes = dict(table.footnotes)
    behind: dict[str, list[Mapping[str, Any]]] = {}
    for run in table.runs:
        behind.setdefault(str(run["row"]), []).append(run)
    return TableShown(
        path=f"tables/{slug(table.title)}.html",
        title=table.title,
        name=found["name"] if found else table.title,
        about=found["options"] if found else "",
        scenario=base_of(str(first.get("scenario") or "")),
        family=str(first.get("family") or ""),
        track=found["track"] if found else str(first.get("track") or ""),
        backbone=found["backbone"] if found else str(first.get("backbone") or ""),
        columns=table.columns,
        headline=board.headline if board else "",
        of=board.of if board else "",
        rows=tuple(
            _row(row, table.columns, behind.get(str(row.cells[0].value), []), notes, records, linked)
            for row in table.rows
        ),
        caption=table.caption,
        notes=tuple(text for mark, text in table.footnotes if not mark),
        board=board,
        runs=len(table.runs),
    )


def _row(
    row: Row,
    columns: Sequence[Column],
    raw: Sequence[Mapping[str, Any]],
    notes: Mapping[str, str],
    records: Mapping[str, Record],
    linked: bool,
) -> RowShown:
    cells = tuple(cell_shown(cell, notes) for cell in row.cells)
    told = tuple(dict.fromkeys(note for cell in cells for note in cell.notes))
    runs = [(one, records.get(str(one.get("run_id")))) for one in raw]
    ours = [run for _, run in runs if run is not None]
    label = row.cells[0].text
    return RowShown(
        id=f"row-{slug(label)}",
        label=label,
        method=str(raw[0].get("method") or "") if raw else str(row.cells[0].value or ""),
        recipe=str(raw[0].get("recipe") or "") if raw else "",
        group=row.group,
        uses=tuple(sorted({use for run in ours for use in run.method.uses})),
        tags=tuple(sorted({tag for _, text in told if (tag := _tag(text))})),
        cells=cells,
        notes=told,
        changed={key: value for run in ours[:1] for key, value in commands.settings_of(run).items()},
        options={key: value for run in ours[:1] for key, value in _options(run).items()},
        facts={
            key: str(value) for one in raw[:1] for key, value in one.items() if not ours and value not in (None, "")
        },
        runs=tuple(_run(one, run, linked) for one, run in runs),
    )


def cell_shown(cell: Cell, notes: Mapping[str, str]) -> Shown:
    """A cell of any table."""
    text, sign, spread = cell.text.partition(" ± ")
    order = "" if cell.value is None else repr(cell.value) if isinstance(cell.value, float) else str(cell.value)
    marks = tuple((mark, notes.get(mark, "")) for mark in cell.marks)
    return Shown(text=text, spread=f"± {spread}" if sign else "", order=order, bold=cell.bold, notes=marks)


def _tag(note: str) -> str:
    """The word before the colon of a footnote on a row; what methods use is told apart."""
    word, colon, _ = note.partition(":")
    return word if colon and len(word) <= _LONGEST_TAG and not note.startswith(_USES) else ""


def _options(run: Record) -> dict[str, str]:
    effective = run.config.effective
    return {
        f"{group}.{name}": rows.show(value)
        for group in ("scenario", "method", "engine")
        for name, value in sorted(effective[group].items())
    }


def _run(raw: Mapping[str, Any], run: Record | None, linked: bool) -> RunShown:
    if run is None:
        seed = raw.get("seed")
        return RunShown(
            scenario=str(raw.get("scenario") or ""),
            seed="unknown" if seed is None else str(seed),
            status=str(raw.get("status") or ""),
            score="",
            seconds="",
            commit="",
            command="",
            record="",
        )
    value = run.number(boards.family_of(run).headline)
    made = run.provenance
    return RunShown(
        scenario=run.scenario.name,
        seed=_seed(run),
        status=run.status,
        score="" if value is None else rows.fixed(100 * value),
        seconds=f"{sum(run.timing.train_seconds):,.1f}",
        commit=f"{(made.git_commit or 'unknown')[:_COMMIT]}{' + changes' if made.git_dirty else ''}",
        command=str(raw["command"]),
        record=record_path(run) if linked else "",
    )


def _seed(run: Record) -> str:
    """The seed, and the others where they are not the same."""
    seeds = run.seeds
    others = {"classes": seeds.class_order, "start": seeds.init, "data": seeds.data}
    apart = [f"{name} {value}" for name, value in others.items() if value != seeds.seed]
    return f"{seeds.seed} ({', '.join(apart)})" if apart else str(seeds.seed)


def record_path(run: Record) -> str:
    """Of a record in the site; run ids are hexadecimal digits, as the schema demands."""
    return f"records/{run.run_id}.json"
