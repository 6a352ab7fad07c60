"""Corruptions of 32x32 images against their definitions, and the streams made of them."""

from __future__ import annotations

import colorsys
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench_scenarios import _cifar, cifar_c, corrupted_cifar, corrupted_glyphs
from bench_scenarios._corruptions import ELEVEN, GENERATED, LATER, OFFICIAL_ONLY, ORDER, corrupt, plasma
from bench_scenarios.corrupted_cifar import CorruptedCifarConfig
from benchmark.api import Samples, ScenarioRequest
from benchmark.errors import DataMissing
from benchmark.samples import Pixels

IMAGE = np.random.RandomState(0).randint(0, 256, (32, 32, 3)).astype(np.uint8)


def test_the_order_is_the_published_one() -> None:
    assert ORDER[:3] == ("gaussian_noise", "shot_noise", "impulse_noise")
    assert ORDER[14:16] == ("jpeg_compression", "speckle_noise")
    assert len(ORDER) == len(GENERATED) + len(OFFICIAL_ONLY) == 19
    assert set(OFFICIAL_ONLY) == {
        "defocus_blur",
        "motion_blur",
        "snow",
        "frost",
        "elastic_transform",
        "spatter",
    }
    assert all(len(strengths) == 5 for _, strengths in GENERATED.values())


@pytest.mark.parametrize("name", GENERATED)
def test_a_corrupted_image_is_a_function_of_its_index(name: str) -> None:
    found = corrupt(IMAGE, name, 3, 5, 7)
    assert found.dtype == np.uint8
    assert found.shape == IMAGE.shape
    assert np.array_equal(found, corrupt(IMAGE, name, 3, 5, 7))
    assert not np.array_equal(found, IMAGE)
    same = np.array_equal(found, corrupt(IMAGE, name, 3, 5, 8))
    assert same != ("noise" in name or name in LATER)
    assert not np.array_equal(corrupt(IMAGE, name, 1, 5, 7), corrupt(IMAGE, name, 5, 5, 7))


# First 16 hexadecimal digits of the SHA-256 of IMAGE at severity 5, seed 0, index 0. The others go through libjpeg or
# the interpolation of scipy and Pillow, and are compared with these libraries below.
PINNED = {
    "gaussian_noise": "426e8d5936d75593",
    "shot_noise": "98469ee3bf0a7c1c",
    "impulse_noise": "d66228de532420f6",
    "speckle_noise": "133671870b471771",
    "contrast": "88114571761dea7f",
    "brightness": "44989c3e4f73baee",
    "saturate": "ce9f722bdfd191a9",
    "fog": "774ed14eeb3e3742",
}


@pytest.mark.parametrize("name", PINNED)
def test_generated_images_are_pinned(name: str) -> None:
    assert hashlib.sha256(corrupt(IMAGE, name, 5, 0, 0).tobytes()).hexdigest()[:16] == PINNED[name]


def test_noise_is_as_strong_as_published() -> None:
    grey = np.full((64, 64, 3), 127, np.uint8)
    for severity, scale in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
        found = corrupt(grey, "gaussian_noise", severity, 0, 0) / 255
        assert found.std() == pytest.approx(scale, rel=0.05)
    salted = corrupt(grey, "impulse_noise", 5, 0, 0)
    assert ((salted == 0) | (salted == 255)).mean() == pytest.approx(0.07, abs=0.01)
    assert (salted == 255).sum() / (salted != 127).sum() == pytest.approx(0.5, abs=0.05)
    photons = corrupt(grey, "shot_noise", 5, 0, 0) / 255
    assert photons.std() == pytest.approx((127 / 255 / 50) ** 0.5, rel=0.05)
    speckled = corrupt(grey, "speckle_noise", 1, 0, 0) / 255
    assert speckled.std() == pytest.approx(0.06 * 127 / 255, rel=0.05)


