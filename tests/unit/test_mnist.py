"""MNIST's idx files made here, and the real ones where BENCH_DATA has them; digits to glyph digits and back."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_scenarios import _mnist, glyph_world, mnist_glyphs
from bench_scenarios.mnist_glyphs import MnistGlyphsConfig
from benchmark.api import ScenarioRequest
from benchmark.errors import DataMissing

SMALL: dict[str, Any] = {"train": 4, "test": 4}


def idx(array: np.ndarray[Any, Any]) -> bytes:
    magic = 2051 if array.ndim == 3 else 2049
    return np.array([magic, *array.shape], ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = np.random.RandomState(0)
    for name, count in (("train", 60), ("t10k", 50)):
        labels = np.tile(np.arange(10), count // 10)
        images = generator.randint(0, 256, (count, 28, 28))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path / "data"


def request_in(root: Path) -> ScenarioRequest:
    return ScenarioRequest(data_root=root, cache=root.parent / "cache", download="never")


def test_a_subset_is_read_and_noted(root: Path) -> None:
    found = _mnist.load(request_in(root))
    arrays, notes = found.arrays, found.notes
    assert arrays["train_images"].shape == (60, 28, 28)
    assert arrays["test_labels"].tolist()[:11] == [*range(10), 0]
    assert notes == {"layout": "idx", "subset": "60 of 60,000 training images, 50 of 10,000 test images"}


def test_packed_files_are_the_same(root: Path) -> None:
    plain = _mnist.load(request_in(root)).arrays
    for path in list((root / "MNIST" / "raw").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = _mnist.load(request_in(root)).arrays
    assert all(np.array_equal(plain[name], packed[name]) for name in plain)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\x00\x00\x08", "not an idx file"),
        ("train-images-idx3-ubyte", idx(np.zeros(5)), "begins with 2049 instead of 2051"),
        ("train-images-idx3-ubyte", idx(np.zeros((60, 28, 28)))[:-1], "is truncated: 47,055 bytes instead of 47,056"),
        ("train-images-idx3-ubyte", idx(np.zeros((60, 27, 28))), "28x27 instead of 28x28 pixels"),
        ("train-images-idx3-ubyte", idx(np.zeros((59, 28, 28))), "the train set has 59 images, but 60 labels"),
        ("t10k-labels-idx1-ubyte", idx(np.full(50, 10)), "test labels are up to 10"),
    ],
)
def test_wrong_files_are_refused(root: Path, name: str, content: bytes, message: str) -> None:
    (root / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(DataMissing, match=message) as caught:
        _mnist.load(request_in(root))
    assert "{train,t10k}-images-idx3-ubyte[.gz]" in str(caught.value.hint)


def test_a_bomb_or_a_fifo_in_place_of_a_file_is_named(root: Path) -> None:
    path = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    path.unlink()
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(content + bytes(1 << 24)))
    with pytest.raises(DataMissing, match=r"ubyte\.gz holds more than the 58 bytes"):
        _mnist.load(request_in(root))
    os.mkfifo(path)
    with pytest.raises(DataMissing, match="idx1-ubyte is a FIFO, not a file"):
        _mnist.load(request_in(root))


def test_files_of_the_original_size_need_the_original_checksum(root: Path) -> None:
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(10_000)))
    with pytest.raises(DataMissing, match=r"is damaged: its MD5 is .* instead of 27ae3e4e09519cfbb04c329615203637"):
        _mnist.load(request_in(root))


def test_missing_files_say_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="downloads are switched off") as caught:
        _mnist.load(request_in(tmp_path))
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz" in str(caught.value.hint)


def test_damaged_packing(root: Path) -> None:
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(DataMissing, match=r"ubyte\.gz cannot be read"):
        _mnist.load(request_in(root))


def test_images_are_padded_and_coloured() -> None:
    images = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)
    found = _mnist.padded(images)
    assert found.shape == (3, 3, 32, 32)
    assert torch.equal(found[:, 0, 2:-2, 2:-2], torch.from_numpy(images))
    assert torch.equal(found[:, 0], found[:, 2])
    assert found[:, :, :2].sum() == found[:, :, :, -2:].sum() == 0


@pytest.mark.parametrize("pair", mnist_glyphs.PAIRS)
def test_pairs(root: Path, pair: Any) -> None:
    scenario = mnist_glyphs.build(MnistGlyphsConfig(pair=pair, **SMALL), request_in(root))
    (part,) = scenario.experiences
    assert (scenario.name, scenario.num_classes, scenario.image_size) == (f"mnist-glyphs/{pair}", 10, 32)
    assert (part.source_domains, part.domain) == ((pair.split("-")[0],), pair.split("-")[1])
    assert part.target is not None
    assert part.target_labels is not None
    assert part.train.labels.bincount().tolist() == part.target_labels.bincount().tolist() == [4] * 10
    assert part.test.labels.bincount().tolist() == [4] * 10
    ids = [part.train.ids, part.target.ids, part.test.ids, scenario.tests[0].images.ids]
    assert len(torch.cat(ids).unique()) == 160
    arrays = _mnist.load(request_in(root)).arrays
    mnist = part.train if pair.startswith("mnist") else part.target
    for place in (0, 7):
        row = int(mnist.ids[place])
        assert np.array_equal(mnist.images(torch.tensor([place]))[0, 0, 2:-2, 2:-2], arrays["train_images"][row])
    assert scenario.class_names[7] == "DIGIT SEVEN"
    assert "pre-training" in scenario.notes["glyphs"]


def test_glyphs_are_in_every_style_or_in_one(root: Path) -> None:
    mixed = mnist_glyphs.build(MnistGlyphsConfig(**SMALL), request_in(root)).experiences[0].test
    one = mnist_glyphs.build(MnistGlyphsConfig(style="chalk", **SMALL), request_in(root)).experiences[0].test
    styles = [(images.ids - 1_000_000) // 100_000 % 4 for images in (mixed, one)]
    assert styles[0].bincount().tolist() == [10] * 4
    assert set(styles[1].tolist()) == {1}
    chosen = glyph_world.render([3], [2], [1], seed=0, split=1, which=glyph_world.DIGITS)
    place = one.ids.tolist().index(1_000_000 + ((1 * 4 + 1) * 10 + 3) * 10_000 + 2)
    assert torch.equal(one.images(torch.tensor([place])), chosen)


def test_too_few_images_and_odd_numbers(root: Path) -> None:
    with pytest.raises(ValueError, match="train: MNIST has fewer than 8 train images"):
        mnist_glyphs.build(MnistGlyphsConfig(train=8, test=4), request_in(root))
    with pytest.raises(ValueError, match="train: 6 is not as many of each of four styles"):
        MnistGlyphsConfig(train=6, test=4)
    assert MnistGlyphsConfig(train=6, test=5, style="ink").train == 6


def test_real_files(data_root: Path, tmp_path: Path) -> None:
    if not (data_root / "MNIST").is_dir():
        pytest.skip("BENCH_DATA has no MNIST")
    arrays = (found := _mnist.load(ScenarioRequest(data_root=data_root, cache=tmp_path))).arrays
    assert found.notes["layout"] == "idx"
    assert len(arrays["train_labels"]) == len(arrays["train_images"]) > 1000
    assert set(arrays["test_labels"].tolist()) == set(range(10))
    scenario = mnist_glyphs.build(MnistGlyphsConfig(), ScenarioRequest(data_root=data_root, cache=tmp_path))
    assert len(scenario.experiences[0].train) == 1000
