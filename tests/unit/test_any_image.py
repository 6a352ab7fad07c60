"""Any image that Pillow opens, as RGB."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark import readers
from benchmark.errors import DataMissing
from benchmark.readers.images import complete


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def levels(blob: bytes, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(readers.open_image("x", blob, **options))


RAMP = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(8, 12, 3)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, RAMP),
        (2, RAMP[:, ::-1]),
        (3, RAMP[::-1, ::-1]),
        (4, RAMP[::-1]),
        (5, RAMP.transpose(1, 0, 2)),
        (6, np.rot90(RAMP, -1)),
        (7, RAMP[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(RAMP)),
    ],
)
def test_images_stand_upright(orientation: int, turned: np.ndarray[Any, Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "TIFF", "WEBP"):
        blob = encoded(Image.fromarray(RAMP), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
        assert np.array_equal(levels(blob), turned), form
        if form != "TIFF":  # which Pillow always turns
            assert np.array_equal(levels(blob, upright=False), RAMP)


def test_transparent_pixels_are_white_and_half_transparent_ones_mixed_with_it() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 0, 255), (200, 0, 0, 0), (200, 0, 0, 127)])
    assert levels(encoded(image, "PNG")).tolist() == [[[200, 0, 0], [255, 255, 255], [228, 128, 128]]]
    grey = Image.new("LA", (2, 1))
    grey.putdata([(50, 255), (50, 0)])
    assert levels(encoded(grey, "PNG")).tolist() == [[[50] * 3, [255] * 3]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 6, 5, 4])
    assert levels(encoded(palette, "PNG", transparency=1)).tolist() == [[[9, 8, 7], [255] * 3]]


def test_transparent_images_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = np.dstack([RAMP, np.full(RAMP.shape[:2], 255, np.uint8)])
    assert np.array_equal(levels(encoded(Image.fromarray(seen), "PNG", exif=exif)), np.rot90(RAMP, -1))


def test_palettes_grey_and_cmyk_become_rgb() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 6, 5, 4])
    assert levels(encoded(palette, "PNG")).tolist() == [[[9, 8, 7], [6, 5, 4]]]
    assert levels(encoded(Image.new("L", (1, 1), 77), "PNG")).tolist() == [[[77] * 3]]
    assert levels(encoded(Image.new("1", (1, 1), 1), "PNG")).tolist() == [[[255] * 3]]
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = levels(encoded(cmyk, "JPEG", quality=100))[0, 0]
    assert red[0] > 245
    assert red[1:].max() < 20


def test_16_bits_of_grey_become_8() -> None:
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    for form in ("PNG", "TIFF"):
        assert levels(encoded(deep, form))[..., 0].tolist() == [[0, 128, 255]]


def test_of_moving_images_the_first_frame_is_shown() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        blob = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert levels(blob)[0, 0].tolist() == [255, 0, 0], form


def test_what_is_no_image_or_cut_off_is_said_in_one_line(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(RAMP).resize((64, 64)), "JPEG")
    for blob, words in (
        (whole[: len(whole) // 2], "[Tt]runcated"),
        (b"", "no form of image"),
        (b"<html></html>", "no form of image"),
        (encoded(Image.fromarray(RAMP), "PNG")[:-40], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no form of image"),
    ):
        with pytest.raises(DataMissing, match=words) as caught:
            readers.open_image("bird.jpg", blob)
        assert caught.value.message.startswith("bird.jpg is not a readable image: ")
        assert "\n" not in caught.value.message
        assert "BytesIO" not in caught.value.message
        assert not complete(blob)
    assert complete(whole)
    assert complete(encoded(Image.fromarray(RAMP), "PNG"))


def test_the_index_knows_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(RAMP).resize((64, 64)), "JPEG"))
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    (tmp_path / "c.png").write_bytes(b"no image")
    gif = bytearray(encoded(Image.fromarray(RAMP), "GIF"))
    (tmp_path / "d.gif").write_bytes(gif)
    for _ in range(2):  # now, and from the index
        found = readers.index_files(readers.find_images(tmp_path), tmp_path / "cache", quiet=True)
        assert sorted(found.bad) == [1, 2]
        assert "b.jpg is not a readable image" in found.bad[1]