def test_contrast_by_hand() -> None:
    unit = IMAGE / 255
    mean = unit.mean(axis=(0, 1))
    expected = (np.clip((unit - mean) * 0.15 + mean, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(corrupt(IMAGE, "contrast", 5, 0, 0), expected)


@pytest.mark.parametrize("name", ["brightness", "saturate"])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_hsv_in_closed_form_is_that_of_the_standard_library(name: str, severity: int) -> None:
    image = IMAGE.copy()
    image[0] = 0  # black and grey pixels too
    image[1] = image[1, :, :1]
    strength: Any = GENERATED[name][1][severity - 1]
    expected = np.empty(image.shape)
    for place in np.ndindex(32, 32):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        if name == "brightness":
            value = min(value + strength, 1)
        else:
            saturation = min(max(saturation * strength[0] + strength[1], 0), 1)
        expected[place] = colorsys.hsv_to_rgb(hue, saturation, value)
    assert np.abs(corrupt(image, name, severity, 0, 0) - np.clip(expected, 0, 1) * 255).max() <= 1 + 1e-6


def test_jpeg_and_pixels_are_those_of_pillow() -> None:
    packed = io.BytesIO()
    Image.fromarray(IMAGE).save(packed, "JPEG", quality=58)
    assert np.array_equal(corrupt(IMAGE, "jpeg_compression", 3, 0, 0), np.asarray(Image.open(packed)))
    small = Image.fromarray(IMAGE).resize((20, 20), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    assert np.array_equal(corrupt(IMAGE, "pixelate", 5, 0, 0), np.asarray(small))


def test_blur_keeps_what_is_even_and_spreads_a_point() -> None:
    even = np.full((32, 32, 3), 200, np.uint8)
    for name in ("gaussian_blur", "zoom_blur"):
        assert np.abs(corrupt(even, name, 5, 0, 0).astype(int) - 200).max() <= 1
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    blurred = corrupt(point, "gaussian_blur", 5, 0, 0)[:, :, 0]
    assert blurred[16, 16] == int(255 / (2 * np.pi) * 1.0) or abs(int(blurred[16, 16]) - 40) <= 1
    assert blurred[15, 16] == blurred[16, 15] > blurred[15, 15] > 0


def test_plasma_is_made_of_means_of_neighbours() -> None:
    class Still:
        """Draws nothing but for the first point."""

        def __init__(self) -> None:
            self.drawn = 0

        def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> Any:
            self.drawn += 1
            return np.full(shape, high if self.drawn == 1 else 0.0)

    # The first draw lifts the middle of a torus of 4 x 4 to 10,000: all else are means of what surrounds it.
    found = plasma(4, 2.0, Still())  # type: ignore[arg-type]
    middle, half = 1.0, 0.5  # of the edges' middles two neighbours are the corner 0, two the middle (by the torus)
    quarter = (0 + half + half + middle) / 4  # of a small square's centre
    assert found[2, 2] == middle
    assert found[0, 2] == found[2, 0] == half
    assert found[1, 1] == found[1, 3] == found[3, 1] == found[3, 3] == quarter
    assert found[0, 1] == (0 + half + 2 * quarter) / 4
    assert found[1, 2] == (half + middle + 2 * quarter) / 4
    rough, smooth = (plasma(32, decay, np.random.RandomState(0)) for decay in (1.75, 3.0))
    assert (rough.min(), rough.max()) == (0, 1) == (smooth.min(), smooth.max())
    steps = [np.abs(np.diff(map_, axis=0)).mean() for map_ in (rough, smooth)]
    assert steps[0] > 1.5 * steps[1]


def test_fog_is_added_and_scaled_back() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:20, 6:30] = 204
    found = corrupt(image, "fog", 2, 3, 9) / 255
    clouds = plasma(32, 3, np.random.RandomState([3, ORDER.index("fog"), 9]))
    expected = (image / 255 + 0.5 * clouds[..., None]) * 0.8 / 1.3
    assert np.abs(found - np.clip(expected, 0, 1)).max() <= 1 / 255
    assert corrupt(np.zeros((20, 30, 3), np.uint8), "fog", 5, 0, 0).max() == 0  # as officially: nothing to scale to


def test_glass_takes_pixels_from_neighbours() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:] = (np.arange(32 * 32).reshape(32, 32, 1) * 7) % 251
    found = corrupt(image, "glass_blur", 1, 0, 4)  # a blur of 0.05 pixels changes nothing
    moves = np.random.RandomState([0, ORDER.index("glass_blur"), 4]).randint(-1, 1, size=(1, 30, 30, 2))
    expected = image.copy()
    for row in range(31, 1, -1):
        for column in range(31, 1, -1):
            right, down = moves[0, 31 - row, 31 - column]
            expected[row, column] = expected[row + down, column + right]
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert not np.array_equal(expected, image)
    assert np.array_equal(expected[:2], image[:2])  # the first two rows are taken from, and stay
    even = np.full((32, 32, 3), 200, np.uint8)
    assert np.abs(corrupt(even, "glass_blur", 5, 0, 0).astype(int) - 200).max() <= 1


def test_sets_from_before_glass_and_fog_have_neither() -> None:
    assert set(LATER) == {"glass_blur", "fog"}
    for before in (ELEVEN, corrupted_cifar.SETS["11"], cifar_c.MADE, corrupted_glyphs.REPORTED):
        assert not set(before) & set(LATER)
    assert len(ELEVEN) == 11
    assert (len(cifar_c.MADE), len(cifar_c.TEN)) == (8, 10)
    assert corrupted_cifar.SETS["13"] == tuple(name for name in ORDER if name in (*ELEVEN, *LATER))
    assert corrupted_glyphs.TEN == cifar_c.TEN == cifar_c.CifarCConfig(corruptions="10").names


# --- Streams ------------------------------------------------------------------------------------


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> Any:
    """CIFAR-10 of three training images and two test images per class."""
    generator = np.random.RandomState(1)

    def sets(which: Any, request: Any, counts: Any) -> Any:
        found = {}
        for split, count in (("train", 3), ("test", 2)):
            images = torch.from_numpy(generator.randint(0, 256, (10 * count, 3, 32, 32)).astype(np.uint8))
            labels = torch.arange(10).repeat(count)
            found[split] = Samples(Pixels(images), torch.arange(10 * count), labels)
        return found, {"layout": "made"}

    monkeypatch.setattr(_cifar, "image_sets", sets)
    return _cifar.CIFAR10


def build(cifar: Any, root: Path, seed: int = 0, **options: Any) -> Any:
    request = ScenarioRequest(data_root=root, cache=root, seed=seed, miniature=True)
    return corrupted_cifar.build(cifar, CorruptedCifarConfig(**options), request)


def official(root: Path, *names: str, images: Any = None) -> None:
    folder = root / "cifar10-c"
    folder.mkdir(exist_ok=True)
    np.save(folder / "labels.npy", np.tile(np.arange(10).repeat(10), 5).astype(np.uint8))
    for number, name in enumerate(names):
        array = np.full((500, 32, 32, 3), number, np.uint8) if images is None else images
        array = array.copy()
        if images is None:
            array[:, 0, 0, 0] = np.arange(500) // 100
        np.save(folder / f"{name}.npy", array)


def test_five_corruptions_are_made_here(cifar: Any, tmp_path: Path) -> None:
    scenario = build(cifar, tmp_path)
    assert scenario.domains == corrupted_cifar.FIVE
    assert scenario.notes["test images"] == "made here"
    for name, part in zip(corrupted_cifar.FIVE, scenario.experiences, strict=True):
        for samples, offset in ((part.train, 0), (part.test, 30)):
            clean = samples.source.base[torch.tensor([4])]
            expected = corrupt(clean[0].permute(1, 2, 0).numpy(), name, 5, 0, offset + 4)
            assert np.array_equal(samples.images(torch.tensor([4]))[0].permute(1, 2, 0), expected)
    ids = torch.cat([samples.ids for part in scenario.experiences for samples in (part.train, part.test)])
    assert len(ids.unique()) == len(ids)


def test_official_arrays_are_the_test_images_where_they_are(cifar: Any, tmp_path: Path) -> None:
    official(tmp_path, *corrupted_cifar.FIVE)
    scenario = build(cifar, tmp_path, severity=4)
    assert scenario.notes["test images"] == "official arrays"
    images = scenario.experiences[2].test.images(slice(None))
    assert len(images) == 100
    assert set(images[:, 0, 0, 0].tolist()) == {3}  # rows of severity 4
    assert set(images[:, 1].flatten().tolist()) == {2}
    assert len(scenario.experiences[2].train) == 30


def test_what_cannot_be_made_is_trained_and_tested_on_official_arrays(cifar: Any, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"CIFAR-10-C: not found .*; frost is not made here") as caught:
        build(cifar, tmp_path, corruptions="contrast+frost")
    assert "zenodo" in str(caught.value.hint)
    assert build(cifar, tmp_path, corruptions="contrast+fog").partition == ""  # both are made where no arrays are
    official(tmp_path, "contrast", "fog")
    scenario = build(cifar, tmp_path, corruptions="contrast+fog")
    assert scenario.partition == "80/20 cut of the official arrays"
    kept = [set((part.train.ids % 100_000).tolist()) for part in scenario.experiences]
    assert kept[0] == kept[1]  # an image that is tested is never trained, under no corruption
    assert [len(part.train) for part in scenario.experiences] == [80, 80]
    assert not kept[0] & set((scenario.experiences[1].test.ids % 100_000).tolist())


def test_damaged_official_arrays_are_named(cifar: Any, tmp_path: Path) -> None:
    official(tmp_path, "contrast")
    for array, message in (
        (np.zeros((500, 32, 32), np.uint8), r"contrast\.npy holds uint8 \(500, 32, 32\) for 500 labels"),
        (np.zeros((400, 32, 32, 3), np.uint8), r"holds uint8 \(400, 32, 32, 3\) for 500 labels"),
        (np.zeros((500, 32, 32, 3), np.float32), "holds float32"),
    ):
        np.save(tmp_path / "cifar10-c" / "contrast.npy", array)
        with pytest.raises(DataMissing, match=message):
            build(cifar, tmp_path, corruptions="contrast")
    (tmp_path / "cifar10-c" / "contrast.npy").write_bytes(b"no array")
    with pytest.raises(DataMissing, match=r"contrast\.npy cannot be read"):
        build(cifar, tmp_path, corruptions="contrast")
    with pytest.raises(DataMissing, match=r"fog\.npy cannot be read"):
        build(cifar, tmp_path, corruptions="fog")


def test_options(cifar: Any, tmp_path: Path) -> None:
    assert len(CorruptedCifarConfig(corruptions="11").names) == 11
    assert len(CorruptedCifarConfig(corruptions="13").names) == 13
    assert CorruptedCifarConfig(corruptions="15").names == ORDER[:15]
    for wrong in ("rain", "contrast+contrast", "", "6"):
        with pytest.raises(ValueError, match=r"corruptions: .* is not possible"):
            CorruptedCifarConfig(corruptions=wrong)
    with pytest.raises(ValueError, match="order: "):
        CorruptedCifarConfig(order="any")
    turned = build(cifar, tmp_path, order="4,3,2,1,0", train=1)
    assert turned.domains == corrupted_cifar.FIVE[::-1]
    assert [len(part.train) for part in turned.experiences] == [10] * 5
    assert turned.fingerprint != build(cifar, tmp_path, seed=1, order="4,3,2,1,0", train=1).fingerprint
