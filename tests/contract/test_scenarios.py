"""Every registered scenario through the contract; those on real data need BENCH_DATA."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.errors import DataMissing
from benchmark.testing import checks

# One at a time: what a subject holds is large, and the checks of a scenario follow each other.
subject_of = functools.lru_cache(maxsize=1)(checks.scenario_subject)


@pytest.mark.parametrize("check", checks.SCENARIO_CHECKS)
@pytest.mark.parametrize("scenario", registry.names("scenarios"))
# Avalanche and the libraries under it warn about their own future; the contract is about ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_scenario(scenario: str, check: str) -> None:
    root = os.environ.get("BENCH_DATA")
    subject = subject_of(scenario, Path(root) if root else None)
    try:
        checks.SCENARIO_CHECKS[check](subject)
    except checks.CheckSkipped as reason:
        pytest.skip(str(reason))
    except DataMissing as error:
        pytest.skip(f"{error.message}: set BENCH_DATA to a folder that has it")
