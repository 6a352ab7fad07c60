"""PACS on small trees made here, and on the real one where BENCH_DATA has it."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench_scenarios import _pacs, pacs, pacs_dg, pacs_uda
from bench_scenarios.pacs import PacsDilConfig
from bench_scenarios.pacs_dg import PacsDgConfig
from bench_scenarios.pacs_uda import PacsUdaConfig
from benchmark import splits
from benchmark.api import Scenario, ScenarioRequest
from benchmark.cli import main
from benchmark.errors import EXIT_DATA, DataMissing
from benchmark.jobs import Job
from benchmark.run.plan import resolve

PER_CLASS = {"art_painting": 5, "cartoon": 6, "photo": 7, "sketch": 8}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with 8x8 images: JPEG, and PNG sketches as in the original."""
    monkeypatch.setattr(_pacs, "COUNTS", {domain: 7 * count for domain, count in PER_CLASS.items()})
    make(tmp_path / "data" / "PACS")
    return tmp_path / "data"


def make(folder: Path, sketch: str = ".png") -> None:
    shade = 0
    for domain, count in PER_CLASS.items():
        for name in _pacs.CLASSES:
            (folder / domain / name).mkdir(parents=True)
            for number in range(count):
                shade += 1
                pixels = np.full((8, 8, 3), shade, np.uint8)
                suffix = sketch if domain == "sketch" else ".jpg"
                Image.fromarray(pixels).save(folder / domain / name / f"pic_{number:03d}{suffix}", quality=100)


def request_in(root: Path, seed: int = 0) -> ScenarioRequest:
    return ScenarioRequest(data_root=root, cache=root.parent / "cache", seed=seed, download="never")


def test_rows_are_sorted_by_domain_class_and_name(root: Path) -> None:
    found = _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert found.images.shape == (7 * 26, 3, 8, 8)
    assert {domain: len(rows) for domain, rows in found.rows.items()} == _pacs.COUNTS
    assert found.rows["art_painting"].tolist() == list(range(35))  # alphabetical, whatever order is trained
    assert found.labels[:10].tolist() == [0] * 5 + [1] * 5
    assert found.images[0, 0, 0, 0] == 1
    assert found.images[-1, 0, 0, 0] == 7 * 26
    assert found.notes["pixels"] == "8x8"
    assert "227x227" in found.notes["resized"]
    assert "lossy" not in found.notes


def test_folders_may_be_written_otherwise(root: Path) -> None:
    first = _pacs.load(_pacs.PacsConfig(), request_in(root))
    for label, name in enumerate(_pacs.CLASSES):  # their order by code point turns round
        (root / "PACS" / "photo" / name).rename(root / "PACS" / "photo" / f"{9 - label}_{name.title()}")
    again = _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)


def test_the_split_is_80_20_per_class_and_domain(root: Path) -> None:
    found = _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert found.notes["split"] == "80/20 per class and domain, seed 0"
    for domain, count in PER_CLASS.items():
        train, test = found.train[domain], found.test[domain]
        assert sorted([*train, *test]) == found.rows[domain].tolist()
        kept = -(-8 * count // 10)
        assert np.bincount(found.labels[train]).tolist() == [kept] * 7
        again = found.rows[domain][splits.train_test(found.labels[found.rows[domain]])[0]]
        assert train.tolist() == again.tolist()


def test_the_second_reading_is_from_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _pacs.load(_pacs.PacsConfig(), request_in(root))

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Image, "open", refuse)
    second = _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert np.array_equal(first.images, second.images)
    assert first.notes == second.notes


def test_images_can_be_resized(root: Path) -> None:
    found = _pacs.load(_pacs.PacsConfig(size=4), request_in(root))
    assert found.images.shape[1:] == (3, 4, 4)
    assert found.notes["pixels"] == "8x8, resized to 4x4"
    with pytest.raises(ValueError, match="size: -1 is negative"):
        _pacs.PacsConfig(size=-1)


