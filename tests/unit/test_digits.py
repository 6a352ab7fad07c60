"""MNIST, Fashion-MNIST and SVHN made here: split, permuted, rotated; the real MNIST where BENCH_DATA has it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench_scenarios import _mnist, _svhn, _usps, permuted_mnist, rotated_mnist, split_mnist
from bench_scenarios.permuted_mnist import PermutedMnistConfig
from bench_scenarios.rotated_mnist import RotatedMnistConfig
from bench_scenarios.split_mnist import SplitDigitsConfig
from benchmark import data, data_facts, readers
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    _mnist.miniature(folder)
    _svhn.miniature(folder)
    return folder


def request_in(root: Path, seed: int = 0, *, miniature: bool = False) -> ScenarioRequest:
    return ScenarioRequest(
        data_root=root, cache=root.parent / "cache", seed=seed, download="never", miniature=miniature
    )


def grey(root: Path, split: str = "train") -> Any:
    return _mnist.load(request_in(root)).arrays[f"{split}_images"]


# --- Split --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["split-mnist", "split-fmnist", "split-svhn"])
def test_five_experiences_of_two_classes(root: Path, name: str) -> None:
    spec = split_mnist.SPECS[name]
    scenario = spec.build(SplitDigitsConfig(), request_in(root, miniature=True))
    assert [part.classes for part in scenario.experiences] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert scenario.name == f"{name}/5x2"
    ids = torch.cat([samples.ids for part in scenario.experiences for samples in (part.train, part.test)])
    assert len(ids.unique()) == len(ids)
    assert scenario.class_names[9] in ("nine", "ankle boot")
    other = spec.build(SplitDigitsConfig(split="b5-inc1", class_order="numpy:1993"), request_in(root, miniature=True))
    assert other.class_order == (4, 2, 7, 6, 0, 3, 5, 8, 9, 1)
    assert len(other.experiences) == 6


def test_grey_images_are_the_same_in_every_channel(root: Path) -> None:
    first = split_mnist.SPECS["split-mnist"].build(SplitDigitsConfig(), request_in(root)).experiences[0].train
    images = first.images(torch.tensor([3]))
    assert images.shape == (1, 3, 28, 28)
    assert np.array_equal(images[0, 2], grey(root)[int(first.ids[3])])


def test_fashion_of_the_original_size_must_be_balanced(tmp_path: Path) -> None:
    _mnist.miniature(tmp_path)
    folder = tmp_path / "FashionMNIST" / "raw"
    labels, images = np.zeros(10_000, np.uint8), np.zeros((10_000, 28, 28), np.uint8)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(readers.idx_header(labels.shape) + labels.tobytes())
    (folder / "t10k-images-idx3-ubyte").write_bytes(readers.idx_header(images.shape) + images.tobytes())
    with pytest.raises(DataMissing, match=r"the test set has 10,000 images of T-shirt instead of 1,000"):
        _mnist.cut(_mnist.CLOTHES, request_in(tmp_path))


def test_svhn_calls_ten_zero_and_is_read_from_the_cache(root: Path) -> None:
    cut = _svhn.cut(request_in(root, miniature=True))
    assert cut.train.labels.tolist()[:11] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    from scipy.io import loadmat

    stored = loadmat(root / "svhn" / "train_32x32.mat")["X"]
    assert np.array_equal(cut.train.images(torch.tensor([5]))[0], stored[:, :, :, 5].transpose(2, 0, 1))


def test_svhn_of_another_checksum_or_content_is_refused(tmp_path: Path) -> None:
    from scipy.io import savemat

    _svhn.miniature(tmp_path)
    with pytest.raises(DataMissing, match=r"train_32x32\.mat is damaged: its MD5 is .* instead of e26dedcc"):
        _svhn.cut(request_in(tmp_path))
    path = tmp_path / "svhn" / "test_32x32.mat"
    content = path.read_bytes()
    for wrong, message in (
        ({"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.ones((4, 1))}, r"holds uint8 \(32, 32, 3, 5\) for 4 labels"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [3]])}, r"labels 0\.\.3 instead of 1\.\.10"),
        ({"y": np.ones((4, 1))}, "cannot be read: 'X'"),
    ):
        savemat(path, wrong)
        with pytest.raises(DataMissing, match=message):
            _svhn.cut(request_in(tmp_path, miniature=True))
    path.write_bytes(content[:200])
    with pytest.raises(DataMissing, match=r"test_32x32\.mat cannot be read"):
        _svhn.cut(request_in(tmp_path, miniature=True))
    path.unlink()
    with pytest.raises(DataMissing, match=r"test_32x32\.mat is missing") as caught:
        _svhn.cut(request_in(tmp_path, miniature=True))
    assert "{train,test}_32x32.mat" in str(caught.value.hint)


@pytest.mark.parametrize("dataset", [_mnist.MNIST, _mnist.FASHION, _svhn.SVHN, _usps.USPS], ids=lambda one: one.key)
def test_the_sets_of_ten_are_recognised_and_read_whole(tmp_path: Path, dataset: data.DataSet) -> None:
    assert dataset.look is not None
    assert dataset.contents is not None
    assert dataset.look(tmp_path) is None
    for module in (_mnist, _svhn, _usps):
        module.miniature(tmp_path)
    form = dataset.look(tmp_path)
    assert form is not None
    parts, _ = dataset.contents(request_in(tmp_path, miniature=True))
    told = data_facts.describe(parts, dataset.class_names, {})
    assert (told["classes"], list(told["parts"])) == (10, ["train", "test"])
    assert told["parts"]["train"]["absent"] == []
    form.files[-1].unlink()
    with pytest.raises(DataMissing, match="is missing"):
        dataset.look(tmp_path)


# --- Permuted -----------------------------------------------------------------------------------


def permuted(root: Path, seed: int = 0, **options: Any) -> Scenario:
    return permuted_mnist.build(PermutedMnistConfig(**options), request_in(root, seed))


def test_pixels_are_permuted_by_the_successive_draws_of_one_generator(root: Path) -> None:
    scenario = permuted(root, seed=4, experiences=3)
    generator = np.random.RandomState(4)
    for place, part in enumerate(scenario.experiences):
        order = generator.permutation(784)
        for samples, split in ((part.train, "train"), (part.test, "test")):
            found = samples.images(torch.tensor([7, 2]))
            expected = grey(root, split)[[7, 2]].reshape(2, 784)[:, order].reshape(2, 28, 28)
            assert np.array_equal(found[:, 1], expected)
            assert samples.ids.min() == place * 70_000 + (60_000 if split == "test" else 0)
    assert scenario.experiences[0].domain == "permutation 0"


def test_the_first_permutation_may_be_none_and_the_others_stay(root: Path) -> None:
    plain, first = permuted(root, experiences=3), permuted(root, experiences=3, first_identity=True)
    at = torch.tensor([5])
    assert np.array_equal(first.experiences[0].train.images(at)[0, 0], grey(root)[5])
    assert torch.equal(first.experiences[2].train.images(at), plain.experiences[2].train.images(at))


def test_another_seed_is_another_fingerprint_of_the_same_data(root: Path) -> None:
    one, two = permuted(root, experiences=2), permuted(root, seed=1, experiences=2)
    assert one.fingerprint != two.fingerprint
    assert one.content == two.content == permuted(root, experiences=4).content
    assert len(permuted(root).experiences) == 20


# --- Rotated ------------------------------------------------------------------------------------


def rotated(root: Path, seed: int = 0, **options: Any) -> Scenario:
    return rotated_mnist.build(RotatedMnistConfig(**options), request_in(root, seed))


def test_angles_of_the_three_rules() -> None:
    free = rotated_mnist.angles(RotatedMnistConfig(), 2)
    assert free == np.random.RandomState(2).uniform(0, 180, 20).tolist()
    gem = rotated_mnist.angles(RotatedMnistConfig(rule="gem"), 2)
    assert [math.floor(angle / 9) for angle in gem] == list(range(20))
    ten = rotated_mnist.angles(RotatedMnistConfig(rule="gem", tasks=10, max_angle=90), 2)
    assert [math.floor(angle / 9) for angle in ten] == list(range(10))
    assert rotated_mnist.angles(RotatedMnistConfig(rule="fixed"), 2) == [0, 15, 30, 45, 60, 75]
    for rule in ("some", "0", "1001", "-3", "2.5"):
        with pytest.raises(ValueError, match=f"rule: '{rule}' is unknown"):
            RotatedMnistConfig(rule=rule)


@pytest.mark.parametrize(("rule", "way"), [("3", Image.Resampling.BILINEAR), ("gem", Image.Resampling.NEAREST)])
def test_images_are_turned_as_pillow_turns_them(root: Path, rule: str, way: Image.Resampling) -> None:
    scenario = rotated(root, seed=1, rule=rule, tasks=3)
    for part, angle in zip(
        scenario.experiences, rotated_mnist.angles(RotatedMnistConfig(rule=rule, tasks=3), 1), strict=True
    ):
        expected = Image.fromarray(grey(root)[9]).rotate(angle, resample=way, fillcolor=0)
        found = part.train.images(torch.tensor([9]))
        assert np.array_equal(found[0, 0], np.asarray(expected))
        assert torch.equal(found[0, 0], found[0, 2])


def test_fixed_angles_share_no_image(tmp_path: Path) -> None:
    root = tmp_path / "data"
    _mnist.miniature(root, 1200)
    scenario = rotated(root, rule="fixed")
    assert scenario.domains == ("0 degrees", "15 degrees", "30 degrees", "45 degrees", "60 degrees", "75 degrees")
    ids = torch.cat([samples.ids % 70_000 for part in scenario.experiences for samples in (part.train, part.test)])
    assert len(ids) == len(ids.unique()) == 1800  # all of both splits
    at = torch.tensor([0])
    first = scenario.experiences[0].train
    whole = _mnist.cut(_mnist.DIGITS, request_in(root))
    row = int(first.ids[0])
    source = (
        whole.train.images(torch.tensor([row])) if row < 60_000 else whole.test.images(torch.tensor([row - 60_000]))
    )
    assert torch.equal(first.images(at), source)
    assert int(first.labels[0]) == int(row % 60_000 % 10)


def test_disjoint_shares(root: Path) -> None:
    scenario = rotated(root, rule="2", images="disjoint")
    for split in ("train", "test"):
        ids = torch.cat([getattr(part, split).ids % 70_000 for part in scenario.experiences])
        assert len(ids.unique()) == len(ids) == {"train": 120, "test": 60}[split]
    with pytest.raises(ValueError, match="images: too few"):
        rotated(root, rule="60", images="disjoint")


def test_real_digits(data_root: Path, tmp_path: Path) -> None:
    if not (data_root / "MNIST").is_dir():
        pytest.skip("BENCH_DATA has no MNIST")
    request = ScenarioRequest(data_root=data_root, cache=tmp_path)
    scenario = rotated_mnist.build(RotatedMnistConfig(train=20, test=5), request)
    assert [len(part.train) for part in scenario.experiences] == [200] * 20
    assert scenario.experiences[3].test.images(slice(0, 4)).float().mean() > 5
