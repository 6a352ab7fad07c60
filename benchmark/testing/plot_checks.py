"""Checks that every plot must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from benchmark import figures, records, registry
from benchmark.errors import UsageError
from benchmark.records.predictions import Predictions
from benchmark.records.schema import Record
from benchmark.testing.example_runs import FAMILIES, ODD, ExampleRun, campaign, example_runs, renamed
from benchmark.testing.observation import CheckFailed, CheckSkipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PlotSubject:
    """A plot under test.

    Attributes:
        name: Of a registered plot.
    """

    name: str

    def draw(self, runs: Sequence[ExampleRun], width: float = figures.WIDTHS["double"]) -> Figure:
        """As ``bench plot`` draws it."""
        known = {run.record.run_id: run.predictions for run in runs}

        def predictions(record: Record) -> Predictions | None:
            return known.get(record.run_id)

        return figures.draw(self.name, [run.record for run in runs], width=width, predictions=predictions)

    @cached_property
    def runs(self) -> tuple[ExampleRun, ...]:
        """The first example runs that it draws.

        Raises:
            CheckSkipped: It draws none of them, for the reasons that it gives.
        """
        reasons = []
        for runs in (*map(example_runs, FAMILIES), campaign()):
            try:
                self.draw(runs)
            except UsageError as error:
                reasons.append(error.message)
            else:
                return runs
        raise CheckSkipped("it draws no example: " + "; ".join(dict.fromkeys(reasons)))


def plot_subject(plot: str) -> PlotSubject:
    """The subject for a registered plot.

    Raises:
        UsageError: No such plot.
        PluginError: Its plugin is broken.
    """
    registry.look("plots", plot)
    return PlotSubject(plot)


def refuses(subject: PlotSubject) -> None:
    """No records, and records of unfinished runs alone, are refused with a reason or drawn."""
    unfinished = [_unfinished(run) for run in example_runs(FAMILIES[0])]
    for runs in ([], unfinished):
        try:
            subject.draw(runs)
        except UsageError as error:
            if not error.message.partition(": ")[2].strip():
                raise CheckFailed(
                    "it refuses records without a reason", hint='raise ValueError("the reason")'
                ) from error


def draws(subject: PlotSubject) -> None:
    """Runs become a figure with something in it, at either width, as PNG, PDF and SVG."""
    runs = subject.runs
    for width in figures.WIDTHS.values():
        figure = subject.draw(runs, width)
        if not figure.axes:
            raise CheckFailed("the figure is empty", hint="draw into `figure.subplots()`")
        wide = figure.get_figwidth() * figures.INCH
        if abs(wide - width) > 0.1:
            raise CheckFailed(
                f"asked for {width:g} cm, it is {wide:g} cm wide", hint="`request.width` is the width in inches"
            )
    for suffix in (".png", ".pdf", ".svg"):
        figures.encode(figure, suffix)


def repeats(subject: PlotSubject) -> None:
    """The same records give the same file, byte for byte, and stay as they are."""
    runs = subject.runs
    before = [records.plain(run.record) for run in runs]
    one, two = (figures.encode(subject.draw(runs), ".svg") for _ in range(2))
    if one != two:
        raise CheckFailed("two figures of the same records differ", hint="draw nothing at random, and write no date")
    if [records.plain(run.record) for run in runs] != before:
        raise CheckFailed("it changes the records", hint="copy what you change")


def surroundings(subject: PlotSubject) -> None:
    """Matplotlib's settings and the figures of ``pyplot`` are left as they are."""
    import matplotlib
    from matplotlib import _pylab_helpers

    def around() -> tuple[dict[str, object], list[int]]:
        return dict(matplotlib.rcParams), list(_pylab_helpers.Gcf.figs)

    runs = subject.runs
    before = around()
    subject.draw(runs)
    if around() != before:
        raise CheckFailed("it changes matplotlib's state", hint="use `Figure()`, and no function of pyplot or rcParams")


def names(subject: PlotSubject) -> None:
    """A name with signs of formulas and of markup is drawn as it is."""
    runs = [ExampleRun(renamed(run.record, f"{ODD} {run.record.method.name}"), run.predictions) for run in subject.runs]
    figures.encode(subject.draw(runs), ".svg")


def _unfinished(run: ExampleRun) -> ExampleRun:
    plain = records.plain(run.record)
    empty = [[None] * len(row) for row in plain["accuracy"]]
    changes = {"status": "interrupted", "metrics": {}, "metric_facts": {}, "accuracy": empty}
    return ExampleRun(records.parse({**plain, **changes}), run.predictions)


PLOT_CHECKS: dict[str, Callable[[PlotSubject], None]] = {
    "refuses": refuses,
    "draws": draws,
    "repeats": repeats,
    "surroundings": surroundings,
    "names": names,
}
