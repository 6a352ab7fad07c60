"""adaptbench: a plugin-based benchmark suite for continual learning and domain adaptation.

Importing this package is cheap: names that need torch are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from benchmark.families import Family
from benchmark.hookspecs import hookimpl
from benchmark.jobs import How, Job, Outcome
from benchmark.specs import (
    BackboneSpec,
    ExecutorSpec,
    ExporterSpec,
    ImporterSpec,
    MethodSpec,
    MetricSpec,
    PlotSpec,
    ProtocolSpec,
    ScenarioSpec,
    TrackerSpec,
)
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
    from benchmark.results import Records, load, load_model, run
    from benchmark.run.jobs import run_job, run_jobs

__version__ = "0.2.0"

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
    "How",
    "ImageSet",
    "ImporterSpec",
    "Job",
    "LoopMethod",
    "Method",
    "MethodConfig",
    "MethodSpec",
    "MetricSpec",
    "Outcome",
    "PlotSpec",
    "ProtocolSpec",
    "Records",
    "Samples",
    "Scenario",
    "ScenarioRequest",
    "ScenarioSpec",
    "TestSet",
    "Track",
    "TrackerSpec",
    "__version__",
    "hookimpl",
    "load",
    "load_model",
    "run",
    "run_job",
    "run_jobs",
]
_ELSEWHERE = {
    "Records": "benchmark.results",
    "load": "benchmark.results",
    "load_model": "benchmark.results",
    "run_job": "benchmark.run.jobs",
    "run_jobs": "benchmark.run.jobs",
}
"""Where names are that are not of `benchmark.api`, which is for authors of plugins."""


def __getattr__(name: str) -> Any:
    if name == "run":  # the package, which can be called: importing one of its modules puts it here as well
        return importlib.import_module("benchmark.run")
    if name in __all__:
        return getattr(importlib.import_module(_ELSEWHERE.get(name, "benchmark.api")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
