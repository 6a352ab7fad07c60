"""ImageNet-C on a small copy of its folders, whole and damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bench_scenarios import imagenet_c
from bench_scenarios._corruptions import ORDER
from bench_scenarios.imagenet_c import FIFTEEN, TUNING, ImageNetCConfig
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet-c")
    imagenet_c.miniature(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of six corruptions that a test may damage."""
    root = tmp_path / "data"
    shutil.copytree(whole / "coop", root / "coop")
    for name in ("contrast", "fog", *TUNING):
        shutil.copytree(whole / "imagenet-c" / name, root / "imagenet-c" / name)
    yield root
    shutil.rmtree(root)


def build(root: Path, seed: int = 0, *, miniature: bool = True, **options: Any) -> Scenario:
    request = ScenarioRequest(data_root=root, cache=root.parent / "cache", seed=seed, miniature=miniature)
    return imagenet_c.build(ImageNetCConfig(**options), request)


def test_all_fifteen_are_the_stream_and_the_others_tune(whole: Path) -> None:
    scenario = build(whole)
    assert scenario.name == "imagenet-c/continual"
    assert scenario.test_stream is not None
    assert scenario.tuning_stream is not None
    assert tuple(part.name for part in scenario.test_stream.segments) == FIFTEEN
    assert tuple(part.name for part in scenario.tuning_stream.segments) == TUNING == ORDER[15:]
    assert scenario.test_stream.batch_size == 64
    for part in scenario.test_stream.segments:
        assert sorted(part.images.labels.tolist()) == sorted([*range(5)] * 2)


def test_images_are_those_of_the_folder_of_their_class_corruption_and_severity(copy: Path) -> None:
    folder = copy / "imagenet-c" / "fog" / "3"
    classes = sorted(path.name for path in folder.iterdir())
    for place, wnid in enumerate(classes):  # images of their own: a grey for every class
        Image.new("RGB", (10, 8), (40 * place + 10,) * 3).save(folder / wnid / "0.JPEG")
    scenario = build(copy, corruptions="fog", severity=3, images=1)
    assert scenario.test_stream is not None
    (part,) = scenario.test_stream.segments
    assert sorted(part.images.labels.tolist()) == [0, 1, 2, 3, 4]
    found = part.images.images(slice(None))
    for image, label in zip(found, part.images.labels.tolist(), strict=True):
        assert (image.to(torch.int64) - (40 * label + 10)).abs().max() <= 2
    assert scenario.content != build(copy, corruptions="fog", severity=4, images=1).content


def test_the_seed_orders_the_stream_and_options_choose_images(copy: Path) -> None:
    one, two = (build(copy, seed, corruptions="contrast+fog") for seed in (0, 1))
    assert one.test_stream is not None
    assert two.test_stream is not None
    for first, second in zip(one.test_stream.segments, two.test_stream.segments, strict=True):
        assert sorted(first.images.ids.tolist()) == sorted(second.images.ids.tolist())
        assert first.images.ids.tolist() != second.images.ids.tolist()
    assert one.content == two.content == build(copy, corruptions="contrast+fog", images=1, test=1).content
    assert one.fingerprint != two.fingerprint
    short = build(copy, corruptions="contrast", images=1)
    assert short.test_stream is not None
    assert len(short.test_stream.segments[0].images) == 5


def test_gradual_reads_all_severities_and_mixed_pools(copy: Path) -> None:
    gradual = build(copy, corruptions="fog", setting="gradual").test_stream
    assert gradual is not None
    assert len(gradual.segments) == 9
    ids = torch.cat([part.images.ids for part in gradual.segments])
    assert len(ids.unique()) == len(ids)
    mixed = build(copy, corruptions="contrast+fog", setting="mixed").test_stream
    assert mixed is not None
    (part,) = mixed.segments
    assert len(part.images) == 20
    assert part.images.images(slice(None)) is not None


def test_what_is_missing_is_named(copy: Path) -> None:
    folder = copy / "imagenet-c"
    with pytest.raises(DataMissing, match=r"imagenet-c has no folder gaussian_noise") as caught:
        build(copy)
    assert "corruptions=fog+contrast" in str(caught.value.hint)
    shutil.rmtree(folder / "fog" / "5")
    with pytest.raises(DataMissing, match=r"fog has severities 1, 2, 3, 4, not 5") as caught:
        build(copy, corruptions="fog")
    assert "severity=N" in str(caught.value.hint)
    assert build(copy, corruptions="fog", severity=4).test_stream is not None
    with pytest.raises(DataMissing, match="not 5"):
        build(copy, corruptions="fog", severity=4, setting="gradual")
    (folder / "contrast" / "5" / "n00000002").rename(folder / "contrast" / "5" / "n99999999")
    with pytest.raises(DataMissing, match=r"contrast/5 has no images of n00000002"):
        build(copy, corruptions="contrast")
    shutil.rmtree(folder)
    with pytest.raises(DataMissing, match=r"ImageNet-C: not found below"):
        build(copy)


def test_counts_are_those_published(copy: Path) -> None:
    folder, request = copy / "imagenet-c", ScenarioRequest(data_root=copy, cache=copy, seed=0)
    classes = sorted(path.name for path in (folder / "fog" / "5").iterdir())
    with pytest.raises(DataMissing, match=r"fog/5: 10 images, published are 50,000"):
        imagenet_c.pool(folder, "fog", 5, classes, request)


def test_without_extra_corruptions_there_is_nothing_to_tune_on(copy: Path) -> None:
    shutil.rmtree(copy / "imagenet-c" / "spatter")
    found = build(copy, corruptions="fog").tuning_stream
    assert found is not None
    assert tuple(part.name for part in found.segments) == tuple(name for name in TUNING if name != "spatter")
    for name in TUNING:
        shutil.rmtree(copy / "imagenet-c" / name, ignore_errors=True)
    assert build(copy, corruptions="fog").tuning_stream is None


def test_options() -> None:
    assert ImageNetCConfig(corruptions="fog+frost").names == ("fog", "frost")
    assert ImageNetCConfig(setting="gradual-correlated").severities == (1, 2, 3, 4, 5)
    for wrong in ("saturate", "fog+fog", "", "16"):
        with pytest.raises(ValueError, match=r"corruptions: .* is not possible"):
            ImageNetCConfig(corruptions=wrong)
