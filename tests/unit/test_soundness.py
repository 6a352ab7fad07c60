"""What a scenario's plugin may not build: one error that names it, before any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.api import Experience, ImageSet, Scenario, TestSet
from benchmark.errors import PluginError, UsageError
from benchmark.registry import Entry, Loaded
from benchmark.run import preparation
from benchmark.testing import toys


def first(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with another first experience."""
    return replace(scenario, experiences=(replace(scenario.experiences[0], **changes), *scenario.experiences[1:]))


def on(images: Any) -> Callable[[Scenario], Scenario]:
    """The scenario with another source of its first training images."""

    def change(scenario: Scenario) -> Scenario:
        train = scenario.experiences[0].train
        return first(scenario, train=ImageSet(images, train.rows, train.labels, train.ids))

    return change


def relabelled(labels: Tensor | int) -> Callable[[Scenario], Scenario]:
    def change(scenario: Scenario) -> Scenario:
        train = scenario.experiences[0].train
        new = torch.full_like(train.labels, labels) if isinstance(labels, int) else labels
        return first(scenario, train=ImageSet(train.source, train.rows, new, train.ids))

    return change


class Liar:
    """A source that is not what it says."""

    kind = "image"
    digest = "0" * 64

    def __init__(self, length: int = 16, answer: Any = None, kind: str = "image") -> None:
        self.length, self.answer, self.kind = length, answer, kind

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: Tensor) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


PIXELS = torch.zeros(16, 3, 8, 8, dtype=torch.uint8)
BUILDS: dict[str, tuple[Any, str]] = {
    "nothing": (lambda s: None, "returned None"),
    "a list": (lambda s: [s], "returned a list"),
    "a class": (lambda s: Scenario, "returned a type"),
    "no experiences": (lambda s: replace(s, experiences=()), "build|experiences"),
    "a list of experiences": (lambda s: replace(s, experiences=list(s.experiences)), "`experiences`"),
    "experiences of junk": (lambda s: replace(s, experiences=(1, 2)), "build|experiences"),
    "junk among tests": (lambda s: replace(s, tests=("x",)), "`tests`"),
    "no train set": (
        lambda s: first(s, train=s.experiences[0].train.subset(torch.tensor([], dtype=torch.long))),
        "empty",
    ),
    "no test set": (lambda s: first(s, test=s.experiences[0].test.subset(torch.tensor([], dtype=torch.long))), "empty"),
    "a tensor as set": (lambda s: first(s, train=PIXELS), "`train` is a Tensor"),
    "label too large": (relabelled(99), "not one of 0..3"),
    "label negative": (relabelled(-1), "not one of 0..3"),
    "label of another experience": (relabelled(3), "does not name"),
    "classes out of range": (lambda s: first(s, classes=(0, 1, 99)), "`classes`"),
    "names missing": (lambda s: replace(s, class_names=s.class_names[:1]), "names|not one of"),
    "name of a number": (lambda s: replace(s, name=3), r"`name` is 3 \(int\): Expected `str`"),
    "version of text": (lambda s: replace(s, version="1"), "`version` is '1'"),
    "version of nothing": (lambda s: replace(s, version=None), "`version` is None"),
    "version without end": (lambda s: replace(s, version=10**400), "`version`"),
    "notes of junk": (lambda s: replace(s, notes={"layout": PIXELS}), "`notes` is a dict: Expected `str`"),
    "notes of text": (lambda s: replace(s, notes="rendered"), "`notes` is 'rendered'"),
    "a partition of nothing": (lambda s: replace(s, partition=None), "`partition` is None"),
    "an order of text": (lambda s: replace(s, class_order=("a",)), "`class_order` is a tuple: Expected `int`"),
    "a domain of a number": (lambda s: first(s, domain=3), "experience 0: `domain` is 3"),
    "sources of text": (lambda s: first(s, sources="ink"), "experience 0: `sources` is 'ink'"),
    "classes of text": (lambda s: first(s, classes="ab"), "experience 0: `classes` is 'ab'"),
    "a test set without name": (
        lambda s: replace(s, tests=(TestSet(name=None, images=s.experiences[0].test),)),  # type: ignore[arg-type]
        "test set 0: `name` is None",
    ),
    "a half character": (
        lambda s: replace(s, class_names=("\ud800", *s.class_names[1:])),
        "`class_names`: .*surrogate",
    ),
    "names of junk": (lambda s: replace(s, class_names=(1, 2, 3, 4)), "`class_names`"),
    "float images": (on(PIXELS.float()), "float32; uint8"),
    "NaN images": (on(torch.full((16, 3, 8, 8), torch.nan)), "float32; uint8"),
    "int64 images": (on(PIXELS.long()), "int64; uint8"),
    "one channel": (on(PIXELS[:, :1]), r"\(2, 1, 8, 8\)"),
    "channels last": (on(PIXELS.permute(0, 2, 3, 1)), r"\(2, 8, 8, 3\)"),
    "no pixels": (on(PIXELS[:, :, :0]), r"\(2, 3, 0, 8\)"),
    "too few rows": (on(PIXELS[:3]), "rows that its source does not have"),
    "source that says too little": (on(Liar(3)), "rows that its source does not have"),
    "source that gives nothing": (on(Liar(answer=None)), "reads as None"),
    "source that gives a list": (on(Liar(answer=[PIXELS[0], PIXELS[1]])), "reads as a list"),
    "source that gives one": (on(Liar(answer=PIXELS[:1])), r"\(1, 3, 8, 8\)"),
    "source that raises": (on(Liar(answer=RuntimeError("no"))), "RuntimeError: no"),
    "source that ends the program": (on(Liar(answer=SystemExit(0))), "SystemExit"),
    "source of sounds": (on(Liar(kind="sound")), "kind"),
    "texts among images": (on([{"text": "a"}] * 16), "one kind"),
    "target with labels": (lambda s: first(s, target=s.experiences[0].train), "labels other than -1"),
    "labels of no target": (lambda s: first(s, target_labels=torch.zeros(3)), "`target_labels`"),
    "test set with odd labels": (
        lambda s: replace(s, tests=(TestSet(name="new", images=relabelled(7)(s).experiences[0].train),)),
        "test set `new` has a label",
    ),
}


