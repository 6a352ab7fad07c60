"""Every registered exporter through the contract."""

from __future__ import annotations

import pytest

from benchmark import registry
from benchmark.testing import checks


@pytest.mark.parametrize("check", checks.EXPORTER_CHECKS)
@pytest.mark.parametrize("exporter", registry.names("exporters"))
def test_exporter(exporter: str, check: str) -> None:
    checks.EXPORTER_CHECKS[check](checks.exporter_subject(exporter))
