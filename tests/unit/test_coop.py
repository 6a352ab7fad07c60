"""CoOp's eleven data sets and the shifted copies of ImageNet on tiny copies of their layouts, whole and damaged."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench_scenarios import _coop, _coop_sets, _shots, _trees, coop_base_to_new, coop_few_shot, imagenet_transfer
from benchmark import inventory, registry
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing
from benchmark.run.jobs import expand
from benchmark.run.plan import resolve_scenario
from benchmark.testing import checks

SPECS = {
    "coop-few-shot": coop_few_shot.SPEC,
    "coop-base-to-new": coop_base_to_new.SPEC,
    **imagenet_transfer.SPECS,
}
DOCS = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("coop") / "data"
    _coop.miniature(_coop_sets.EVERY, found)
    return found


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Callable[..., Path]:
    """A data root to damage, with some of the data sets."""

    def make(*keys: str) -> Path:
        for key in keys:
            folder = _coop_sets.EVERY[key].dataset.folders[0]
            shutil.copytree(root / folder, tmp_path / "data" / folder)
        return tmp_path / "data"

    return make


def build(root: Path, name: str, *, miniature: bool = True, seed: int = 0, **options: Any) -> Scenario:
    spec = SPECS[name]
    request = ScenarioRequest(
        data_root=root, cache=root.parent / "cache", seed=seed, download="never", miniature=miniature
    )
    return spec.build(spec.config(**options), request)


def few_shot(root: Path, task: str, seed: int = 0, **options: Any) -> Scenario:
    return build(root, "coop-few-shot", seed=seed, task=task, **options)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Changes a JSON file."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


# --- What is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", _coop_sets.SETS)
def test_every_data_set_is_read(root: Path, key: str) -> None:
    scenario = few_shot(root, f"{key}/2", seed=1)
    (part,) = scenario.experiences
    assert (scenario.name, scenario.family) == (f"coop-few-shot/{key}/2", "few-shot")
    assert scenario.class_names == tuple(f"class {label}" for label in range(5))
    assert part.train.labels.bincount().tolist() == [2] * 5
    assert part.test.labels.bincount().tolist() == [2] * 5
    assert (part.validation is None) == (key == "imagenet")
    assert not set(part.train.ids.tolist()) & set(part.test.ids.tolist())
    assert scenario.partition.startswith("lists ") == (key != "imagenet")


def test_shots_follow_the_official_code_in_the_order_of_the_list(copy: Callable[..., Path]) -> None:
    root = copy("dtd")
    folder = root / "coop" / "dtd"
    path = folder / "split_zhou_DescribableTextures.json"

    def shuffled(split: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Lists out of order, and nine validation images per class."""
        held = [entry for entry in split["train"] if int(entry[0].partition(".")[0]) >= 45]
        split = {"train": split["train"][:45], "val": [*split["val"], *held], "test": split["test"]}
        for entries in split.values():
            random.Random(7).shuffle(entries)
        return split

    edit(path, shuffled)
    split = json.loads(path.read_text())
    (part,) = few_shot(root, "dtd/8", seed=3).experiences
    generator = random.Random(3)  # CoOp: random.seed(cfg.SEED), then Dassl's generate_fewshot_dataset twice
    files = sorted(path.name for path in (folder / "images").iterdir())
    for samples, entries, number in ((part.train, split["train"], 8), (part.validation, split["val"], 4)):
        tracker: dict[int, list[str]] = {}
        for name, label, _ in entries:
            tracker.setdefault(label, []).append(name)
        drawn = [
            name
            for items in tracker.values()
            for name in (generator.sample(items, number) if len(items) >= number else items)
        ]
        assert samples is not None
        assert [files[sample] for sample in samples.ids.tolist()] == drawn
    assert [files[sample] for sample in part.test.ids.tolist()] == [name for name, _, _ in split["test"]]


def test_seeds_draw_other_images_of_one_content(root: Path) -> None:
    for key in ("eurosat", "fgvc_aircraft", "imagenet"):
        one, two, more = few_shot(root, f"{key}/4"), few_shot(root, f"{key}/4", seed=1), few_shot(root, f"{key}/1")
        assert one.fingerprint != two.fingerprint
        assert one.content == two.content == more.content
        assert one.fingerprint == few_shot(root, f"{key}/4").fingerprint