def test_sizes_that_differ_are_an_error_that_says_what_to_do(root: Path) -> None:
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(root / "PACS" / "photo" / "dog" / "pic_001.jpg")
    with pytest.raises(DataMissing, match=r"pic_001\.jpg has 9x5 pixels, others 8x8; --set scenario\.size=N"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert _pacs.load(_pacs.PacsConfig(size=8), request_in(root)).images.shape[2:] == (8, 8)


def test_jpeg_sketches_are_marked_as_lossy(root: Path) -> None:
    for path in sorted((root / "PACS" / "sketch").glob("*/*.png")):
        path.unlink()
    shade = np.zeros((8, 8, 3), np.uint8)
    for name in _pacs.CLASSES:
        for number in range(8):
            Image.fromarray(shade).save(root / "PACS" / "sketch" / name / f"{number}.jpg")
    scenario = pacs.build(PacsDilConfig(), request_in(root))
    assert scenario.fingerprint.endswith("-lossy")
    assert scenario.notes["lossy"] == "JPEG sketches, the original ones are PNG"


@pytest.mark.parametrize("inner", ["images", "kfold"])
def test_other_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    monkeypatch.setattr(_pacs, "COUNTS", {domain: 7 * count for domain, count in PER_CLASS.items()})
    make(tmp_path / "pacs" / inner)
    assert len(_pacs.load(_pacs.PacsConfig(), request_in(tmp_path)).labels) == 7 * 26


def write_lists(root: Path) -> None:
    for domain in _pacs.DOMAINS:
        for split, chosen in (("train", range(4)), ("crossval", range(4, PER_CLASS[domain]))):
            suffix = ".png" if domain == "sketch" else ".jpg"
            lines = [
                f"{domain}/{name}/pic_{number:03d}{suffix} {label}"
                for label, name in enumerate(_pacs.CLASSES, 1)
                for number in chosen
            ]
            (root / "PACS" / f"{domain}_{split}_kfold.txt").write_text("\n".join(lines) + "\n")


def test_official_lists_are_used_where_they_are(root: Path) -> None:
    write_lists(root)
    found = _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert found.notes["split"] == "official lists (90/10)"
    assert np.bincount(found.labels[found.train["photo"]]).tolist() == [4] * 7
    assert np.bincount(found.labels[found.test["photo"]]).tolist() == [3] * 7
    lists = root / "PACS" / "photo_train_kfold.txt"
    text = lists.read_text()
    lists.write_text(text.replace("photo/dog/pic_000.jpg 1", "photo/dog/pic_000.jpg 2"))
    with pytest.raises(DataMissing, match=r"line 1: photo/dog/pic_000\.jpg has label 2"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))
    lists.write_text("photo/dog/none.jpg 1\n")
    with pytest.raises(DataMissing, match=r"line 1: there is no image photo/dog/none\.jpg"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))
    lists.unlink()
    with pytest.raises(DataMissing, match=r"photo_train_kfold\.txt is missing"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("train", lambda lines: [*lines, lines[0]], r"line 29: photo/dog/pic_000\.jpg is in line 1 already"),
        ("crossval", lambda lines: [*lines, "photo/dog/pic_000.jpg 1"], "is a training and a test image"),
        ("train", lambda lines: [*lines[:-1], lines[-1].split()[0]], r"line 28: .* is not `path label`"),
        ("train", lambda lines: [], "photo_train_kfold.txt names no image"),
        ("crossval", lambda lines: lines[1:], r"name 48 of 49 images; photo/dog/pic_004\.jpg is in neither"),
        ("train", lambda lines: ["cartoon/dog/pic_000.jpg 1", *lines], "line 1: cartoon/dog/.* is no image of photo"),
    ],
)
def test_official_lists_name_every_image_once(root: Path, part: str, change: Any, said: str) -> None:
    write_lists(root)
    path = root / "PACS" / f"photo_{part}_kfold.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(DataMissing, match=said):
        _pacs.load(_pacs.PacsConfig(), request_in(root))


def content(folder: Path) -> Scenario:
    request = ScenarioRequest(data_root=folder, cache=folder.parent / "cache", download="never")
    return pacs.build(PacsDilConfig(), request)


def run_id(scenario: Scenario) -> str:
    plan = resolve(Job(scenario="pacs", method="nearest-mean"))
    return plan.run_id(
        fingerprint=scenario.fingerprint, partition=scenario.partition, weights_sha256="0" * 64, inputs={}, device="cpu"
    )


