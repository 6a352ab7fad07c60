"""Services for authors of scenarios: streams out of a reader, and samples that are changed as they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from benchmark import ScenarioSpec, builders
from benchmark.cli import main
from benchmark.derived import Derived
from benchmark.errors import DataMissing
from benchmark.samples import Pixels, Samples, digest_of
from benchmark.scenario import Experience, ScenarioRequest, content_of, fingerprint

REQUEST = ScenarioRequest(data_root=None, cache=Path("unused"), seed=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class FourConfig(builders.ClassStreamConfig):
    """Four classes."""

    CLASSES: ClassVar[int] = 4
    split: str = "2x2"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacesConfig(builders.DomainStreamConfig):
    """Three domains."""

    DOMAINS: ClassVar[tuple[str, ...]] = ("sea", "land", "air")
    order: tuple[str, ...] = ("sea", "land", "air")


def spec(config: type, family: str) -> ScenarioSpec:
    return ScenarioSpec(
        name="made-up", build=lambda *_: None, config=config, summary="", family=family, tracks={"nano": "plain"}
    )


def samples(count: int, first_id: int = 0) -> Samples:
    """``count`` images of each of four classes in turn; the first value of an image is its row."""
    labels = np.tile(np.arange(4), count)
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(labels))
    return builders.as_samples(Pixels(images), labels, first_id=first_id)


def test_a_class_stream_is_cut_ordered_and_named() -> None:
    cut = builders.Cut(
        train=samples(5), test=samples(2, 100), class_names=("a", "b", "c", "d"), notes={"layout": "here"}
    )
    config = FourConfig(class_order="3,1,0,2", train=2)
    scenario = builders.class_stream(spec(FourConfig, "class-il"), config, REQUEST, cut, version=7)
    assert (scenario.version, scenario.class_names, scenario.class_order) == (7, ("d", "b", "a", "c"), (3, 1, 0, 2))
    assert [part.classes for part in scenario.experiences] == [(0, 1), (2, 3)]
    assert scenario.experiences[0].train.ids.tolist() == [1, 3, 5, 7]
    assert scenario.experiences[0].test.ids.tolist() == [101, 103, 105, 107]
    assert scenario.notes == {"layout": "here"}
    with pytest.raises(ValueError, match="split: '3x2' makes 6 classes, but there are 4"):
        FourConfig(split="3x2")
    with pytest.raises(ValueError, match=r"class_order: .* exactly once"):
        FourConfig(class_order="0,1,1,2")
    with pytest.raises(ValueError, match="train: -1 is negative"):
        FourConfig(train=-1)


def test_a_domain_stream_goes_through_domains_in_any_order() -> None:
    found = builders.Domains(
        train={name: samples(5, 100 * place) for place, name in enumerate(PlacesConfig.DOMAINS)},
        test={name: samples(2, 1000 + 100 * place) for place, name in enumerate(PlacesConfig.DOMAINS)},
        class_names=("a", "b", "c", "d"),
    )
    kind = spec(PlacesConfig, "domain-il")
    scenario = builders.domain_stream(kind, PlacesConfig(order=("air", "sea"), test=1), REQUEST, found)
    assert scenario.domains == ("air", "sea")
    assert [len(part.test) for part in scenario.experiences] == [4, 4]
    assert scenario.experiences[0].train.ids.min() == 200
    by_rule = builders.domain_stream(kind, PlacesConfig(order=("seed",)), REQUEST, found)
    assert by_rule.domains == builders.ordered(("numpy:1",), PlacesConfig.DOMAINS, 0)
    for order, message in (
        (("sea", "sea"), "'sea,sea' is not possible"),
        (("moon",), "'moon' is not a class order"),
        ((), "''"),
    ):
        with pytest.raises(ValueError, match=message):
            PlacesConfig(order=order)


def test_counts_that_differ_name_both_and_those_of_a_miniature_are_not_compared() -> None:
    builders.check_counts({"train": 5}, {"train": 5}, REQUEST)
    with pytest.raises(DataMissing, match=r"train: 5 images, published are 24,000"):
        builders.check_counts({"train": 5}, {"train": 24_000}, REQUEST)
    small = ScenarioRequest(data_root=None, cache=Path("unused"), miniature=True)
    builders.check_counts({"train": 5}, {"train": 24_000}, small)


# --- Derived samples ----------------------------------------------------------------------------


def inverted(images: Any, rows: torch.Tensor) -> Any:
    return 255 - images + rows.to(torch.uint8).view(-1, 1, 1, 1)


def test_derived_samples_are_changed_as_they_are_read() -> None:
    base = samples(5)
    changed = Derived(base.source, inverted, "inverted")
    assert len(changed) == 20
    rows = torch.tensor([7, 2])
    assert torch.equal(changed[rows], inverted(base.source[rows], rows))  # type: ignore[arg-type, index]
    assert changed.digest != digest_of(base.source)
    assert changed.digest != Derived(base.source, inverted, "otherwise").digest


def test_a_fingerprint_knows_what_was_done_and_the_content_does_not() -> None:
    base = samples(5)

    def stream(name: str, *, alone: bool = False) -> tuple[Experience, ...]:
        source = Derived(base.source, inverted, name) if name else base.source
        found = Samples(source, base.rows, base.labels)
        return (Experience(train=found.alone() if alone else found, test=found, classes=(0, 1, 2, 3)),)

    assert content_of(stream("one")) == content_of(stream("two")) == content_of(stream(""))
    prints = {fingerprint(stream(name)) for name in ("", "one", "two")}
    assert len(prints) == 3
    assert fingerprint(stream("one", alone=True)) == fingerprint(stream("one"))
    twice = Derived(Derived(base.source, inverted, "one"), inverted, "two")
    assert (
        fingerprint((Experience(train=Samples(twice, base.rows, base.labels), test=base, classes=(0,)),)) not in prints
    )


# --- bench list scenarios -----------------------------------------------------------------------


def test_the_list_tells_family_tracks_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "PACS").mkdir()
    assert main(["list", "scenarios", "--data-root", str(tmp_path), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["scenarios"]}
    assert rows["pacs"]["data"] == "here"
    assert rows["split-cifar100"]["data"] == "missing: CIFAR-100"
    assert rows["split-glyphs"] | {"data": "bundled", "family": "class-il", "tracks": "nano"} == rows["split-glyphs"]
    assert rows["split-cifar"]["family"] == "class-il (alias of split-cifar100)"