def test_the_rest_of_imagenet_is_told_by_names_and_sizes(copy: Callable[..., Path]) -> None:
    root = copy("imagenet")
    before = few_shot(root, "imagenet/1")
    path = root / "coop" / "imagenet" / "images" / "train" / "n00000002" / "16.JPEG"
    path.write_bytes(_trees.tiny(".jpg", 3, side=12))
    assert few_shot(root, "imagenet/1").content != before.content


def test_images_are_not_turned_by_their_exif_data(copy: Callable[..., Path]) -> None:
    root = copy("dtd")
    turned = Image.Exif()
    turned[0x0112] = 6
    for path in (root / "coop" / "dtd" / "images").iterdir():
        Image.new("RGB", (12, 8)).save(path, exif=turned)
    source: Any = few_shot(root, "dtd/1").experiences[0].test.source
    assert source.image(0).size == (12, 8)


def test_names_are_those_of_coop(copy: Callable[..., Path]) -> None:
    root = copy("eurosat", "imagenet", "imagenetv2")
    path = root / "coop" / "eurosat" / "split_zhou_EuroSAT.json"
    names = ["AnnualCrop", "Forest", "Sea or Lake", "Highway", "River"]
    edit(path, lambda split: {part: [[f, y, names[y]] for f, y, _ in found] for part, found in split.items()})
    assert few_shot(root, "eurosat/1").class_names == (
        "Annual Crop Land",
        "Forest",
        "Sea or Lake",
        "Highway or Road",
        "River",
    )
    classes = root / "coop" / "imagenet" / "classnames.txt"
    classes.write_text("n00000000 missile\nn00000003 missile\nn00000001 great white shark\nn00000002 a\nn00000004 b\n")
    scenario = build(root, "imagenet-dg", targets=("imagenetv2",), shots=1)
    assert scenario.class_names == 2 * ("missile", "great white shark", "a", "missile", "b")
    assert scenario.notes["shared names"] == "missile"  # which the contract lets pass
    spec = dataclasses.replace(SPECS["imagenet-dg"], name="imagenet-dg", build=lambda config, request: scenario)
    checks.SCENARIO_CHECKS["names"](checks.scenario_subject(spec, root))


def test_options_are_checked() -> None:
    wrong: list[tuple[type, dict[str, Any], str]] = [
        (coop_few_shot.CoopFewShotConfig, {"task": "pets/16"}, "none of CoOp's data sets; use imagenet, caltech101"),
        (coop_few_shot.CoopFewShotConfig, {"task": "dtd"}, "no number of images; use e.g. dtd/16"),
        (coop_few_shot.CoopFewShotConfig, {"task": "dtd/016"}, "no number of images"),
        (coop_few_shot.CoopFewShotConfig, {"task": "dtd/0"}, "out of range"),
        (coop_few_shot.CoopFewShotConfig, {"test": -1}, "0"),
        (coop_base_to_new.CoopBaseToNewConfig, {"dataset": "cifar"}, "none of CoOp's data sets"),
        (coop_base_to_new.CoopBaseToNewConfig, {"shots": 0}, "out of range"),
        (imagenet_transfer.ImageNetTransferConfig, {"targets": ("imagenet_a",)}, "use some of caltech101"),
        (imagenet_transfer.ImageNetDgConfig, {"targets": ("imagenet_a", "imagenet_a")}, "once each"),
        (imagenet_transfer.ImageNetDgConfig, {"targets": ()}, "use some of imagenetv2"),
    ]
    for config, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            config(**options)


# --- What is built of it ------------------------------------------------------------------------


def test_base_to_new_cuts_what_few_shot_drew(root: Path) -> None:
    scenario = build(root, "coop-base-to-new", seed=2, dataset="caltech101", shots=3, test=1)
    (part,), (new,) = scenario.experiences, scenario.tests
    assert (scenario.name, part.classes, new.classes) == ("coop-base-to-new/caltech101", (0, 1, 2), (3, 4))
    drawn = few_shot(root, "caltech101/3", seed=2).experiences[0].train
    assert part.train.ids.tolist() == drawn.ids[drawn.labels < 3].tolist()
    assert part.test.labels.bincount().tolist() == [1] * 3
    assert new.images.labels.tolist() == [3, 4]
    assert part.validation is not None
    assert set(part.validation.labels.tolist()) == {0, 1, 2}


def test_halves_are_the_published_ones() -> None:
    halves = {one.classes: len(_shots.base_classes(one.classes)) for one in _coop_sets.SETS.values()}
    assert halves == {1000: 500, 100: 50, 37: 19, 196: 98, 102: 51, 101: 51, 397: 199, 47: 24, 10: 5}


