"""Samples that a method reads in part only are counted in the record: each set once, whatever stops the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark import records
from benchmark.errors import PluginError
from benchmark.run import engine
from benchmark.run.interruption import Interrupted
from benchmark.testing.disturbances import StopAtStep
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import ToyMethod, prepare_toy

pytestmark = pytest.mark.usefixtures("one_thread")


class Halves(ToyMethod):
    """Says that it reads every other sample in part."""

    asked: list[int]

    def shortened(self, inputs: Any, /) -> int:
        type(self).asked.append(len(inputs))
        return len(inputs) // 2


class Nonsense(ToyMethod):
    def shortened(self, inputs: Any, /) -> int:
        return len(inputs) + 1


def kept(path: Path) -> Any:
    return records.plain(records.read(path))["inputs"].get("shortened")


@pytest.mark.parametrize("family", ["class-il", "domain-il"])
def test_each_set_is_asked_about_once(tmp_path: Path, family: str) -> None:
    Halves.asked = []
    prepared = prepare_toy(build=Halves, experiences=2, train=8, test=4, family=family)
    path = engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    assert kept(path) == {"train": [8, 8], "test": [4, 4]}
    assert sorted(Halves.asked) == [8, 8, 16, 16]


def test_a_resumed_run_keeps_the_same_counts(tmp_path: Path) -> None:
    Halves.asked = []
    with pytest.raises(Interrupted):
        engine.execute(prepare_toy(build=Halves), tmp_path, hooks=manager([]), quiet=True, stop=StopAtStep(8))
    path = engine.execute(prepare_toy(build=Halves), tmp_path, hooks=manager([]), quiet=True)
    assert kept(path) == {"train": [8, 8], "test": [4, 4]}
    assert records.read(path)["timing"]["resumed"] == 1


def test_who_does_not_say_is_not_asked(tmp_path: Path) -> None:
    path = engine.execute(prepare_toy(), tmp_path, hooks=manager([]), quiet=True)
    assert kept(path) is None


def test_more_than_there_are_is_the_methods_fault(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="shortened"):
        engine.execute(prepare_toy(build=Nonsense), tmp_path, hooks=manager([]), quiet=True)
