"""Pytest classes to inherit: one test per check.

::

    class TestMine(MethodContract):
        method = "mine"
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmark.errors import DataMissing
from benchmark.specs import ExporterSpec, MethodSpec, MetricSpec, ScenarioSpec
from benchmark.testing import checks


class _Contract:
    """Runs one check and turns what it says into pytest's words."""

    _subjects: ClassVar[dict[type, Any]] = {}

    @classmethod
    def _make(cls) -> Any:
        raise NotImplementedError

    @classmethod
    def _judge(cls, check: Callable[[Any], None]) -> None:
        if cls not in cls._subjects:  # one for all checks of a class: they share its first run
            cls._subjects[cls] = cls._make()
        try:
            check(cls._subjects[cls])
        except checks.CheckSkipped as reason:
            pytest.skip(str(reason))
        except DataMissing as error:
            pytest.skip(error.message)


class MethodContract(_Contract):
    """The contract of a method. Set ``method`` to ``"name"``, ``"name@recipe"`` or a `MethodSpec`."""

    method: str | MethodSpec

    @classmethod
    def _make(cls) -> checks.MethodSubject:
        return checks.method_subject(cls.method)

    @pytest.mark.parametrize("check", checks.METHOD_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.method_checks`."""
        self._judge(checks.METHOD_CHECKS[check])


class ScenarioContract(_Contract):
    """The contract of a scenario. Set ``scenario`` to ``"name"``, ``"name/variant"`` or a `ScenarioSpec`.

    Checks whose data are missing are skipped with the reason.
    """

    scenario: str | ScenarioSpec
    data_root: Path | None = None

    @classmethod
    def _make(cls) -> checks.ScenarioSubject:
        return checks.scenario_subject(cls.scenario, cls.data_root)

    @pytest.mark.parametrize("check", checks.SCENARIO_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.scenario_checks`."""
        self._judge(checks.SCENARIO_CHECKS[check])


class ExporterContract(_Contract):
    """The contract of an exporter. Set ``exporter`` to its name or to an `ExporterSpec`."""

    exporter: str | ExporterSpec

    @classmethod
    def _make(cls) -> checks.ExporterSubject:
        return checks.exporter_subject(cls.exporter)

    @pytest.mark.parametrize("check", checks.EXPORTER_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.exporter_checks`."""
        self._judge(checks.EXPORTER_CHECKS[check])


class BackboneContract(_Contract):
    """The contract of a backbone. Set ``backbone`` to its name, ``"library:TAG"`` for one of a library.

    Checks whose weights are missing are skipped with the reason; nothing is downloaded.
    """

    backbone: str
    weights: Path | None = None

    @classmethod
    def _make(cls) -> checks.BackboneSubject:
        return checks.backbone_subject(cls.backbone, cls.weights)

    @pytest.mark.parametrize("check", checks.BACKBONE_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.backbone_checks`."""
        self._judge(checks.BACKBONE_CHECKS[check])


class MetricContract(_Contract):
    """The contract of a metric. Set ``metric`` to its name or to a `MetricSpec`."""

    metric: str | MetricSpec

    @classmethod
    def _make(cls) -> checks.MetricSubject:
        return checks.metric_subject(cls.metric)

    @pytest.mark.parametrize("check", checks.METRIC_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.metric_checks`."""
        self._judge(checks.METRIC_CHECKS[check])


class PlotContract(_Contract):
    """The contract of a plot. Set ``plot`` to its name."""

    plot: str

    @classmethod
    def _make(cls) -> checks.PlotSubject:
        return checks.plot_subject(cls.plot)

    @pytest.mark.parametrize("check", checks.PLOT_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.plot_checks`."""
        self._judge(checks.PLOT_CHECKS[check])


class TrackerContract(_Contract):
    """The contract of an experiment tracker. Set ``tracker`` to its name."""

    tracker: str

    @classmethod
    def _make(cls) -> checks.TrackerSubject:
        return checks.tracker_subject(cls.tracker)

    @pytest.mark.parametrize("check", checks.TRACKER_CHECKS)
    def test_contract(self, check: str) -> None:
        """One check of `benchmark.testing.tracker_checks`."""
        self._judge(checks.TRACKER_CHECKS[check])