def test_cross_dataset_tests_each_among_its_own_names(root: Path) -> None:
    scenario = build(root, "imagenet-cross-dataset")
    (part,) = scenario.experiences
    assert [test.name for test in scenario.tests] == list(_coop_sets.SETS)[1:]
    assert part.train.ids.tolist() == few_shot(root, "imagenet/16").experiences[0].train.ids.tolist()
    assert (len(scenario.class_names), part.classes) == (55, (0, 1, 2, 3, 4))
    for place, test in enumerate(scenario.tests, 1):
        assert test.classes == tuple(range(5 * place, 5 * place + 5))
        assert len(test.images) == 10
    some = build(root, "imagenet-cross-dataset", targets=("eurosat", "dtd"))
    assert [test.name for test in some.tests] == ["eurosat", "dtd"]
    alone = few_shot(root, "dtd/1").experiences[0].test
    assert [image % 85 for image in some.tests[1].images.ids.tolist()] == list(range(10))  # ranks among them alone
    assert some.tests[1].images.labels.tolist() == [label + 10 for label in alone.labels.tolist()]


def test_shifted_sets_are_classified_among_their_own_classes(root: Path) -> None:
    scenario = build(root, "imagenet-dg", shots=1)
    assert [test.name for test in scenario.tests] == ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
    names = [[scenario.class_names[label] for label in test.classes or ()] for test in scenario.tests]
    own = [f"class {label}" for label in range(5)]
    assert names == [own, own, own[:2], own[:2]]
    first = scenario.tests[0].images
    assert first.labels.tolist() == [5, 5, 6, 6, 7, 7, 8, 8, 9, 9]


def test_folders_of_v2_are_labels_not_ranks(copy: Callable[..., Path]) -> None:
    root = copy("imagenet", "imagenetv2")
    folder = root / "coop" / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    shutil.copytree(root / "coop" / "imagenet" / "images" / "val", root / "spare")
    text = (root / "coop" / "imagenet" / "classnames.txt").read_text()
    for number in range(5, 12):
        text += f"n{number:08d} class {number}\n"
        for part in ("train", "val"):
            shutil.copytree(root / "spare" / "n00000000", root / f"coop/imagenet/images/{part}/n{number:08d}")
        shutil.copytree(folder / "0", folder / str(number))
    (root / "coop" / "imagenet" / "classnames.txt").write_text(text)
    scenario = build(root, "imagenet-dg", targets=("imagenetv2",), shots=1)
    (test,) = scenario.tests
    assert scenario.class_names[12:] == scenario.class_names[:12]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    told = {
        names[sample]: label - 12
        for sample, label in zip(test.images.ids.tolist(), test.images.labels.tolist(), strict=True)
    }
    assert all(name.partition("/")[0] == str(label) for name, label in told.items())
    (folder / "12").mkdir()
    shutil.copy(folder / "0" / "0.JPEG", folder / "12")
    with pytest.raises(DataMissing, match=r"12 is no label of ImageNet, 0\.\.11"):
        build(root, "imagenet-dg", targets=("imagenetv2",), shots=1)


# --- What is wrong ------------------------------------------------------------------------------


def test_counts_and_classes_that_differ_name_both(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing, match="train: 85 images, published are 2,820") as caught:
        build(root, "coop-few-shot", miniature=False, task="dtd/1")
    assert "accepted in" in str(caught.value.hint)
    counts = {"train": 85, "val": 5, "test": 10}
    monkeypatch.setitem(_coop_sets.SETS, "dtd", dataclasses.replace(_coop_sets.SETS["dtd"], counts=counts))
    with pytest.raises(DataMissing, match=r"DescribableTextures\.json has 5 classes instead of 47"):
        build(root, "coop-few-shot", miniature=False, task="dtd/1")
    with pytest.raises(DataMissing, match="train has 5 classes instead of 1000"):
        build(root, "coop-few-shot", miniature=False, task="imagenet/1")


@pytest.mark.parametrize("name", SPECS)
def test_missing_data_say_where_they_are_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataMissing, match="not found below") as caught:
        build(tmp_path, name)
    assert str(tmp_path) in str(caught.value.hint)


def entry(part: str, row: int, change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], Any]:
    def changed(split: Any) -> Any:
        split[part][row] = change(split[part][row])
        return split

    return changed


DAMAGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no list": (lambda split: {"train": split["train"]}, "has not the three lists train, val, test"),
    "no object": (lambda split: [split], "has not the three lists"),
    "short entry": (entry("val", 2, lambda row: row[:2]), r"val entry 3: .* is not \[path, label, class name\]"),
    "text label": (entry("val", 2, lambda row: [row[0], "1", row[2]]), "is not .path, label, class name"),
    "negative label": (entry("test", 0, lambda row: [row[0], -1, row[2]]), "test entry 1: .* is not .path"),
    "no name": (entry("test", 0, lambda row: [*row[:2], " "]), "test entry 1: .* is not .path"),
    "way out": (entry("test", 0, lambda row: ["a/../../b.jpg", *row[1:]]), "is no path below the folder"),
    "absolute": (entry("test", 0, lambda row: ["/etc/x.jpg", *row[1:]]), "is no path below the folder"),
    "twice": (entry("train", 1, lambda row: ["0000000.jpg", *row[1:]]), r"0000000.jpg is train entry 1 already"),
    "in two lists": (entry("test", 0, lambda row: ["0000000.jpg", *row[1:]]), "test entry 1: 0000000.jpg is train"),
    "two names": (entry("test", 0, lambda row: [*row[:2], "other"]), "label 0 is 'other' here and 'class_0' before"),
    "untrained": (entry("test", 0, lambda row: [row[0], 5, "new"]), "no training image has label 5"),
    "gap": (
        lambda split: {p: [[f, y + (y > 2), n] for f, y, n in found] for p, found in split.items()},
        "no training image has label 3",
    ),
    "empty list": (lambda split: {**split, "val": []}, "has no image of val"),
    "absent image": (entry("val", 0, lambda row: ["gone.jpg", *row[1:]]), r"gone\.jpg cannot be read: No such file"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_split_files_are_one_error(copy: Callable[..., Path], what: str) -> None:
    root = copy("oxford_pets")
    change, message = DAMAGES[what]
    edit(root / "coop" / "oxford_pets" / "split_zhou_OxfordPets.json", change)
    with pytest.raises(DataMissing, match=message) as caught:
        few_shot(root, "oxford_pets/1")
    assert "Oxford-IIIT Pets" in caught.value.message
    assert "accepted in" in str(caught.value.hint)


def test_other_damage_of_lists_is_named(copy: Callable[..., Path]) -> None:
    root = copy("oxford_pets")
    folder = root / "coop" / "oxford_pets"
    image = folder / "images" / "0000003.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(DataMissing, match=r"0000003\.jpg"):
        few_shot(root, "oxford_pets/1")
    path = folder / "split_zhou_OxfordPets.json"
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(DataMissing, match="is no JSON"):
            few_shot(root, "oxford_pets/1")
    path.unlink()
    with pytest.raises(
        DataMissing, match=r"split_zhou_OxfordPets\.json is missing; it is linked in CoOp's DATASETS\.md"
    ):
        few_shot(root, "oxford_pets/1")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("variants.txt", "class_0\nclass_1\n", r"train\.txt, line 3: .* is not `number variant` of variants\.txt"),
        ("images_variant_val.txt", "x class_0\n", r"val\.txt, line 1: 'x class_0' is not"),
        ("images_variant_val.txt", "0000000 class_0\n", r"0000000\.jpg is line 1 of images_variant_train\.txt already"),
        ("images_variant_test.txt", "", r"images_variant_test\.txt is empty"),
        ("images_variant_test.txt", "\udcff", r"images_variant_test\.txt is no UTF-8"),
    ],
)
def test_damaged_lists_of_aircraft_are_named(copy: Callable[..., Path], file: str, text: str, message: str) -> None:
    root = copy("fgvc_aircraft")
    (root / "coop" / "fgvc_aircraft" / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataMissing, match=message):
        few_shot(root, "fgvc_aircraft/1")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no names", r"classnames\.txt is missing; it is linked"),
        ("wrong line", r"classnames\.txt, line 1: 'tench' is not `wnid name`"),
        ("name twice", r"classnames\.txt, line 6: n00000000 has a name already"),
        ("nameless class", r"n00000004: classnames\.txt of ImageNet has no such class"),
        ("class not tested", r"train and val have different classes, e\.g\. n00000002"),
        ("flat val", r"flat\.JPEG is in no class folder"),
        ("no train", "there is no folder .*train"),
        ("truncated", r"n00000001.0\.JPEG"),
    ],
)
def test_damaged_imagenet_is_named(copy: Callable[..., Path], what: str, message: str) -> None:
    root = copy("imagenet")
    folder = root / "coop" / "imagenet"
    names, image = folder / "classnames.txt", folder / "images" / "val" / "n00000001" / "0.JPEG"
    text = names.read_text()
    if what == "no names":
        names.unlink()
    elif what in ("wrong line", "name twice", "nameless class"):
        names.write_text(
            {"wrong line": "tench\n", "name twice": text + "n00000000 x\n"}.get(what, text.rpartition("n0000")[0])
        )
    elif what == "class not tested":
        shutil.rmtree(folder / "images" / "val" / "n00000002")
    elif what == "flat val":
        shutil.copy(image, folder / "images" / "val" / "flat.JPEG")
    elif what == "no train":
        shutil.rmtree(folder / "images" / "train")
    else:
        image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(DataMissing, match=message) as caught:
        few_shot(root, "imagenet/16")
    assert "accepted in" in str(caught.value.hint)


