"""Images that stay in their files: the same bits as torchvision on PIL images, however many workers read them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from benchmark import readers
from benchmark.errors import DataMissing
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS
from benchmark.readers import images as decoding
from benchmark.run import loader
from benchmark.run.loader import Request, ahead
from benchmark.samples import Samples

SIZES = [(32, 43), (61, 37), (33, 101), (40, 40), (90, 70)]
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def picture(height: int, width: int, seed: int) -> Image.Image:
    levels = np.random.RandomState(seed).randint(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for number in range(24):
        folder = root / f"class {number % 3}"
        folder.mkdir(exist_ok=True)
        height, width = SIZES[number % len(SIZES)]
        suffix = ("jpg", "PNG", "jpeg")[number // 3 % 3]
        picture(height, width, number).save(folder / f"bild, ä {number:02d}.{suffix}", quality=85)
    return root


def source_of(root: Path, cache: Path, **options: Any) -> readers.FileImages:
    return readers.FileImages(readers.index_files(readers.find_images(root), cache, quiet=True), **options)


def pipeline_of(preset: str, size: int = 32) -> ImagePipeline:
    return ImagePipeline(preset, size=size, mean=(0.0,) * 3, std=(1.0,) * 3)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("preset", sorted(name for name in PRESETS if not PRESETS[name].square))
def test_at_test_time_files_are_what_torchvision_makes_of_them(
    tree: Path, tmp_path: Path, preset: str, size: int
) -> None:
    pipeline, source = pipeline_of(preset, size), source_of(tree, tmp_path)
    rows = torch.arange(len(source))
    found = pipeline.eval(source.fitted(pipeline.fit())[rows])
    short, about = pipeline.short, PRESETS[preset]
    for row, mine in enumerate(found):
        image = Image.open(readers.find_images(tree).path(row)).convert("RGB")
        if about.test_square or image.height > 2 * image.width:
            theirs = TF.resize(TF.resize(image, [image.height, short], MODES[about.interpolation]), [short, short])
            if about.interpolation == "bilinear":
                theirs = TF.resize(
                    TF.resize(image, [image.height, short], MODES["bilinear"]), [short, short], MODES["bilinear"]
                )
        else:
            theirs = TF.resize(image, [short], MODES[about.interpolation])
        assert torch.equal(mine, as_tensor(TF.center_crop(theirs, [size, size])).float() / 255), row


def test_training_crops_are_those_of_torchvision(tree: Path, tmp_path: Path) -> None:
    pipeline, source = pipeline_of("clip224"), source_of(tree, tmp_path)
    rows = torch.arange(len(source))
    generator = torch.Generator().manual_seed(3)
    cut = pipeline.cut(len(rows), generator)
    assert cut is not None
    found = pipeline.train(source.cut(rows, cut), generator, cut=cut)
    for row, mine in enumerate(found):
        image = Image.open(readers.find_images(tree).path(row)).convert("RGB")
        top, left, height, width = cut.box(row, image.height, image.width)
        box = image.crop((left, top, left + width, top + height))
        theirs = TF.resize(TF.resize(box, [height, 32], MODES["bicubic"]), [32, 32], MODES["bicubic"])
        theirs = TF.hflip(theirs) if cut.mirrored[row] else theirs
        assert torch.equal(mine, as_tensor(theirs).float() / 255)


def test_boxes_are_distributed_as_those_of_torchvision() -> None:
    pipeline = pipeline_of("clip224")
    cut = pipeline.cut(4000, torch.Generator().manual_seed(0))
    assert cut is not None
    mine = np.array([cut.box(place, 61, 137) for place in range(4000)])
    torch.manual_seed(0)
    blank = Image.new("RGB", (137, 61))
    theirs = np.array([RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    assert (mine[:, :2] >= 0).all()
    assert (mine[:, 0] + mine[:, 2] <= 61).all()
    assert (mine[:, 1] + mine[:, 3] <= 137).all()
    assert np.abs(mine.mean(axis=0) - theirs.mean(axis=0)).max() < 1.5
    assert np.abs(mine.std(axis=0) - theirs.std(axis=0)).max() < 1.5
    narrow = cut.box(0, 500, 3)  # nothing fits: the largest crop in range
    assert narrow[2:] == (4, 3)


def test_workers_read_what_one_process_reads(tree: Path, tmp_path: Path) -> None:
    pipeline, source = pipeline_of("domainbed224"), source_of(tree, tmp_path)
    whole = Samples(source, torch.arange(24), torch.zeros(24, dtype=torch.int64))
    several = Samples.concat([whole.subset(torch.arange(20, 4, -1)).alone(), whole.subset(torch.arange(7)).alone()])

    def requests() -> list[Request]:
        batches = torch.split(torch.randperm(23, generator=torch.Generator().manual_seed(0)), 5)
        cuts = [pipeline.cut(len(rows), torch.Generator().manual_seed(number)) for number, rows in enumerate(batches)]
        return [Request(several, rows, cut) for rows, cut in zip(batches, cuts, strict=True)]

    state = torch.get_rng_state()
    alone = list(ahead(requests(), [several], count=23, workers=0))
    for workers in (1, 2):
        found = list(ahead(requests(), [several], count=23, workers=workers))
        assert all(torch.equal(one, two) for one, two in zip(alone, found, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator belongs to the method
    plain = [Request(several, request.rows) for request in requests()]
    for request, found in zip(plain, ahead(plain, [several], count=23, workers=1), strict=True):
        assert torch.equal(found, several.images(request.rows))


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False), (None, False)])
def test_what_workers_read_for_a_gpu_is_pinned(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str | None, pinned: bool
) -> None:
    told: list[bool] = []

    class Loader(DataLoader[Any]):
        def __init__(self, *args: Any, pin_memory: bool, **options: Any) -> None:
            told.append(pin_memory)
            super().__init__(*args, **options)

    monkeypatch.setattr(loader, "DataLoader", Loader)
    samples = Samples(source_of(tree, tmp_path), torch.arange(3), torch.zeros(3, dtype=torch.int64))
    requests = [Request(samples, torch.arange(3))]
    where = None if device is None else torch.device(device)
    (found,) = ahead(iter(requests), [samples], count=3, workers=1, device=where)
    assert torch.equal(torch.as_tensor(found), samples.images(torch.arange(3)))
    assert told == [pinned]


def test_the_decoder_is_chosen_before_workers_are_forked(tree: Path, tmp_path: Path) -> None:
    decoding._same_as_pillow.cache_clear()  # or each worker would import torchvision anew
    samples = Samples(source_of(tree, tmp_path), torch.arange(3), torch.zeros(3, dtype=torch.int64))
    list(ahead(iter([Request(samples, torch.arange(3))]), [samples], count=3, workers=1))
    assert decoding._same_as_pillow.cache_info().currsize == 1


@pytest.mark.parametrize("library", [OSError, AttributeError, TypeError])
def test_free_memory_is_given_back_where_the_c_library_can(
    monkeypatch: pytest.MonkeyPatch, library: type[Exception]
) -> None:
    loader._give_back()

    def other(name: object) -> object:
        raise library

    monkeypatch.setattr(loader.ctypes, "CDLL", other)
    loader._give_back()


def test_images_are_copied_to_a_device_without_waiting_and_never_back_so() -> None:
    told: list[dict[str, Any]] = []

    class Told(torch.Tensor):
        def to(self, *args: Any, **options: Any) -> torch.Tensor:
            told.append(options)
            return torch.Tensor.to(self, *args, **options)

    meta = torch.device("meta")
    pipeline = pipeline_of("plain")
    pipeline.eval(torch.zeros(1, 3, 32, 32, dtype=torch.uint8).as_subclass(Told), meta)
    pipeline.train(torch.zeros(1, 3, 32, 32, dtype=torch.uint8).as_subclass(Told), torch.Generator(), meta)
    away = torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=meta).as_subclass(Told)
    pipeline.eval(away, meta)
    assert [options["non_blocking"] for options in told if "non_blocking" in options] == [True, True, False]


def test_a_file_that_vanishes_is_one_error_of_the_data(tree: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture(9, 9, number).save(tmp_path / f"{number}.png")
    source = source_of(tmp_path, tmp_path / "cache")
    (tmp_path / "1.png").unlink()
    samples = Samples(source, torch.arange(3), torch.zeros(3, dtype=torch.int64))
    for workers in (0, 1):
        with pytest.raises(DataMissing, match=r"1\.png cannot be read any more"):
            list(ahead([Request(samples, torch.arange(3))], [samples], count=3, workers=workers))


def test_torchvision_decodes_jpegs_as_pillow_does() -> None:
    assert decoding._same_as_pillow()
    for height, width in SIZES:
        for subsampling in (0, 1, 2):
            for options in ({}, {"progressive": True}, {"optimize": True}):
                buffer = io.BytesIO()
                picture(height, width, 0).save(buffer, "JPEG", quality=80, subsampling=subsampling, **options)
                pixels = decoding.decode_plain_jpeg(buffer.getvalue())
                assert pixels is not None
                assert np.array_equal(pixels, np.asarray(Image.open(buffer)))


def test_what_the_decoders_might_read_differently_is_left_to_pillow() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8), (10, 200, 30, 40)).save(buffer, "JPEG")
    assert decoding.decode_plain_jpeg(buffer.getvalue()) is None
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture(8, 12, 0).save(buffer, "JPEG", exif=exif)
    assert decoding.decode_plain_jpeg(buffer.getvalue()) is None
    assert decoding.decode_plain_jpeg(b"\xff\xd8\xff") is None
    assert decoding.decode_plain_jpeg(b"no image") is None


def test_larger_images_are_reduced_and_smaller_ones_left(tree: Path, tmp_path: Path) -> None:
    source, small = source_of(tree, tmp_path), source_of(tree, tmp_path, short=37)
    for row in range(len(source)):
        before, after = source.image(row), small.image(row)
        if min(before.size) <= 37:
            assert after.size == before.size
        else:
            assert after.size == TF.resize(before, 37).size
    assert source.digest != small.digest


def test_an_unchanged_tree_is_not_read_again_and_a_changed_one_in_part(tmp_path: Path) -> None:
    root, cache = tmp_path / "tree", tmp_path / "cache"
    root.mkdir()
    for number in range(5):
        picture(9, 9, number).save(root / f"{number}.png")
    first = readers.index_files(readers.find_images(root), cache, quiet=True)
    assert first.read == 5
    again = readers.index_files(readers.find_images(root), cache, quiet=True)
    assert again.read == 0
    assert np.array_equal(first.digests, again.digests)
    before = os.stat(root / "3.png")
    content = (root / "3.png").read_bytes()
    (root / "3.png").write_bytes(content[:-30] + b"x" + content[-29:])  # of the same size,
    os.utime(root / "3.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # and as old
    (root / "0.png").unlink()
    picture(9, 9, 9).save(root / "11.png")
    last = readers.index_files(readers.find_images(root), cache, quiet=True)
    assert last.read == 2
    # Now 1, 11, 2, 3, 4.
    assert np.array_equal(last.digests[[0, 2, 4]], first.digests[[1, 2, 4]])
    assert not np.array_equal(last.digests[3], first.digests[3])
    (next((cache / "files").iterdir())).write_bytes(b"damaged")
    assert readers.index_files(readers.find_images(root), cache, quiet=True).read == 5


def test_the_digest_does_not_depend_on_place_or_order_of_the_file_system(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "else where"
    found = readers.find_images(tree)
    for row in reversed(range(len(found))):
        target = copy / found.names[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(found.path(row).read_bytes())
    assert source_of(tree, tmp_path / "a").digest == source_of(copy, tmp_path / "b").digest
    again = next(path for path in sorted(copy.rglob("*")) if path.suffix == ".jpg")
    Image.open(again).convert("RGB").save(again, "JPEG", quality=70)  # the same names, another quality
    assert source_of(tree, tmp_path / "a").digest != source_of(copy, tmp_path / "b").digest
