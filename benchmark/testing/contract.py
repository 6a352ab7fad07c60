"""Pytest classes to inherit: one test per check.

::

    class TestMine(MethodContract):
        method = "mine"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import DataMissing
from benchmark.specs import ExporterSpec, MethodSpec, ScenarioSpec
from benchmark.testing import checks


class _Contract:
    """Runs one check and turns what it says into pytest's words."""

    @staticmethod
    def judge(check: Any, subject: Any) -> None:
        try:
            check(subject)
        except checks.CheckSkipped as reason:
            pytest.skip(str(reason))
        except DataMissing as error:
            pytest.skip(error.message)


class MethodContract(_Contract):
    """The contract of a method. Set ``method`` to ``"name"``, ``"name@recipe"`` or a `MethodSpec`."""

    method: str | MethodSpec

    @pytest.fixture(scope="class")
    def subject(self) -> checks.MethodSubject:
        """The method, loaded once for all checks."""
        return checks.method_subject(self.method)

    @pytest.mark.parametrize("check", checks.METHOD_CHECKS)
    def test_contract(self, subject: checks.MethodSubject, check: str) -> None:
        """One check of `benchmark.testing.method_checks`."""
        self.judge(checks.METHOD_CHECKS[check], subject)


class ScenarioContract(_Contract):
    """The contract of a scenario. Set ``scenario`` to ``"name"``, ``"name/variant"`` or a `ScenarioSpec`.

    Checks whose data are missing are skipped with the reason.
    """

    scenario: str | ScenarioSpec
    data_root: Path | None = None

    @pytest.fixture(scope="class")
    def subject(self) -> checks.ScenarioSubject:
        """The scenario, built once for all checks."""
        return checks.scenario_subject(self.scenario, self.data_root)

    @pytest.mark.parametrize("check", checks.SCENARIO_CHECKS)
    def test_contract(self, subject: checks.ScenarioSubject, check: str) -> None:
        """One check of `benchmark.testing.scenario_checks`."""
        self.judge(checks.SCENARIO_CHECKS[check], subject)


class ExporterContract(_Contract):
    """The contract of an exporter. Set ``exporter`` to its name or to an `ExporterSpec`."""

    exporter: str | ExporterSpec

    @pytest.fixture(scope="class")
    def subject(self) -> checks.ExporterSubject:
        """The exporter, loaded once for all checks."""
        return checks.exporter_subject(self.exporter)

    @pytest.mark.parametrize("check", checks.EXPORTER_CHECKS)
    def test_contract(self, subject: checks.ExporterSubject, check: str) -> None:
        """One check of `benchmark.testing.scenario_checks`."""
        self.judge(checks.EXPORTER_CHECKS[check], subject)