def make(build: Callable[[Any, Any], Any]) -> Any:
    loaded = Loaded(replace(toys.TOY_SCENARIO, build=build), Entry("toy", "somewhere", "somebody 1.0"), "")
    return preparation.make_scenario(loaded, toys.ToyConfig(), {"data_root": None, "cache": Path()}, seed=0)


@pytest.mark.parametrize("name", BUILDS)
def test_what_no_run_can_use_is_one_error_that_names_the_plugin(name: str) -> None:
    change, problem = BUILDS[name]
    with pytest.raises(PluginError, match=problem) as caught:
        make(lambda config, request: change(toys.build_toy(config, request)))
    assert "scenario `toy` of `somebody 1.0`" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "raised", [ValueError("no"), ValueError("odd: no"), KeyError("x"), SystemExit(0), AssertionError()]
)
def test_what_a_build_raises_names_the_plugin(raised: BaseException) -> None:
    def build(config: Any, request: Any) -> Any:
        raise raised

    with pytest.raises(PluginError, match=r"scenario `toy` of `somebody 1\.0`: `build` failed"):
        make(build)


def test_a_build_may_refuse_an_option() -> None:
    def build(config: Any, request: Any) -> Any:
        raise ValueError("classes: 9 are more than there are; use 1..4")

    with pytest.raises(UsageError, match=r"scenario\.toy\.classes: 9 are more"):
        make(build)


@pytest.mark.parametrize("build", [lambda: None, lambda config: None, lambda config, request, more: None])
def test_a_build_of_another_signature_names_the_plugin(build: Any) -> None:
    with pytest.raises(PluginError, match=r"scenario `toy` of `somebody 1\.0`: `build` failed: TypeError"):
        make(build)


def test_every_family_of_toys_is_sound() -> None:
    for family in ("class-il", "domain-il", "uda", "dg", "few-shot", "base-to-new", "cross-dataset"):
        config = toys.ToyConfig(family=family)
        loaded = Loaded(toys.TOY_SCENARIO, Entry("toy", "somewhere", "somebody 1.0"), "")
        scenario = preparation.make_scenario(loaded, config, {"data_root": None, "cache": Path()}, seed=0)
        assert all(isinstance(part, Experience) for part in scenario.experiences)
