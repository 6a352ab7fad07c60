"""Data sets of image files on small copies of their published layouts, whole and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_scenarios import (
    _domain_trees,
    _trees,
    cddb,
    core50,
    domainnet,
    five_datasets,
    office_home,
    split_cars196,
    split_cub200,
    split_imagenet_r,
    split_tiny_imagenet,
    split_trees,
)
from benchmark import splits
from benchmark.api import Scenario, ScenarioRequest
from benchmark.cli import main
from benchmark.errors import EXIT_DATA, DataMissing

SPECS = {
    **split_trees.SPECS,
    **domainnet.SPECS,
    **{
        one.SPEC.name: one.SPEC
        for one in (
            cddb,
            core50,
            five_datasets,
            office_home,
            split_cars196,
            split_cub200,
            split_imagenet_r,
            split_tiny_imagenet,
        )
    },
}
SIZES = {
    "split-imagenet-a": (10, 20),
    "split-imagenet-r-tree": (10, 20),
    "split-imagenet-r": (10, 20),
    "split-cub200-pilot": (20, 10),
    "split-cub200": (10, 20),
    "split-omnibenchmark": (10, 30),
    "split-objectnet": (20, 10),
    "split-vtab": (5, 10),
    "split-tiny-imagenet": (10, 20),
    "split-cars196": (10, 20),
    "split-domainnet-cil": (5, 69),
    "five-datasets": (5, 10),
    "domainnet": (6, 345),
    "core50": (8, 50),
    "office-home": (4, 65),
    "cddb": (5, 2),
}

_roots: dict[str, Path] = {}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees")


def written(roots: Path, name: str) -> Path:
    """The data root of a scenario, made once."""
    if not (roots / name).exists():
        miniature: Any = SPECS[name].miniature
        miniature(roots / name / "data")
    return roots / name / "data"


def request_in(root: Path, *, miniature: bool = True, seed: int = 0) -> ScenarioRequest:
    return ScenarioRequest(
        data_root=root, cache=root.parent / "cache", seed=seed, download="never", miniature=miniature
    )


def build(root: Path, name: str, *, miniature: bool = True, seed: int = 0, **options: Any) -> Scenario:
    spec = SPECS[name]
    return spec.build(spec.config(**options), request_in(root, miniature=miniature, seed=seed))


@pytest.fixture
def copy(roots: Path, tmp_path: Path) -> Any:
    """A data root to damage."""

    def make(name: str) -> Path:
        shutil.copytree(written(roots, name), tmp_path / "data", symlinks=True)
        return tmp_path / "data"

    return make


def test_every_scenario_of_files_is_tested_here() -> None:
    assert set(SIZES) == set(SPECS)


@pytest.mark.parametrize("name", SIZES)
def test_streams_have_the_published_shape(roots: Path, name: str) -> None:
    scenario = build(written(roots, name), name)
    count, classes = SIZES[name]
    assert len(scenario.experiences) == count
    assert len(scenario.experiences[0].classes) == classes
    assert len(set(scenario.class_names)) == scenario.num_classes
    for part in scenario.experiences:
        assert set(part.train.labels.tolist()) <= set(part.classes)
        assert not set(part.train.ids.tolist()) & set(part.test.ids.tolist())
    images = scenario.experiences[-1].train.images(torch.tensor([0]))
    assert images.shape[1] == 3


@pytest.mark.parametrize("name", sorted(set(SIZES) - {"cddb"}))  # its sizes are published in thousands only
def test_numbers_of_images_are_compared_and_both_are_told(roots: Path, name: str) -> None:
    with pytest.raises(DataMissing, match=r"images, published are|instead of") as caught:
        build(written(roots, name), name, miniature=False)
    assert "accepted in" in str(caught.value.hint)


@pytest.mark.parametrize("name", SIZES)
def test_missing_data_say_where_they_are_looked_for_and_what_is_accepted(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataMissing, match="not found below") as caught:
        build(tmp_path, name)
    assert str(tmp_path) in str(caught.value.hint)


# --- Trees {train,test}/<class> ----------------------------------------------------------------


def test_orders_of_classes_are_the_published_ones(roots: Path) -> None:
    pilot = build(written(roots, "split-cub200-pilot"), "split-cub200-pilot")
    assert pilot.class_order[:4] == (168, 136, 51, 9)
    assert pilot.class_names[0] == "Class 168"
    assert build(written(roots, "split-omnibenchmark"), "split-omnibenchmark").class_order[:3] == (169, 221, 146)
    assert build(written(roots, "split-vtab"), "split-vtab").class_order == tuple(range(50))
    with pytest.raises(ValueError, match="mixes the five data sets"):
        split_trees.VtabConfig(class_order="numpy:1993")


def test_labels_are_ranks_of_folders_and_ids_ranks_of_files(roots: Path) -> None:
    root = written(roots, "split-objectnet")
    scenario = build(root, "split-objectnet", class_order="natural")
    files = sorted(path.relative_to(root / "objectnet").as_posix() for path in root.glob("objectnet/*/*/*.jpg"))
    for part in (scenario.experiences[0], scenario.experiences[19]):
        for samples, split in ((part.train, "train"), (part.test, "test")):
            for sample, label in zip(samples.ids.tolist(), samples.labels.tolist(), strict=True):
                assert files[sample].startswith(f"{split}/{label:03d}.Class_{label}/")


def test_names_of_wordnet_ids_come_from_the_files_beside_them(copy: Any) -> None:
    root = copy("split-imagenet-a")
    told = build(root, "split-imagenet-a", class_order="natural")
    assert told.class_names[5] == "n00000005"
    assert "200 are names of folders" in told.notes["class names"]
    lines = ["ImageNet-A", *(f"n{label:08d} thing_{label}" for label in range(200))]
    lines[8] = "n00000007 thing_6"  # two classes of one name
    (root / "imagenet-a" / "README.txt").write_text("\n".join(lines))
    named = build(root, "split-imagenet-a", class_order="natural")
    assert named.class_names[5] == "thing 5"
    assert named.class_names[6:8] == ("thing 6 (n00000006)", "thing 6 (n00000007)")
    assert named.fingerprint == told.fingerprint


def damage(root: Path, what: str) -> None:
    base = root / "imagenet-a"
    first = base / "train" / "n00000003" / "0.jpg"
    if what == "truncated":
        first.write_bytes(first.read_bytes()[:-200])
    elif what == "no image":
        first.write_text("hello")
    elif what == "empty class":
        for path in first.parent.iterdir():
            path.unlink()
    elif what == "missing class":
        shutil.rmtree(base / "test" / "n00000003")
    elif what == "other class":
        (base / "test" / "n00000003").rename(base / "test" / "n99999999")
    elif what == "loose image":
        shutil.copy(first, base / "train" / "loose.jpg")
    elif what == "loop":
        (first.parent / "again").symlink_to(base, target_is_directory=True)
    elif what == "no train":
        (base / "train").rename(base / "training")


DAMAGES = {
    "truncated": r"n00000003.0\.jpg",
    "no image": r"n00000003.0\.jpg",
    "empty class": r"n00000003 holds no image",
    "missing class": r"test has 199 class folders instead of 200",
    "other class": r"train and test have different classes, e\.g\. n00000003",
    "loose image": r"loose\.jpg is in no class folder",
    "loop": r"leads back to a folder above it",
    "no train": r"has no folder train",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_trees_are_one_error(copy: Any, what: str) -> None:
    root = copy("split-imagenet-a")
    damage(root, what)
    with pytest.raises(DataMissing, match=DAMAGES[what]) as caught:
        build(root, "split-imagenet-a")
    assert "accepted in" in str(caught.value.hint)


def test_on_the_command_line_it_is_exit_code_4_and_nothing_is_written(
    copy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy("split-imagenet-a")
    words = ["run", "--scenario", "split-imagenet-a", "--method", "nearest-mean", "--track", "mini"]
    assert main([*words, "--data-root", str(root), "--out", str(tmp_path / "runs")]) == EXIT_DATA
    said = capsys.readouterr().err
    assert "train: 400 images, published are 5,981" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_another_copy_of_the_same_names_is_another_fingerprint(copy: Any) -> None:
    root = copy("split-cub200-pilot")
    before = build(root, "split-cub200-pilot")
    path = root / "cub" / "train" / "000.Class_0" / "0.jpg"
    path.write_bytes(_trees.tiny(".jpg", 201))
    after = build(root, "split-cub200-pilot")
    assert before.content != after.content
    assert before.fingerprint != after.fingerprint
    assert build(root, "split-cub200-pilot").fingerprint == after.fingerprint


# --- Lists --------------------------------------------------------------------------------------


def test_lists_of_imagenet_r_in_both_forms_are_one_partition(copy: Any) -> None:
    root = copy("split-imagenet-r")
    text = build(root, "split-imagenet-r")
    folder = root / "imagenet-r" / "lists"
    for part in ("train", "test"):
        path = folder / f"imagenet-r_{part}.txt"
        rows = [line.rsplit(" ", 1) for line in path.read_text().splitlines()]
        path.unlink()
        files = "".join(f"- data/imagenet-r/{name}\n" for name, _ in rows)
        targets = "".join(f"- {label}\n" for _, label in rows)
        (folder / f"imagenet-r_{part}.yaml").write_text(f"data:\n{files}targets:\n{targets}")
    found = build(root, "split-imagenet-r")
    assert found.fingerprint == text.fingerprint
    assert found.partition == text.partition
    assert found.partition.startswith("lists ")
    changed = folder / "imagenet-r_test.yaml"
    changed.write_text(changed.read_text().replace("n00000004/art_2.jpg", "n00000004/art_9.jpg"))
    with pytest.raises(DataMissing, match=r"art_9\.jpg"):
        build(root, "split-imagenet-r")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n00000004/art_2.jpg 4", "n00000004/art_1.jpg 4", r"art_1\.jpg is in train and in test"),
        ("n00000004/art_2.jpg 4", "n00000004/art_2.jpg 5", "label 5, which is n0000000[45] elsewhere"),
        ("n00000004/art_2.jpg 4", "n00000005/art_2.jpg 5", "is in the list twice"),
        ("n00000004/art_2.jpg 4", "art_2.jpg 4", "is not `wnid/image.jpg`"),
    ],
)
def test_wrong_lists_of_imagenet_r_are_named(copy: Any, old: str, new: str, message: str) -> None:
    root = copy("split-imagenet-r")
    path = root / "imagenet-r" / "lists" / "imagenet-r_test.txt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataMissing, match=message):
        build(root, "split-imagenet-r")
    path.unlink()
    with pytest.raises(DataMissing, match="no list imagenet-r_test"):
        build(root, "split-imagenet-r")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train_test_split.txt", "\n7 1\n", "\n", "images.txt and train_test_split.txt differ in image 7"),
        ("image_class_labels.txt", "\n7 3\n", "\n7 201\n", "image 7 has class 201"),
        ("classes.txt", "1 001.Bird_1\n", "", "199 classes instead of 200"),
        ("images.txt", "\n7 ", "\n6 ", "is not a new `number text`"),
    ],
)
def test_wrong_lists_of_cub_are_named(copy: Any, file: str, old: str, new: str, message: str) -> None:
    root = copy("split-cub200")
    path = root / "CUB_200_2011" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataMissing, match=message):
        build(root, "split-cub200")


def test_names_and_labels_of_tiny_imagenet(copy: Any) -> None:
    root = copy("split-tiny-imagenet")
    scenario = build(root, "split-tiny-imagenet")
    assert scenario.class_names[7] == "thing 007"
    path = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    text = path.read_text()
    path.write_text(text.replace("n00000003", "n77777777"))
    with pytest.raises(DataMissing, match=r"line 4: .* is not `file, wnid, box` of a class"):
        build(root, "split-tiny-imagenet")
    path.write_text(text + text.splitlines()[0] + "\n")
    with pytest.raises(DataMissing, match=r"line 201: .* is there twice"):
        build(root, "split-tiny-imagenet")


def test_cars_need_the_labelled_test_table(copy: Any) -> None:
    root = copy("split-cars196")
    scenario = build(root, "split-cars196")
    assert [len(part.classes) for part in scenario.experiences] == [20] * 9 + [16]
    assert scenario.class_names[3] == "Car 3"
    table = root / "stanford_cars" / split_cars196.TEST
    table.rename(table.with_name("cars_test_annos.mat"))
    with pytest.raises(DataMissing, match=r"cars_test_annos_withlabels\.mat is missing; .* has no labels"):
        build(root, "split-cars196")
    table.write_bytes(b"nothing")
    with pytest.raises(DataMissing, match="cannot be read"):
        build(root, "split-cars196")


# --- Domains ------------------------------------------------------------------------------------


def test_office_home_is_cut_80_20_and_spelled_as_anyone_likes(copy: Any) -> None:
    root = copy("office-home")
    plain = build(root, "office-home")
    assert plain.domains == ("Art", "Clipart", "Product", "Real World")
    assert [len(part.train) for part in plain.experiences] == [4 * 65] * 4
    assert plain.partition == "80/20 cut"
    kept, _ = splits.train_test(np.repeat(np.arange(65), 5))
    assert sorted((plain.experiences[0].train.ids).tolist()) == kept.tolist()
    folder = root / "office_home"
    (folder / "Real World").rename(folder / "RealWorld")
    assert len(build(root, "office-home").experiences[3].train) == 4 * 65
    (folder / "RealWorld").rename(folder / "World")
    with pytest.raises(DataMissing, match="has no folder Real World"):
        build(root, "office-home")


def test_domainnet_goes_through_the_lists(copy: Any) -> None:
    root = copy("domainnet")
    scenario = build(root, "domainnet", order=("real", "painting"))
    assert scenario.domains == ("real", "painting")
    assert len(scenario.experiences[1].train) == 344  # no painted t-shirt is trained
    assert scenario.class_names[327] == "class 327"
    path = root / "domainnet" / "real_train.txt"
    text = path.read_text()
    for wrong, message in (
        (text.replace("class_003/", "class_004/", 1), "label 3 is class_004 here and class_003 elsewhere"),
        (text.replace("real/class_003", "class_003", 1), "is not `real/<class>/<file> label`"),
        (text.replace("real_train_000003.jpg", "gone.jpg"), r"gone\.jpg cannot be read"),
        ("", "names no image"),
    ):
        path.write_text(wrong)
        with pytest.raises(DataMissing, match=message):
            build(root, "domainnet", order=("clipart", "real"))
    path.unlink()
    with pytest.raises(DataMissing, match=r"real_train\.txt is missing"):
        build(root, "domainnet")


def test_core50_has_one_test_set_of_three_sessions(copy: Any) -> None:
    root = copy("core50")
    scenario = build(root, "core50")
    assert scenario.joint_test
    assert len(scenario.experiences[0].test) == 3 * 50 * 2
    assert scenario.domains == tuple(f"session {number}" for number in (1, 2, 4, 5, 6, 8, 9, 11))
    few = build(root, "core50", classes="categories", train=3, test=1)
    assert few.class_names == _domain_trees.CORE50_CATEGORIES
    assert few.joint_test
    assert len(few.experiences[2].train) == 30
    shuffled = build(root, "core50", order=("seed",), seed=1)
    assert sorted(shuffled.domains) == sorted(scenario.domains)  # type: ignore[type-var]
    assert shuffled.domains != scenario.domains
    strange = root / "core50" / "core50_128x128" / "s4" / "o9" / "C_04_08_001.png"
    shutil.copy(strange.with_name("C_04_09_001.png"), strange)
    with pytest.raises(DataMissing, match=r"C_04_08_001\.png is not a frame"):
        build(root, "core50")
    shutil.rmtree(root / "core50" / "core50_128x128" / "s4" / "o9")
    with pytest.raises(DataMissing, match="has not the folders o1 to o50"):
        build(root, "core50")


def test_deepfakes_are_real_or_fake_whatever_they_show(copy: Any) -> None:
    root = copy("cddb")
    assert build(root, "cddb").domains == ("gaugan", "biggan", "wild", "whichfaceisreal", "san")
    assert len(build(root, "cddb", stream="long").experiences) == 12
    assert build(root, "cddb", stream="easy").num_classes == 2
    folder = root / "cddb" / "cyclegan" / "train" / "horse"
    (folder / "0_real").rename(folder / "real")
    with pytest.raises(DataMissing, match="is in no folder 0_real or 1_fake"):
        build(root, "cddb", stream="easy")
    shutil.rmtree(folder / "real")
    with pytest.raises(DataMissing, match="does not hold both 0_real and 1_fake"):
        build(root, "cddb", stream="easy")


# --- Five data sets -----------------------------------------------------------------------------


def test_three_orders_of_the_five_data_sets(roots: Path) -> None:
    root = written(roots, "five-datasets")
    scenario = build(root, "five-datasets")
    assert scenario.class_names[0] == "house number zero"
    assert scenario.class_names[30:32] == ("letter A", "letter B")
    assert [part.classes[0] for part in scenario.experiences] == [0, 10, 20, 30, 40]
    assert {tuple(part.test.image_shape) for part in scenario.experiences} == {(3, 32, 32)}
    ids = torch.cat([samples.ids for part in scenario.experiences for samples in (part.train, part.test)])
    assert len(ids.unique()) == len(ids)
    assert build(root, "five-datasets", sets="jax").class_names[0] == "airplane"
    assert build(root, "five-datasets", sets="acl").class_names[-1] == "house number nine"
    few = build(root, "five-datasets", train=1, test=1)
    assert [len(part.train) for part in few.experiences] == [10] * 5


def test_unreadable_letters_are_left_out_and_told(copy: Any) -> None:
    root = copy("five-datasets")
    (root / "notMNIST" / "Train" / "C" / "0.png").write_bytes(b"")
    scenario = build(root, "five-datasets")
    assert scenario.notes["notmnist unreadable"] == "1 images are left out"
    assert len(scenario.experiences[3].train) == 29
    for path in (root / "notMNIST" / "Train" / "J").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataMissing, match="has no readable image of J"):
        build(root, "five-datasets")
