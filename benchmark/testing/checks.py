"""The tables of checks, and one way to run them, for ``bench check`` and for the contract classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmark.errors import BenchError, DataMissing
from benchmark.testing.backbone_checks import BACKBONE_CHECKS, BackboneSubject, backbone_subject
from benchmark.testing.exporter_checks import EXPORTER_CHECKS
from benchmark.testing.laboratory import MethodSubject
from benchmark.testing.method_checks import CHECKS as METHOD_CHECKS
from benchmark.testing.observation import CheckFailed, CheckSkipped
from benchmark.testing.scenario_checks import SCENARIO_CHECKS
from benchmark.testing.subjects import (
    ExporterSubject,
    ScenarioSubject,
    exporter_subject,
    method_subject,
    scenario_subject,
)

__all__ = [
    "BACKBONE_CHECKS",
    "EXPORTER_CHECKS",
    "METHOD_CHECKS",
    "SCENARIO_CHECKS",
    "BackboneSubject",
    "CheckFailed",
    "CheckSkipped",
    "ExporterSubject",
    "MethodSubject",
    "Result",
    "ScenarioSubject",
    "backbone_subject",
    "checks_of",
    "exporter_subject",
    "meaning",
    "method_subject",
    "run_checks",
    "scenario_subject",
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
    if isinstance(subject, MethodSubject):
        return METHOD_CHECKS
    if isinstance(subject, BackboneSubject):
        return BACKBONE_CHECKS
    return SCENARIO_CHECKS if isinstance(subject, ScenarioSubject) else EXPORTER_CHECKS


def meaning(check: Callable[[Any], None]) -> str:
    """What a check is about: the first line of its docstring."""
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def run_checks(subject: Any, only: frozenset[str] = frozenset()) -> Iterator[Result]:
    """Runs the checks of a subject one after the other.

    Args:
        subject: From `method_subject`, `scenario_subject`, `exporter_subject` or `backbone_subject`.
        only: Names of checks; empty for all.

    Yields:
        A result as soon as it is known. Data that are missing skip a check; any other exception fails it.
    """
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
        except BenchError as error:
            found = {"result": "fail", "message": error.message, "hint": error.hint or ""}
        except Exception as error:  # a bug of the plugin is a result, too
            found = {"result": "fail", "message": f"{type(error).__name__}: {error}"}
        yield Result(check=name, seconds=time.perf_counter() - started, meaning=meaning(check), **found)
