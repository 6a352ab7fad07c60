"""Predictions behind rows of tables, for figures of classes and confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt

from bench_plots import _style
from benchmark import families
from benchmark.config import Range
from benchmark.figures import PlotRequest
from benchmark.leaderboard.scores import Board, Score
from benchmark.records import Record
from benchmark.records.predictions import Predictions

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PredictedOptions:
    """Options of all figures of predictions.

    Attributes:
        experience: After which the predictions were made, from 1; none: the last one.
    """

    experience: Annotated[int | None, Range(min=1)] = None


def boards(records: Sequence[Record], *, most: int) -> list[Board]:
    """Tables, each variant of a scenario in one of its own: their predictions are of other models or data.

    Raises:
        ValueError: There is no finished run, or there are too many tables.
    """
    lacking = "there is no completed run"
    found = []
    for board in _style.boards(records, most=most, lacking=lacking):
        names = sorted({run.scenario.name for row in board.rows for run in row.runs})
        for name in names:
            own = [(row, [run for run in row.runs if run.scenario.name == name]) for row in board.rows]
            title = board.title if len(names) == 1 else name + board.title.removeprefix(board.scenario)
            rows = [replace(row, runs=runs) for row, runs in own if runs]
            found.append(replace(board, title=title, rows=rows))
    _style.fit(found, most=most, what="variants of scenarios", lacking=lacking)
    return found


def rows(records: Sequence[Record], *, most: int) -> list[tuple[str, Score]]:
    """As `boards`, the rows alone, each with the title of its table.

    Raises:
        ValueError: There is no finished run, or there are too many rows.
    """
    found = [(board.title, row) for board in boards(records, most=most) for row in board.rows]
    _style.fit(found, most=most, what="rows of tables", lacking="there is no completed run")
    return found


def of_row(row: Score, request: PlotRequest, experience: int | None) -> list[tuple[Record, Predictions]]:
    """The predictions of every run of a row on the test sets of the experiences so far.

    Args:
        row: Of a table.
        request: What finds predictions.
        experience: After which, from 1; None: the last one.

    Raises:
        ValueError: Those of a run do not lie beside its record, are texts, or there is no such experience.
    """
    found = []
    for run in row.runs:
        told = f"{row.label}, seed {run.seeds.seed}"
        kept = request.predictions(run)
        if kept is None:
            raise ValueError(f"the predictions of {told} do not lie beside its record; run it again to make them")
        if kept.text is not None:
            raise ValueError(f"{told} writes texts; no class is predicted")
        times = len(run.accuracy)
        if experience is not None and experience > times:
            raise ValueError(f"experience={experience}: {told} has {times}")
        time = times if experience is None else experience
        own = [place for place, test in enumerate(run.scenario.tests) if not test.further]
        grows = families.of_record(run.scenario.family, run.scenario.family_facts).grows
        found.append((run, kept.after(time - 1).on(own[:time] if grows and len(own) == times else own)))
    return found


def classes_of(runs: Sequence[Record], most: int) -> tuple[list[int], bool]:
    """Original labels in the order that is drawn, and whether it is the one in which they were learnt.

    Args:
        runs: Of one table.
        most: Classes there may be.

    Raises:
        ValueError: There are more.
    """
    orders = {tuple(run.scenario.class_order) for run in runs}
    same = len(orders) == 1 and bool(next(iter(orders)))
    if same:
        found = list(next(iter(orders)))
    else:
        found = sorted({label for run in runs for label in originals(run, np.arange(run.scenario.num_classes))})
    if len(found) > most:
        raise ValueError(f"{len(found)} classes are too many for one figure; it has room for {most}")
    return found, same


def originals(run: Record, labels: npt.ArrayLike) -> list[int]:
    """Labels as the data set has them; -1 stays, and so does what has no place in the order."""
    order = run.scenario.class_order
    return [order[label] if 0 <= label < len(order) else int(label) for label in np.asarray(labels).tolist()]


def places_of(run: Record, labels: npt.ArrayLike, classes: Sequence[int]) -> Labels:
    """Where labels of a run stand among the classes that are drawn; -1 where they do not."""
    place = {label: index for index, label in enumerate(classes)}
    return np.array([place.get(label, -1) for label in originals(run, labels)], dtype=np.int64)


def borders(runs: Sequence[Record]) -> list[int]:
    """Where a new experience begins among classes in the order in which they were learnt, without the first one."""
    run = runs[0]
    if not families.of_record(run.scenario.family, run.scenario.family_facts).grows:
        return []
    sizes = [len(experience.classes) for experience in run.scenario.experiences]
    ends = np.cumsum(sizes)[:-1].tolist()
    return [int(end) for end in ends] if sum(sizes) == len(run.scenario.class_order) else []
