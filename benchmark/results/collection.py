"""Records in Python: read, chosen, tabulated, compared."""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from benchmark import exporting, filtering, leaderboard, records, tables
from benchmark.errors import UsageError, warn
from benchmark.files import check_file, replace_file, user_path
from benchmark.leaderboard.compared import By, Comparison, compared
from benchmark.records import imported, predictions
from benchmark.records.schema import Record
from benchmark.tables import Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from benchmark.records.imported import Imported

__all__ = ["Records", "Tables", "load"]

PathLike = str | os.PathLike[str]
Names = str | Sequence[str]
"""Names with commas between them, or a list of names."""
Seeds = int | str | Sequence[int | str]
"""``0``, ``"0-4"``, or a list of such."""


@dataclass(frozen=True)
class Tables(Sequence[Table]):
    """Tables of records. Printed, and shown in a notebook, they are the text that ``bench leaderboard`` prints.

    Attributes:
        tables: `benchmark.tables.Table`, one per scenario, version, options, track, data and image tower.
    """

    tables: tuple[Table, ...]

    def __len__(self) -> int:
        return len(self.tables)

    @overload
    def __getitem__(self, place: int) -> Table: ...
    @overload
    def __getitem__(self, place: slice) -> Tables: ...
    def __getitem__(self, place: int | slice) -> Table | Tables:
        return Tables(self.tables[place]) if isinstance(place, slice) else self.tables[place]

    def text(self, *, width: int | None = None) -> str:
        """The tables for a terminal; what stands out is marked with ``*``.

        Args:
            width: Characters in a line, columns without room follow below; None: rows are never folded.
        """
        return tables.render_text(list(self.tables), width=width)

    def export(self, format: str) -> str:
        """The tables in the format of an exporter, as ``bench leaderboard --format`` writes them.

        Args:
            format: E.g. ``markdown``, ``latex``, ``csv``; ``bench list exporters`` shows all.

        Raises:
            UsageError: There is no such exporter.
            PluginError: It fails.
        """
        return exporting.exporter(format)(list(self.tables))

    def __str__(self) -> str:
        return self.text().rstrip("\n")

    def _repr_html_(self) -> str:
        """For notebooks: the text, as it is."""
        return f"<pre>{html.escape(str(self))}</pre>"


