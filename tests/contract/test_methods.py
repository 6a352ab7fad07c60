"""Every registered method through the contract; a new one is tested by existing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark import registry
from benchmark.errors import DataMissing
from benchmark.testing import checks

_subjects: dict[str, checks.MethodSubject] = {}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
