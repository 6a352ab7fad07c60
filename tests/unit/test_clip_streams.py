"""MTIL and X-TAIL on tiny copies of their data sets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_scenarios import _coop, clip_streams
from benchmark import registry
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing
from benchmark.testing import checks, subjects

FEW = ("mnist", "dtd", "eurosat")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("clip") / "data"
    clip_streams.SPECS["mtil"].miniature(found)
    return found


def build(root: Path, name: str, *, seed: int = 0, miniature: bool = True, **options: Any) -> Scenario:
    spec = clip_streams.SPECS[name]
    cache = root.parent / "cache"
    request = ScenarioRequest(data_root=root, cache=cache, seed=seed, download="never", miniature=miniature)
    return spec.build(spec.config(**options), request)


@pytest.fixture(scope="module")
def whole(root: Path) -> Scenario:
    return build(root, "mtil")


def test_orders_are_the_published_ones(root: Path, whole: Scenario) -> None:
    assert whole.name == "mtil/order-1"
    assert whole.domains == clip_streams.SETS == tuple(clip_streams.ORDERS["order-1"])
    assert set(clip_streams.ORDERS["order-2"]) == set(clip_streams.SETS)
    second = build(root, "mtil", order="order-2", sets=FEW)
    assert second.domains == ("mnist", "dtd", "eurosat")
    assert build(root, "mtil", sets=FEW).domains == ("dtd", "eurosat", "mnist")
    assert second.content == build(root, "mtil", sets=FEW, shots=2).content
    tail = clip_streams.XTailConfig()
    assert tail.chosen == tuple(key for key in clip_streams.SETS if key != "cifar100")
    assert tail.shots == 16
    assert clip_streams.XTailConfig(order="order-2").chosen[-1] == "eurosat"


def test_every_image_of_the_lists_is_trained(whole: Scenario) -> None:
    sizes = {key: [17] * 5 for key in clip_streams.COOP} | {"cifar100": [3] * 100, "mnist": [12] * 10}
    first = 0
    for key, part in zip(whole.domains, whole.experiences, strict=True):
        assert part.classes == tuple(range(first, first + len(sizes[str(key)])))
        assert (part.train.labels - first).bincount().tolist() == sizes[str(key)]
        assert set(part.test.labels.tolist()) == set(part.classes)
        assert (part.validation is not None) == (key in clip_streams.COOP)
        assert part.train.image_shape == part.test.image_shape == (3, 224, 224)
        first += len(part.classes)
    assert whole.num_classes == first == 9 * 5 + 110
    assert whole.partition.startswith("CoOp's lists ")
    for name in ("train", "test"):
        ids = torch.cat([getattr(part, name).ids for part in whole.experiences])
        assert len(ids.unique()) == len(ids)


def test_names_that_data_sets_share_stay_classes_of_their_own(whole: Scenario) -> None:
    assert whole.class_names.count("class 0") == 9
    assert "class 0" in whole.notes["shared names"].split(", ")
    place = whole.experiences[whole.domains.index("mnist")].classes[3]
    assert whole.class_names[place] == 'number: "3 - three"'


def test_shots_are_drawn_by_the_seed_as_in_coop(root: Path) -> None:
    one, two = (build(root, "x-tail", sets=FEW, shots=2, seed=seed) for seed in (0, 1))
    assert one.fingerprint != two.fingerprint
    assert one.content == two.content
    request = ScenarioRequest(data_root=root, cache=root.parent / "cache", seed=1, download="never", miniature=True)
    for key in ("dtd", "eurosat"):
        part = two.experiences[two.domains.index(key)]
        assert part.train.rows.tolist() == _coop.draw(key, 2, request).train.rows.tolist()
    digits = one.experiences[one.domains.index("mnist")]
    assert (digits.train.labels - digits.classes[0]).bincount().tolist() == [2] * 10
    assert digits.validation is not None
    assert not set(digits.validation.ids.tolist()) & set(digits.train.ids.tolist())


def test_small_images_are_enlarged_as_clip_does(whole: Scenario) -> None:
    from PIL import Image

    part = whole.experiences[whole.domains.index("cifar100")]
    stored = part.test.source.base[part.test.rows[:1]][0]  # type: ignore[attr-defined]
    image = Image.fromarray(stored.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    assert torch.equal(part.test.images(slice(0, 1))[0].permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_options_are_checked() -> None:
    wrong: list[tuple[type, dict[str, Any], str]] = [
        (clip_streams.MtilConfig, {"sets": ("dtd", "dtd")}, "once each"),
        (clip_streams.MtilConfig, {"sets": ("imagenet",)}, "use some of fgvc_aircraft"),
        (clip_streams.XTailConfig, {"sets": ("cifar100",)}, "'cifar100' is not possible"),
        (clip_streams.MtilConfig, {"shots": -1}, "shots"),
        (clip_streams.MtilConfig, {"shots": 10_001}, "out of range"),
        (clip_streams.MtilConfig, {"test": -1}, "test"),
    ]
    for config, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            config(**options)


def test_what_is_missing_or_another_number_is_told(root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(root / "coop" / "dtd", data / "coop" / "dtd")
    with pytest.raises(DataMissing, match=r"(?i)eurosat"):
        build(data, "mtil", sets=("dtd", "eurosat"))
    with pytest.raises(DataMissing, match="CIFAR-100"):
        build(data, "mtil", sets=("dtd", "cifar100"))
    with pytest.raises(DataMissing, match="train: 85 images, published are 2,820"):
        build(data, "mtil", sets=("dtd",), miniature=False)
    next((data / "coop" / "dtd" / "images").glob("*.jpg")).unlink()
    with pytest.raises(DataMissing, match=r"\.jpg"):
        build(data, "mtil", sets=("dtd",))


@pytest.mark.parametrize("name", ["classes", "names", "ids"])
def test_the_contract_holds(root: Path, whole: Scenario, name: str) -> None:
    subject = checks.scenario_subject(clip_streams.SPECS["mtil"], root)
    subject.__dict__.update(scenario=whole, other=whole)
    checks.SCENARIO_CHECKS[name](subject)


@pytest.mark.parametrize("name", ["mtil", "x-tail"])
def test_zero_shot_is_tested_on_every_set_at_any_time(root: Path, name: str) -> None:
    subject = subjects.method_subject(registry.load_method("clip-zero-shot").spec)
    record = subject.run(build(root, name, sets=FEW, shots=2, test=1)).record
    matrix = record["accuracy"]
    assert matrix[0] == matrix[1] == matrix[2]  # nothing is trained, and all names are known from the start
    assert None not in matrix[0]
    assert record["metrics"]["whole_acc"] == pytest.approx(record["metrics"]["final_avg_acc"])
    assert record["metrics"]["unseen_acc"] == pytest.approx(sum(matrix[0][1:]) / 2)
    assert [test["name"] for test in record["scenario"]["tests"]] == ["dtd", "eurosat", "mnist"]
