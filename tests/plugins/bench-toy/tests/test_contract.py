"""The contract, as an outsider uses it."""

from benchmark.testing import ExporterContract, MethodContract, ScenarioContract


class TestPrototypes(MethodContract):
    method = "toy-prototypes@slow"


class TestSquares(ScenarioContract):
    scenario = "toy-squares"


class TestRst(ExporterContract):
    exporter = "toy-rst"
