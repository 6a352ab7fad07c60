"""The contract, as an author runs it."""

from __future__ import annotations

from benchmark.testing import MethodContract, ScenarioContract


class TestBag(MethodContract):
    method = "bag-of-words"


class TestSentences(ScenarioContract):
    scenario = "toy-sentences"