def test_a_shifted_set_with_a_strange_class_is_named(copy: Callable[..., Path]) -> None:
    root = copy("imagenet", "imagenet_a")
    folder = root / "coop" / "imagenet-adversarial" / "imagenet-a"
    (folder / "n00000001").rename(folder / "n99999999")
    with pytest.raises(DataMissing, match=r"n99999999: classnames\.txt of ImageNet has no such class"):
        build(root, "imagenet-dg", targets=("imagenet_a",))
    with pytest.raises(DataMissing, match=r"ImageNet-V2.*not found below"):
        build(root, "imagenet-dg")


# --- Around it ----------------------------------------------------------------------------------


def test_data_sets_are_known_and_their_forms_recognised(
    copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "names", lambda group: sorted({*SPECS, "split-cars196"}))  # not all: seconds
    assert inventory.known().keys() == {"stanford_cars", *(f"coop-{key}" for key in _coop_sets.EVERY)}
    assert inventory.one("coop-dtd").scenarios == ["coop-base-to-new", "coop-few-shot", "imagenet-cross-dataset"]
    assert inventory.one("stanford_cars").scenarios == ["split-cars196"]  # a key goes before a folder
    root = copy("fgvc_aircraft", "stanford_cars")
    (root / "coop" / "stanford_cars").rename(root / "stanford_cars")  # as CoOp has it, without `coop/`
    for key, files in (("fgvc_aircraft", 104), ("stanford_cars", 101)):
        form = inventory.state(_coop_sets.SETS[key].dataset, root).form
        assert form is not None
        assert (form.name, len(form.files)) == ("lists", files)
    assert [problem for _, problem in inventory.verify(_coop_sets.SETS["stanford_cars"].dataset, root)] == [None] * 101
    (root / "stanford_cars" / "0000004.jpg").unlink()
    assert "0000004.jpg" in inventory.state(_coop_sets.SETS["stanford_cars"].dataset, root).problem
    assert inventory.state(_coop_sets.SETS["dtd"].dataset, root).text == "absent"


def test_a_data_set_stands_for_all_its_numbers() -> None:
    names = [f"coop-few-shot/dtd/{shots}" for shots in (1, 2, 4, 8, 16)]
    assert expand(["coop-few-shot/dtd"], {}, {}) == names
    assert expand(["coop-few-shot/dtd/3"], {}, {}) == ["coop-few-shot/dtd/3"]
    assert len(expand(["coop-few-shot"], {}, {})) == 55
    assert expand(["coop-base-to-new/all"], {}, {}) == [f"coop-base-to-new/{key}" for key in _coop_sets.SETS]


def test_published_figures_name_scenarios_that_run() -> None:
    with (DOCS.parents[1] / "benchmark" / "published" / "figures.csv").open(encoding="utf-8", newline="") as file:
        named = [row["scenario"] for row in csv.DictReader(file) if row["scenario"].partition("/")[0] in SPECS]
    assert len(named) >= 160
    for name in set(named):
        resolve_scenario(SPECS[name.partition("/")[0]], name.partition("/")[2], [])


def test_the_documentation_has_every_data_set() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for key, one in _coop_sets.EVERY.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{key}` |"))
        assert f"`{one.dataset.folders[1]}/`" in row
        assert one.template in row
        assert f"{one.classes:,}" in row
        assert f"`{one.images or 'cars_train'}" in row
        assert one.split in row
        assert " / ".join(f"{count:,}" for count in one.counts.values()) in row
