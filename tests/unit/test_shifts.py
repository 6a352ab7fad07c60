"""Adaptation and generalisation between domains on small copies of the published layouts, whole and damaged."""

from __future__ import annotations

import bz2
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench_scenarios import (
    _usps,
    digits,
    domainnet_shifts,
    office_31,
    office_home_shifts,
    rotated_mnist_dg,
    visda_2017,
    vlcs,
)
from benchmark import leaderboard, records
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing

SPECS = {
    **office_home_shifts.SPECS,
    **domainnet_shifts.SPECS,
    **{one.SPEC.name: one.SPEC for one in (office_31, visda_2017, vlcs, rotated_mnist_dg, digits)},
}
VARIANTS = {
    "office-31": (6, 31),
    "office-home-uda": (12, 65),
    "office-home-dg": (4, 65),
    "visda-2017": (1, 12),
    "domainnet-uda": (12, 345),
    "domainnet-dg": (6, 345),
    "mini-domainnet": (12, 126),
    "digits": (3, 10),
    "vlcs": (4, 5),
    "rotated-mnist-dg": (6, 10),
}
TRANSDUCTIVE = {"office-31", "office-home-uda", "visda-2017"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shifts")


def written(roots: Path, name: str) -> Path:
    """The data root of a scenario, made once."""
    if not (roots / name).exists():
        miniature: Any = SPECS[name].miniature
        miniature(roots / name / "data")
    return roots / name / "data"


def build(root: Path, name: str, *, miniature: bool = True, **options: Any) -> Scenario:
    spec = SPECS[name]
    request = ScenarioRequest(data_root=root, cache=root.parent / "cache", download="never", miniature=miniature)
    return spec.build(spec.config(**options), request)


@pytest.fixture
def copy(roots: Path, tmp_path: Path) -> Any:
    """A data root to damage."""

    def make(name: str) -> Path:
        shutil.copytree(written(roots, name), tmp_path / "data")
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("name", VARIANTS)
def test_targets_are_never_labelled_and_sources_are_told(roots: Path, name: str) -> None:
    scenario = build(written(roots, name), name)
    (part,) = scenario.experiences
    assert (len(SPECS[name].variants), scenario.num_classes) == VARIANTS[name]
    assert part.domain not in part.sources
    assert set(part.train.labels.tolist()) == set(range(scenario.num_classes))
    assert scenario.transductive == (name in TRANSDUCTIVE)
    if part.target is not None:
        assert set(part.target.labels.tolist()) == {-1}
        assert (part.target.ids.tolist() == part.test.ids.tolist()) == scenario.transductive
    else:
        assert part.train.domains is not None
        assert set(part.train.domains.tolist()) == set(range(len(part.sources)))
        assert not set(part.train.ids.tolist()) & set(part.test.ids.tolist())
    assert len(scenario.tests) == (name not in TRANSDUCTIVE)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"rotated-mnist-dg"}))  # subsets of MNIST are accepted
def test_numbers_of_images_are_compared_and_both_are_told(roots: Path, name: str) -> None:
    option = {"pair": "usps-svhn"} if name == "digits" else {}
    with pytest.raises(DataMissing, match=r"images, published are|instead of") as caught:
        build(written(roots, name), name, miniature=False, **option)
    assert "accepted in" in str(caught.value.hint)


@pytest.mark.parametrize("name", VARIANTS)
def test_missing_data_say_where_they_are_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataMissing) as caught:
        build(tmp_path, name)
    assert str(tmp_path) in str(caught.value.hint)


def test_several_sources_are_told_apart(roots: Path) -> None:
    root = written(roots, "office-31")
    scenario = build(root, "office-31", pair="rest-dslr")
    (part,) = scenario.experiences
    assert scenario.partition == "several sources"
    assert part.sources == ("amazon", "webcam")
    assert part.train.domains.tolist() == [0] * 31 + [1] * 31  # type: ignore[union-attr]
    (same,) = build(root, "office-31", pair="amazon+webcam-dslr").experiences
    assert same.train.ids.tolist() == part.train.ids.tolist()
    for wrong in ("amazon-amazon", "amazon", "amazon+amazon-dslr", "rest-caltech", "art-dslr"):
        with pytest.raises(ValueError, match="is not possible; use SOURCE-TARGET"):
            office_31.Office31Config(pair=wrong)
    with pytest.raises(ValueError, match="is not a domain; use one of Caltech101"):
        vlcs.VlcsConfig(held_out="pascal")


def test_partial_adaptation_keeps_the_published_classes_of_the_target(roots: Path) -> None:
    whole = build(written(roots, "office-31"), "office-31")
    partial = build(written(roots, "office-31"), "office-31", label_set="partial")
    (part,) = partial.experiences
    assert [partial.class_names[label] for label in part.test.labels.tolist()] == [
        name.replace("_", " ") for name in office_31.SHARED
    ]
    assert len(part.target) == 10  # type: ignore[arg-type]
    assert len(part.train) == 31
    assert partial.partition != whole.partition
    assert len(office_home_shifts.OfficeHomeUdaConfig.SHARED) == 25


def test_all_of_the_held_out_domain_is_tested_or_its_larger_part(roots: Path) -> None:
    root = written(roots, "vlcs")
    (part,) = build(root, "vlcs").experiences
    assert (len(part.train), len(part.test)) == (3 * 5 * 4, 5 * 5)
    (part,) = build(root, "vlcs", target_part="in80").experiences
    assert len(part.test) == 5 * 4


