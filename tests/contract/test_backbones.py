"""The contract of every bundled backbone."""

from __future__ import annotations

import pytest

from benchmark import loading
from benchmark.testing import checks


@pytest.mark.parametrize("name", loading.single())
def test_backbone(name: str) -> None:
    subject = checks.backbone_subject(name)
    for result in checks.run_checks(subject):
        assert result.result != "fail", result
