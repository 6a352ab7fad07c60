"""adaptbench: a plugin-based benchmark suite for continual learning and domain adaptation.

Importing this package is cheap: names that need torch are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from benchmark.families import Family
from benchmark.hookspecs import hookimpl
from benchmark.jobs import Job, Outcome
from benchmark.specs import BackboneSpec, ExecutorSpec, ExporterSpec, MethodSpec, MetricSpec, PlotSpec, ScenarioSpec
from benchmark.tracks import Track

if TYPE_CHECKING:
    from benchmark.api import (
        Batch,
        Context,
        Experience,
        ExperienceView,
        FeatureConfig,
        FeatureMethod,
        ImageSet,
        LoopMethod,
        Method,
        MethodConfig,
        Samples,
        Scenario,
        ScenarioRequest,
        TestSet,
    )
    from benchmark.run.jobs import run_job, run_jobs

__version__ = "0.1.0"

__all__ = [
    "BackboneSpec",
    "Batch",
    "Context",
    "ExecutorSpec",
    "Experience",
    "ExperienceView",
    "ExporterSpec",
    "Family",
    "FeatureConfig",
    "FeatureMethod",
    "ImageSet",
    "Job",
    "LoopMethod",
    "Method",
    "MethodConfig",
    "MethodSpec",
    "MetricSpec",
    "Outcome",
    "PlotSpec",
    "Samples",
    "Scenario",
    "ScenarioRequest",
    "ScenarioSpec",
    "TestSet",
    "Track",
    "__version__",
    "hookimpl",
    "run_job",
    "run_jobs",
]
_RUN = ("run_job", "run_jobs")  # the one way from here to the engine: `benchmark.run_job(benchmark.Job(...))`


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("benchmark.run.jobs" if name in _RUN else "benchmark.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
