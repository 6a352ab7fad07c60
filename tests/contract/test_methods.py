"""Every registered method through the contract; a new one is tested by existing."""

from __future__ import annotations

import pytest

from benchmark import registry
from benchmark.errors import DataMissing
from benchmark.testing import checks

pytestmark = pytest.mark.usefixtures("one_thread")

_subjects: dict[str, checks.MethodSubject] = {}


@pytest.mark.parametrize("check", checks.METHOD_CHECKS)
@pytest.mark.parametrize("method", registry.names("methods"))
# Avalanche and the libraries under it warn about their own future; the contract is about ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_method(method: str, check: str) -> None:
    if method not in _subjects:
        _subjects[method] = checks.method_subject(method)
    try:
        checks.METHOD_CHECKS[check](_subjects[method])
    except (checks.CheckSkipped, DataMissing) as reason:
        pytest.skip(str(reason))