class Records(Sequence[Record]):
    """Records of runs: a sequence of `benchmark.records.Record`, and what can be made of them.

    Args:
        located: Records by their paths.
        imported: Runs of other suites, which tables show in rows of their own.

    Example:
        >>> runs = load("runs")
        >>> runs
        <2 records: 1 method, 1 scenario, 2 seeds>
        >>> runs[0].method.name, runs[0].status
        ('nearest-mean', 'completed')
        >>> [run.seeds.seed for run in runs.where(seed=1)]
        [1]
    """

    def __init__(self, located: Mapping[Path, Record], *, imported: Iterable[Imported] = ()) -> None:
        self._paths = tuple(located)
        self._records = tuple(located.values())
        self.imported = tuple(imported)

    # --- a sequence -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> Record | Records:
        if isinstance(place, slice):
            return self._with(dict(zip(self._paths[place], self._records[place], strict=True)))
        return self._records[place]

    def __repr__(self) -> str:
        kinds: dict[str, set[object]] = {
            "method": {filtering.label_of(run) for run in self},
            "scenario": {run.scenario.name for run in self},
            "seed": {run.seeds.seed for run in self},
        }
        parts = [_counted(len(found), what) for what, found in kinds.items()]
        if self.imported:
            parts.append(f"{len(self.imported)} of other suites")
        return f"<{_counted(len(self), 'record')}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """For notebooks: how many there are, and their tables."""
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{self.leaderboard()._repr_html_()}"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the records lie, in their order."""
        return self._paths

    def _with(self, located: Mapping[Path, Record]) -> Records:
        return Records(located, imported=self.imported)

    # --- choosing ---------------------------------------------------------------------------------

    def where(
        self,
        keep: Callable[[Record], object] | None = None,
        *,
        scenario: Names = (),
        method: Names = (),
        track: Names = (),
        seed: Seeds | None = None,
    ) -> Records:
        """The records that are meant; each argument takes one or several, and all must hold.

        Args:
            keep: Is given a record, and says whether it is kept.
            scenario: With or without variant, e.g. ``split-cifar100`` or ``split-cifar100/10x10``.
            method: With or without recipe, e.g. ``l2p`` or ``l2p@pilot``.
            track: E.g. ``nano``.
            seed: E.g. ``0``, ``"0-4"`` or ``[0, 3]``.

        Raises:
            UsageError: No record has such a name, which is a spelling mistake more often than not.

        Example:
            >>> load("runs").where(method="nearest-mean", seed=[0])
            <1 record: 1 method, 1 scenario, 1 seed>
            >>> len(load("runs").where(lambda run: run.seeds.seed > 5))
            0
            >>> load("runs").where(method="nearest-meen")
            Traceback (most recent call last):
            benchmark.errors.UsageError: unknown method in these records `nearest-meen`
        """
        scenarios, methods, tracks = _names(scenario), _names(method), _names(track)
        located = filtering.chosen(dict(zip(self._paths, self._records, strict=True)), scenarios, tracks)
        filtering.check_methods(located.values(), methods)
        seeds = None if seed is None else _seeds(seed)
        found = {
            path: run
            for path, run in located.items()
            if (not methods or filtering.names_of(run) & set(methods))
            and (seeds is None or run.seeds.seed in seeds)
            and (keep is None or keep(run))
        }
        theirs = filtering.imported(self.imported, scenarios=scenarios, tracks=tracks, methods=methods)
        return Records(found, imported=theirs)

    # --- what can be made of them -----------------------------------------------------------------

    def frame(self, *, long: bool = False) -> pd.DataFrame:
        """A pandas data frame of single runs, nothing averaged.

        Args:
            long: One row per accuracy that was measured (``experience``, ``test``, ``accuracy``) instead of one per
                run with its names, seeds, options, metrics and costs.

        Returns:
            Accuracies are fractions in [0, 1], times seconds. See `benchmark.leaderboard.frame`.

        Example:
            >>> frame = load("runs").frame()
            >>> list(frame["seed"]), list(frame["row"].unique())
            ([0, 1], ['nearest-mean'])
            >>> list(load("runs").frame(long=True).columns)[-3:]
            ['experience', 'test', 'accuracy']
        """
        return leaderboard.frame(self, long=long)

    def leaderboard(self, *, method: Names = (), rename: Mapping[str, str] | None = None) -> Tables:
        """The tables that ``bench leaderboard`` shows of these records.

        Args:
            method: Only these beside the controls; default all.
            rename: What rows are called instead: by label, ``method@recipe`` or method.

        Raises:
            UsageError: There is no record of such a method.

        Example:
            >>> found = load("runs").leaderboard(rename={"nearest-mean": "NCM"})
            >>> [cell.text for cell in found[0].rows[0].cells[:1]]
            ['NCM']
            >>> "| NCM" in found.export("markdown")
            True
        """
        methods = _names(method)
        filtering.check_methods(self, methods)
        return Tables(tuple(leaderboard.leaderboard(self, methods=methods, names=rename or {}, imported=self.imported)))

    def compare(self, *rows: str, by: By | None = None) -> Comparison:
        """Rows of the tables held against each other, as by ``bench compare``.

        Args:
            rows: Two or more: a method, ``method@recipe`` or the whole label of a row.
            by: Also the difference on each ``experience`` or ``class``.

        Returns:
            Printed, it says what the data show and what they cannot decide; its ``tables`` and ``ranks`` hold the
            numbers, `as_dict` gives plain values.

        Raises:
            UsageError: Fewer than two rows, an unknown one, one that stands for several; or no table has two of them.

        Example:
            >>> load("runs").compare("nearest-mean", "l2p")
            Traceback (most recent call last):
            benchmark.errors.UsageError: unknown row in these tables `l2p`
        """
        return compared(self, rows, self._predictions_file, by=by)

    def plot(
        self, kind: str, file: PathLike | None = None, *, width: str | float = "double", **options: object
    ) -> Figure:
        """A figure, as ``bench plot`` draws it.

        Args:
            kind: E.g. ``accuracy``; ``bench list plots`` shows all.
            file: Where it is written as well, ending in ``.png``, ``.pdf``, ``.svg`` or ``.pgf``.
            width: On paper: ``single`` (8.4 cm), ``double`` (17.4 cm), or a number of cm.
            options: Of the plot (``bench info KIND``).

        Returns:
            Of matplotlib, to be changed or shown. Notebooks show it after ``%matplotlib inline``.

        Raises:
            UsageError: Unknown kind, option, width or format; or these records cannot be drawn so.
            PluginError: The plugin fails.
            DataMissing: Predictions are damaged, or not those of the record.

        Example:
            >>> figure = load("runs").plot("accuracy", "accuracy.pdf", width="single")
            >>> print(round(figure.get_figwidth() * 2.54, 1))
            8.4
        """
        from benchmark import figures

        path = None if file is None else user_path(file)
        if path is not None:
            figures.check_format(path.suffix.lower())
            check_file(path, "file")
        figure = figures.draw(
            kind,
            self,
            options=options,
            origin=f"plot({kind!r})",
            width=figures.width_of(width),
            predictions=self._predictions,
        )
        if path is not None:
            replace_file(path, figures.encode(figure, path.suffix.lower()))
        return figure

    @functools.cached_property
    def _place(self) -> Mapping[int, Path]:
        return {id(run): path for path, run in zip(self._paths, self._records, strict=True)}

    def _predictions_file(self, run: Record) -> Path | None:
        return predictions.beside(self._place[id(run)], run)

    def _predictions(self, run: Record) -> predictions.Predictions | None:
        path = self._predictions_file(run)
        return (
            None if path is None or run.predictions is None else predictions.read_checked(path, run.predictions.sha256)
        )


