"""Every registered plot through the contract; all but one draw in the slow tests, as figures take seconds."""

from __future__ import annotations

import pytest

from benchmark import registry
from benchmark.testing import checks

QUICK = ("matrix",)
PLOTS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in registry.names("plots")]


@pytest.mark.parametrize("plot", PLOTS)
def test_plot(plot: str) -> None:
    for result in checks.run_checks(checks.plot_subject(plot)):
        assert result.result != "fail", result