def test_another_copy_of_the_images_is_another_scenario(root: Path, tmp_path: Path) -> None:
    """Same names and counts, other pixels: another content, another fingerprint, and so another run and row."""
    plain = content(root)
    assert (plain.partition, len(plain.content)) == ("80/20 cut", 64)
    for number, (size, quality) in enumerate([(8, 5), (4, 100)]):
        copy = tmp_path / str(number) / "data"
        for path in (root / "PACS").rglob("*.*"):
            target = copy / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.RandomState(7).randint(0, 256, (size, size, 3)).astype(np.uint8)
            Image.fromarray(noise).save(target, quality=quality)
        other = content(copy)
        assert other.name == plain.name
        assert other.content != plain.content
        assert other.fingerprint != plain.fingerprint
        assert run_id(other) != run_id(plain)
    dg = pacs_dg.build(PacsDgConfig(), request_in(root))
    assert dg.content == plain.content  # the whole data set, whatever is chosen of it
    write_lists(root)
    listed = content(root)
    assert listed.content == plain.content
    assert re.fullmatch("official lists [0-9a-f]{8}", listed.partition)
    trained, tested = (root / "PACS" / f"photo_{split}_kfold.txt" for split in ("train", "crossval"))
    first, last = trained.read_text().splitlines()[0], tested.read_text().splitlines()[0]
    trained.write_text(trained.read_text().replace(first, last))
    tested.write_text(tested.read_text().replace(last, first))
    edited = content(root)
    assert edited.partition not in (plain.partition, listed.partition), "other lists are another table"
    assert pacs_uda.build(PacsUdaConfig(), request_in(root)).partition == ""


# --- what is missing ----------------------------------------------------------------------------


def test_missing_data_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="PACS: not found below") as caught:
        _pacs.load(_pacs.PacsConfig(), request_in(tmp_path))
    assert "DomainBed" in caught.value.message
    assert "{photo,art_painting,cartoon,sketch}/<class>/*.jpg" in str(caught.value.hint)


def test_that_data_are_missing_is_said_once_for_all_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--scenario", "pacs-uda", "--method", "nearest-mean", "--out", str(tmp_path / "runs")]
    assert main([*words, "--data-root", str(tmp_path)]) == EXIT_DATA
    said = capsys.readouterr().err
    assert said.count("error: PACS: not found") == 1
    assert said.rstrip().endswith("12 of 12 runs failed")


def test_incomplete_data_say_what_is_missing(root: Path) -> None:
    (root / "PACS" / "photo" / "dog" / "pic_000.jpg").unlink()
    with pytest.raises(DataMissing, match="photo holds 48 images instead of 49"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))
    (root / "PACS" / "photo" / "dog").rename(root / "PACS" / "photo" / "wolf")
    with pytest.raises(DataMissing, match=r"wolf is none of the classes \(should it be dog\?\); .*has no folder dog"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))
    (root / "PACS" / "photo").rename(root / "PACS" / "photos")
    with pytest.raises(DataMissing, match=r"photo is missing"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))


