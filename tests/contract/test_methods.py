"""Every registered method through the contract; a new one is tested by existing."""

from __future__ import annotations

import functools

import pytest

from benchmark import registry
from benchmark.errors import DataMissing
from benchmark.testing import checks

pytestmark = pytest.mark.usefixtures("one_thread")

# One at a time: what a subject has seen of its runs is large, and the checks of a method follow each other.
subject_of = functools.lru_cache(maxsize=1)(checks.method_subject)


@pytest.mark.parametrize("check", checks.METHOD_CHECKS)
@pytest.mark.parametrize("method", registry.names("methods"))
# Avalanche and the libraries under it warn about their own future; the contract is about ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_method(method: str, check: str) -> None:
    try:
        checks.METHOD_CHECKS[check](subject_of(method))
    except (checks.CheckSkipped, DataMissing) as reason:
        pytest.skip(str(reason))