def load(
    where: PathLike | Iterable[PathLike] = "runs",
    *,
    scenario: Names = (),
    method: Names = (),
    track: Names = (),
    seed: Seeds | None = None,
) -> Records:
    """Reads records; what cannot be read is skipped with a warning (`benchmark.errors.BenchWarning`).

    Args:
        where: A results folder, a record, or several of both.
        scenario: Only these; see `Records.where`.
        method: Only these.
        track: Only these.
        seed: Only these.

    Raises:
        UsageError: There is no such folder, no record in it, or none of such a name.
        DataMissing: A record that was named is missing or damaged.

    Example:
        >>> load("runs")
        <2 records: 1 method, 1 scenario, 2 seeds>
        >>> load(load("runs").paths[:1])
        <1 record: 1 method, 1 scenario, 1 seed>
        >>> load("no-such-folder")
        Traceback (most recent call last):
        benchmark.errors.UsageError: no results folder no-such-folder
    """
    places = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    located: dict[Path, Record] = {}
    theirs: list[Imported] = []
    for place in map(user_path, places):
        if place.is_file():
            located[place] = records.read(place)
            continue
        found, problems = records.locate(place)
        runs, wrong = imported.read_all(place)
        located |= {Path(path): run for path, run in found.items()}
        theirs += runs
        for problem in (*problems, *wrong):
            warn(f"{problem.message}; skipped")
    if not located and not theirs:
        named = ", ".join(map(str, places)) or "an empty list"
        raise UsageError(f"no records in {named}", hint="`benchmark.run(...)` or `bench run` makes some")
    return Records(located, imported=theirs).where(scenario=scenario, method=method, track=track, seed=seed)


def _names(value: Names) -> list[str]:
    """Names of records: with commas between them, or a list."""
    return [name.strip() for part in ([value] if isinstance(value, str) else value) for name in part.split(",") if name]


def _seeds(value: Seeds) -> list[int]:
    from benchmark.run.jobs import parse_seeds

    return parse_seeds(value, "seed")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
