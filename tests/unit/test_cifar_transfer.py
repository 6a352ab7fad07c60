"""CIFAR-100 from few images, by halves, and then CIFAR-10: on made-up parquet files of 8x8 images, and on real data."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bench_scenarios import (
    _cifar,
    cifar100_base_to_new,
    cifar100_few_shot,
    cifar_cross_dataset,
)
from benchmark import splits
from benchmark.api import Scenario, ScenarioRequest

SETS = {
    "cifar100": (100, "fine_label", 20, 3),
    "cifar10": (10, "label", 2, 30),
}  # classes, column, train, test per class


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder, (classes, column, *counts) in SETS.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for split, count in zip(("train", "test"), counts, strict=True):
            labels = np.random.RandomState(len(split)).permutation(np.repeat(np.arange(classes), count))
            blobs = []
            for row, label in enumerate(labels):
                file = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), (label + row) % 256, np.uint8)).save(file, "PNG")
                blobs.append({"bytes": file.getvalue()})
            table = pa.table({"img": blobs, column: labels})
            pq.write_table(table, tmp_path / "data" / folder / f"{split}.parquet")
    for name, folder in (("CIFAR100", "cifar100"), ("CIFAR10", "cifar10")):
        classes, _, train, test = SETS[folder]
        small = dataclasses.replace(getattr(_cifar, name), counts=(classes * train, classes * test), image_size=8)
        monkeypatch.setattr(_cifar, name, small)
    return tmp_path / "data"


def request_in(root: Path, seed: int = 0) -> ScenarioRequest:
    return ScenarioRequest(data_root=root, cache=root.parent / "cache", seed=seed, download="never")


def few_shot(root: Path, seed: int, shots: int = 3) -> Scenario:
    return cifar100_few_shot.build(cifar100_few_shot.Cifar100FewShotConfig(shots=shots), request_in(root, seed))


def test_few_shot_follows_the_published_rule_on_nine_tenths(root: Path) -> None:
    scenario = few_shot(root, 2, shots=5)
    (part,) = scenario.experiences
    assert (scenario.name, scenario.family, scenario.num_classes) == ("cifar100-few-shot/5", "few-shot", 100)
    assert part.train.labels.bincount().tolist() == [5] * 100
    assert part.validation is not None
    assert part.validation.labels.bincount().tolist() == [2] * 100  # a tenth of 20: fewer than four
    assert len(part.test) == 300
    labels = pq.read_table(root / "cifar100" / "train.parquet").column("fine_label").to_numpy()
    kept, held = splits.holdout(labels, 0.1, seed=0)
    generator = random.Random(2)
    drawn = kept[splits.few_shot(labels[kept], 5, generator)]
    assert part.train.ids.tolist() == drawn.tolist()
    assert part.validation.ids.tolist() == held[splits.few_shot(labels[held], 4, generator)].tolist()
    assert labels[part.train.ids.numpy()].tolist() == part.train.labels.tolist()
    assert few_shot(root, 3, shots=5).fingerprint != scenario.fingerprint == few_shot(root, 2, shots=5).fingerprint


def test_the_test_set_can_be_cut(root: Path) -> None:
    config = cifar100_few_shot.Cifar100FewShotConfig(shots=1, test=2)
    (part,) = cifar100_few_shot.build(config, request_in(root)).experiences
    assert part.test.labels.bincount().tolist() == [2] * 100
    for wrong in ({"shots": 0}, {"shots": 451}, {"test": -1}):
        with pytest.raises(ValueError, match=r"out of range|negative"):
            cifar100_few_shot.Cifar100FewShotConfig(**wrong)


def test_base_to_new(root: Path) -> None:
    config = cifar100_base_to_new.Cifar100BaseToNewConfig(shots=3)
    scenario = cifar100_base_to_new.build(config, request_in(root, 1))
    (part,), (new,) = scenario.experiences, scenario.tests
    assert part.classes == tuple(range(50))
    assert new.classes == tuple(range(50, 100))
    assert part.train.labels.bincount().tolist() == [3] * 50
    assert (len(part.test), len(new.images)) == (150, 150)
    assert scenario.class_names == _cifar.CIFAR100.class_names
    drawn = few_shot(root, 1).experiences[0].train  # cut after sampling
    assert part.train.ids.tolist() == drawn.ids[drawn.labels < 50].tolist()


def test_cross_dataset(root: Path) -> None:
    config = cifar_cross_dataset.CifarCrossDatasetConfig(shots=2, test=1)
    scenario = cifar_cross_dataset.build(config, request_in(root))
    (part,), (other,) = scenario.experiences, scenario.tests
    assert (scenario.family, scenario.num_classes, other.name) == ("cross-dataset", 110, "cifar10")
    assert part.classes == tuple(range(100))
    assert other.classes == tuple(range(100, 110))
    assert [scenario.class_names[label] for label in other.classes] == list(_cifar.CIFAR10.class_names)
    assert other.images.labels.bincount()[100:].tolist() == [10] * 10
    assert (len(part.train), len(part.test)) == (200, 100)
    labels = pq.read_table(root / "cifar10" / "test.parquet").column("label").to_numpy()
    assert (labels[other.images.ids.numpy()] + 100).tolist() == other.images.labels.tolist()
    assert not scenario.fingerprint.endswith("-lossy")


def test_real_data(data_root: Path) -> None:
    if not (data_root / "cifar100").is_dir() or not (data_root / "cifar10").is_dir():
        pytest.skip("BENCH_DATA has no CIFAR-100 or no CIFAR-10")
    request = ScenarioRequest(data_root=data_root, cache=Path(os.environ["BENCH_CACHE"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this copy of CIFAR-10 is re-encoded, and says so
        scenario = cifar_cross_dataset.build(cifar_cross_dataset.CifarCrossDatasetConfig(), request)
    (part,) = scenario.experiences
    assert (len(part.train), len(part.test), len(scenario.tests[0].images)) == (1600, 10_000, 10_000)
    lossy: Any = "CIFAR-10 lossy" in scenario.notes
    assert scenario.fingerprint.endswith("-lossy") == lossy
    assert torch.equal(part.train.labels.bincount(), torch.full((100,), 16))