def test_the_layout_of_dassl_gives_the_same_images(copy: Any) -> None:
    root = copy("vlcs")
    before = build(root, "vlcs")
    folder = root / "VLCS"
    for domain, name in vlcs.DASSL.items():
        for label, one in enumerate(vlcs.CLASSES):
            (folder / name / "full").mkdir(parents=True, exist_ok=True)
            (folder / domain / one).rename(folder / name / "full" / str(label))
        (folder / domain).rmdir()
    after = build(root, "vlcs")
    assert after.notes["layout"] == "as Dassl's"
    assert len(after.experiences[0].train) == len(before.experiences[0].train)
    shutil.rmtree(folder / "PASCAL" / "full" / "3")
    with pytest.raises(DataMissing, match="full has no folder 3"):
        build(root, "vlcs")


def test_lists_of_visda_agree_with_its_folders(copy: Any) -> None:
    root = copy("visda-2017")
    path = root / "visda2017" / "validation" / "image_list.txt"
    text = path.read_text()
    path.write_text(text.replace("car_validation.jpg 3", "car_validation.jpg 4"))
    with pytest.raises(DataMissing, match=r"line 4: car/car_validation\.jpg has label 4"):
        build(root, "visda-2017")
    path.unlink()
    assert len(build(root, "visda-2017").experiences[0].test) == 12
    (root / "visda2017" / "validation" / "bus").rename(path.parent / "coach")
    with pytest.raises(DataMissing, match="validation has no folder bus"):
        build(root, "visda-2017")


def test_a_broken_image_and_a_strange_class_are_named(copy: Any) -> None:
    root = copy("office-31")
    image = root / "office31" / "dslr" / "images" / "mug" / "frame_0001.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(DataMissing, match=r"mug.frame_0001\.jpg"):
        build(root, "office-31")
    image.parent.rename(image.parent.with_name("cup"))
    with pytest.raises(DataMissing, match="has the folder cup"):
        build(root, "office-31")


def test_lists_of_mini_domainnet_are_needed_and_have_126_classes(copy: Any) -> None:
    root = copy("mini-domainnet")
    path = root / "domainnet" / "splits_mini" / "clipart_train.txt"
    path.write_text(path.read_text().replace("clipart/class_125/clipart_train_000125.jpg 125\n", ""))
    with pytest.raises(DataMissing, match="lists below splits_mini have 125 classes instead of 126"):
        build(root, "mini-domainnet")
    path.unlink()
    with pytest.raises(DataMissing, match=r"splits_mini.clipart_train\.txt is missing"):
        build(root, "mini-domainnet")


def test_pairs_that_read_different_data_stand_in_one_table() -> None:
    template = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / f"v{records.SCHEMA}.json"))

    def made(place: int, pair: str, **changes: Any) -> records.Record:
        scenario = {"name": f"digits/{pair}", "family": "uda", "variant_option": "pair", "options": {"pair": pair}}
        scenario |= {"content": f"{place:064x}", "fingerprint": f"{place:064x}"}
        record = {**template, "run_id": f"{place:016x}", "scenario": template["scenario"] | scenario | changes}
        return records.parse(record)

    apart = [made(place, pair) for place, pair in enumerate(("mnist-usps", "svhn-mnist"))]
    assert len(leaderboard.leaderboard(apart)) == 2
    known = [made(place, pair, data_by_variant=True) for place, pair in enumerate(("mnist-usps", "svhn-mnist"))]
    (table,) = leaderboard.leaderboard(known)
    assert [column.title for column in table.columns[1:4]] == ["mnist-usps", "svhn-mnist", "Mean"]
    # Two copies of one pair's data are never one row.
    assert len(leaderboard.leaderboard([*known, made(7, "mnist-usps", data_by_variant=True)])) == 3
    assert digits.SPEC.data_by_variant
    assert domainnet_shifts.SPECS["domainnet-uda"].data_by_variant


def test_digits_have_one_size(roots: Path) -> None:
    root = written(roots, "digits")
    assert build(root, "digits").image_size == 28
    assert build(root, "digits", pair="svhn-mnist").image_size == 32


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("11 " + " ".join(f"{place}:0" for place in range(1, 257)), "line 1: not a label 1..10"),
        ("1 " + " ".join(f"{place}:0" for place in range(1, 256)), "line 1: not a label 1..10"),
        ("1 " + " ".join(f"{place}:2" for place in range(1, 257)), "line 1: not a label 1..10"),
        ("", "holds no image"),
    ],
)
def test_wrong_lines_of_usps_are_named(copy: Any, line: str, message: str) -> None:
    root = copy("digits")
    path = root / "usps" / _usps.FILES["test"]
    path.write_bytes(bz2.compress(line.encode()))
    with pytest.raises(DataMissing, match=message):
        build(root, "digits")


def test_a_file_of_usps_that_is_cut_off_is_named(copy: Any) -> None:
    root = copy("digits")
    path = root / "usps" / _usps.FILES["train"]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataMissing, match=r"usps\.bz2 is cut off"):
        build(root, "digits")
    path.write_bytes(b"nothing")
    with pytest.raises(DataMissing, match="cannot be unpacked"):
        build(root, "digits")
