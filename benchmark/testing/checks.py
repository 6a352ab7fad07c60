"""The tables of checks, and one way to run them, for ``bench check`` and for the contract classes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmark.errors import BenchError, DataMissing
from benchmark.testing.backbone_checks import BACKBONE_CHECKS, BackboneSubject, backbone_subject
from benchmark.testing.exporter_checks import EXPORTER_CHECKS
from benchmark.testing.laboratory import MethodSubject
from benchmark.testing.method_checks import CHECKS as METHOD_CHECKS
from benchmark.testing.metric_checks import METRIC_CHECKS, MetricSubject, metric_subject
from benchmark.testing.observation import CheckFailed, CheckSkipped
from benchmark.testing.plot_checks import PLOT_CHECKS, PlotSubject, plot_subject
from benchmark.testing.scenario_checks import SCENARIO_CHECKS
from benchmark.testing.subjects import (
    ExporterSubject,
    ScenarioSubject,
    exporter_subject,
    method_subject,
    scenario_subject,
)
from benchmark.testing.tracker_checks import TRACKER_CHECKS, TrackerSubject, listener_subject, tracker_subject

__all__ = [
    "BACKBONE_CHECKS",
    "EXPORTER_CHECKS",
    "METHOD_CHECKS",
    "METRIC_CHECKS",
    "PLOT_CHECKS",
    "SCENARIO_CHECKS",
    "TRACKER_CHECKS",
    "BackboneSubject",
    "CheckFailed",
    "CheckSkipped",
    "ExporterSubject",
    "MethodSubject",
    "MetricSubject",
    "PlotSubject",
    "Result",
    "ScenarioSubject",
    "TrackerSubject",
    "backbone_subject",
    "checks_of",
    "exporter_subject",
    "listener_subject",
    "meaning",
    "method_subject",
    "metric_subject",
    "plot_subject",
    "run_checks",
    "scenario_subject",
    "tracker_subject",
]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check.

    Attributes:
        check: Its name.
        result: ``pass``, ``fail`` or ``skip``.
        seconds: How long it took.
        meaning: What it checks, one line.
        message: Why it failed or was skipped, or empty.
        hint: What to do, or empty.
    """

    check: str
    result: Literal["pass", "fail", "skip"]
    seconds: float
    meaning: str
    message: str = ""
    hint: str = ""


def checks_of(subject: Any) -> Mapping[str, Callable[[Any], None]]:
    """The table of checks for a subject."""
    return _TABLES[type(subject)]


_TABLES: Mapping[type, Mapping[str, Callable[[Any], None]]] = {
    MethodSubject: METHOD_CHECKS,
    ScenarioSubject: SCENARIO_CHECKS,
    ExporterSubject: EXPORTER_CHECKS,
    BackboneSubject: BACKBONE_CHECKS,
    MetricSubject: METRIC_CHECKS,
    PlotSubject: PLOT_CHECKS,
    TrackerSubject: TRACKER_CHECKS,
}


def meaning(check: Callable[[Any], None]) -> str:
    """What a check is about: the first line of its docstring."""
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def run_checks(subject: Any, only: frozenset[str] = frozenset()) -> Iterator[Result]:
    """Runs the checks of a subject one after the other.

    Args:
        subject: From `method_subject` or one of its neighbours.
        only: Names of checks; empty for all.

    Yields:
        A result as soon as it is known. Data that are missing skip a check; any other exception fails it. An exception
        that has failed an earlier check skips all later ones that it keeps from being answered: one cause, one failure.
    """
    told: dict[tuple[type, str, int], str] = {}  # where an exception came from -> the check that told of it
    for name, check in checks_of(subject).items():
        if only and name not in only:
            continue
        started = time.perf_counter()
        found: dict[str, Any] = {"result": "pass"}
        try:
            check(subject)
        except CheckSkipped as reason:
            found = {"result": "skip", "message": str(reason)}
        except DataMissing as error:
            found = {"result": "skip", "message": error.message, "hint": error.hint or ""}
        except Exception as error:  # a bug of the plugin is a result, too
            first = told.setdefault(_origin(error) or (type(error), name, 0), name)
            if first != name:
                found = {"result": "skip", "message": f"not answered: it ends as `{first}` does"}
            elif isinstance(error, BenchError):
                found = {"result": "fail", "message": error.message, "hint": error.hint or ""}
            else:
                found = {"result": "fail", "message": f"{type(error).__name__}: {error}"}
        yield Result(check=name, seconds=time.perf_counter() - started, meaning=meaning(check), **found)


def _origin(error: BaseException) -> tuple[type, str, int] | None:
    """Type and place of the exception that another one tells of; None where a check itself has found something."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, CheckFailed) or root.__traceback__ is None:
        return None
    if isinstance(root, BenchError):  # raised by ours, in one place for many reasons
        return type(root), root.message, 0
    frame, line = list(traceback.walk_tb(root.__traceback__))[-1]
    return type(root), frame.f_code.co_filename, line