def test_a_damaged_image_is_named(root: Path) -> None:
    (root / "PACS" / "cartoon" / "house" / "pic_002.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(DataMissing, match=r"pic_002\.jpg is not a readable image"):
        _pacs.load(_pacs.PacsConfig(), request_in(root))


# --- scenarios ----------------------------------------------------------------------------------


def test_domain_incremental(root: Path) -> None:
    scenario = pacs.build(PacsDilConfig(), request_in(root))
    assert scenario.domains == ("photo", "art_painting", "cartoon", "sketch")
    assert [len(part.train) for part in scenario.experiences] == [42, 28, 35, 49]
    assert scenario.class_names == _pacs.CLASSES
    assert not scenario.fingerprint.endswith("-lossy")
    other = pacs.build(PacsDilConfig(order=("sketch", "photo")), request_in(root))
    assert other.domains == ("sketch", "photo")
    seeded = pacs.build(PacsDilConfig(order=("numpy:1",)), request_in(root))
    assert seeded.domains == tuple(_pacs.DOMAINS[place] for place in np.random.RandomState(1).permutation(4))
    follows = PacsDilConfig(order=("seed",))
    assert follows.domains(1) == seeded.domains
    for bad in (("photo", "photo"), ("oil",), (), ("photo", "oil")):
        with pytest.raises(ValueError, match="order: "):
            PacsDilConfig(order=bad)


def test_transductive_pairs(root: Path) -> None:
    scenario = pacs_uda.build(PacsUdaConfig(pair="photo-cartoon"), request_in(root))
    (part,) = scenario.experiences
    assert scenario.transductive
    assert (len(part.train), len(part.test)) == (49, 42)
    assert part.target is not None
    assert part.target.ids.tolist() == part.test.ids.tolist()
    assert part.target_labels is None
    assert scenario.tests == ()
    assert "split" not in scenario.notes
    assert len(part.train.source) == 49  # nothing but the source domain can be reached
    assert len(part.target.source) == 42


def test_inductive_pairs(root: Path) -> None:
    config = PacsUdaConfig(pair="art_painting-sketch", protocol="inductive")
    scenario = pacs_uda.build(config, request_in(root))
    (part,) = scenario.experiences
    assert not scenario.transductive
    assert part.target is not None
    assert part.target_labels is not None
    assert (len(part.train), len(part.target), len(part.test), len(scenario.tests[0].images)) == (28, 49, 7, 7)
    assert not set(part.target.ids.tolist()) & set(part.test.ids.tolist())
    assert part.target_labels.bincount().tolist() == [7] * 7
    assert len(_pacs.PAIRS) == len(set(_pacs.PAIRS)) == 12
    with pytest.raises(ValueError, match="pair: 'photo-photo' is not possible; use SOURCE-TARGET"):
        PacsUdaConfig(pair="photo-photo")


def test_several_sources(root: Path) -> None:
    (part,) = pacs_uda.build(PacsUdaConfig(pair="rest-cartoon"), request_in(root)).experiences
    assert part.source_domains == ("photo", "art_painting", "sketch")
    assert part.train.domains is not None
    assert part.train.domains.bincount().tolist() == [49, 35, 56]
    config = PacsUdaConfig(pair="photo+sketch-cartoon", protocol="inductive")
    scenario = pacs_uda.build(config, request_in(root))
    assert scenario.experiences[0].source_domains == ("photo", "sketch")
    assert scenario.tests[0].images.domains is None
    assert scenario.partition == "80/20 cut; several sources"


def test_leave_one_domain_out(root: Path) -> None:
    scenario = pacs_dg.build(PacsDgConfig(held_out="cartoon"), request_in(root))
    (part,) = scenario.experiences
    assert part.source_domains == ("photo", "art_painting", "sketch")
    assert (len(part.train), len(part.test)) == (42 + 28 + 49, 42)
    assert part.train.domains is not None
    assert part.train.domains.bincount().tolist() == [42, 28, 49]
    whole = _pacs.load(_pacs.PacsConfig(), request_in(root))
    assert not set(part.train.ids.tolist()) & set(whole.rows["cartoon"].tolist())
    assert torch.equal(part.train.images(torch.tensor([0])), torch.from_numpy(whole.images[part.train.ids[:1].numpy()]))
    assert len(part.train.source) == len(part.train)
    smaller = pacs_dg.build(PacsDgConfig(held_out="cartoon", target_part="in80"), request_in(root))
    assert len(smaller.experiences[0].test) == 35
    with pytest.raises(ValueError, match="held_out: 'oil' is not a domain"):
        PacsDgConfig(held_out="oil")


def test_real_counts_and_splits(data_root: Path, tmp_path: Path) -> None:
    if not (data_root / "PACS").is_dir():
        pytest.skip("BENCH_DATA has no PACS")
    cache = Path(os.environ["BENCH_CACHE"])
    found = _pacs.load(_pacs.PacsConfig(), ScenarioRequest(data_root=data_root, cache=cache))
    assert len(found.labels) == 9_991
    assert {domain: len(rows) for domain, rows in found.rows.items()} == _pacs.COUNTS
    if "split" in found.notes and found.notes["split"].startswith("80/20"):
        assert {domain: len(rows) for domain, rows in found.train.items()} == {
            "photo": 1_339,
            "art_painting": 1_641,
            "cartoon": 1_878,
            "sketch": 3_145,
        }
    first = sorted((data_root / "PACS" / "art_painting" / "dog").iterdir())[0]
    with Image.open(io.BytesIO(first.read_bytes())) as image:
        assert np.array_equal(found.images[0], np.asarray(image.convert("RGB")).transpose(2, 0, 1))
