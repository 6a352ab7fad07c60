"""The contract that every plugin must pass, for built-ins and outsiders alike.

::

    from benchmark.testing import MethodContract

    class TestMine(MethodContract):
        method = "mine"

``bench check mine`` runs the same checks without pytest. For tests of your own: `benchmark.testing.toys` has the toy
stream, a tiny ViT and a toy method, `benchmark.testing.by_hand` drives a method step by step, and
`benchmark.testing.recorded` compares it with numbers recorded from another implementation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.testing.checks import CheckFailed, CheckSkipped, run_checks
    from benchmark.testing.contract import (
        BackboneContract,
        ExporterContract,
        MethodContract,
        MetricContract,
        PlotContract,
        ScenarioContract,
        TrackerContract,
    )

__all__ = [
    "BackboneContract",
    "CheckFailed",
    "CheckSkipped",
    "ExporterContract",
    "MethodContract",
    "MetricContract",
    "PlotContract",
    "ScenarioContract",
    "TrackerContract",
    "run_checks",
]


def __getattr__(name: str) -> Any:
    # The contract classes need pytest and the checks need torch: neither is imported before it is used.
    if name in __all__:
        module = "contract" if name.endswith("Contract") else "checks"
        return getattr(importlib.import_module(f"benchmark.testing.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
