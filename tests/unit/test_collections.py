"""VTAB-1k and FGVC on small copies of their published layouts, their presets, and the table of a collection."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image

from bench_scenarios import _trees, fgvc, vtab1k
from benchmark import leaderboard, records
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import DataMissing
from benchmark.inputs import cuts, geometry
from benchmark.inputs.images import ImagePipeline
from benchmark.metrics import single
from benchmark.run import streams

SPECS: dict[str, Any] = {one.SPEC.name: one.SPEC for one in (fgvc, vtab1k)}
GOLDEN = Path(__file__).parents[1] / "golden" / "records"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    roots = tmp_path_factory.mktemp("collections")
    for name, spec in SPECS.items():
        spec.miniature(roots / name / "data")
    return roots


def build(root: Path, name: str, *, miniature: bool = True, **options: Any) -> Scenario:
    spec = SPECS[name]
    request = ScenarioRequest(data_root=root, cache=root.parent / "cache", download="never", miniature=miniature)
    scenario: Scenario = spec.build(spec.config(**options), request)
    return scenario


@pytest.fixture
def kitti(roots: Path, tmp_path: Path) -> Path:
    """A folder of a task to damage."""
    shutil.copytree(roots / "vtab1k" / "data" / "vtab1k" / "kitti", tmp_path / "data" / "vtab1k" / "kitti")
    return tmp_path / "data" / "vtab1k" / "kitti"


@pytest.fixture
def dogs(roots: Path, tmp_path: Path) -> Path:
    """A folder of a data set to damage."""
    shutil.copytree(
        roots / "fgvc" / "data" / "fgvc" / "dogs", tmp_path / "data" / "fgvc" / "dogs", copy_function=os.link
    )
    return tmp_path / "data" / "fgvc" / "dogs"


# --- VTAB-1k ------------------------------------------------------------------------------------


def test_there_are_nineteen_tasks_in_three_groups() -> None:
    groups = [task.group for task in vtab1k.TASKS.values()]
    assert [groups.count(name) for name in ("natural", "specialised", "structured")] == [7, 4, 8]
    assert vtab1k.SPEC.variants == tuple(vtab1k.TASKS)


def test_all_thousand_images_are_trained_and_the_test_list_is_tested(roots: Path) -> None:
    root = roots / "vtab1k" / "data"
    scenario = build(root, "vtab1k", task="kitti")
    (part,) = scenario.experiences
    assert (scenario.name, scenario.num_classes, part.validation) == ("vtab1k/kitti", 4, None)
    assert (len(part.train), len(part.test)) == (8, 4)
    assert scenario.notes["group"] == "structured"
    assert len(scenario.notes["lists"]) == 64


def test_options_are_chosen_on_the_two_hundred(roots: Path) -> None:
    scenario = build(roots / "vtab1k" / "data", "vtab1k", task="kitti", lists="train800")
    (part,) = scenario.experiences
    assert part.validation is not None
    tuned = streams.validation(scenario, 1).experiences[0]
    assert tuned.train.ids.tolist() == part.train.ids.tolist()
    assert tuned.test.ids.tolist() == part.validation.ids.tolist()
    assert not set(tuned.test.ids.tolist()) & set(part.test.ids.tolist())


def test_a_class_without_training_images_stays_a_class(kitti: Path) -> None:
    path = kitti / "train800val200.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.endswith(" 2\n")))
    scenario = build(kitti.parents[1], "vtab1k", task="kitti")
    assert (scenario.num_classes, set(scenario.experiences[0].train.labels.tolist())) == (4, {0, 1, 3})


def test_other_spellings_of_folders_are_known(kitti: Path) -> None:
    root = kitti.parents[1]
    kitti.parent.rename(root / "vtab-1k")
    folder = root / "vtab-1k" / "cifar100"
    names = [f"images/{part}/{label}.jpg" for part in ("train", "test") for label in range(100)]
    _trees.write(folder, names)
    for part, its in (("train800val200", names[:100]), ("test", names[100:])):
        (folder / f"{part}.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(its)))
    assert build(root, "vtab1k").num_classes == 100


def _written(path: Path, content: bytes) -> None:
    """A new file in its place: copies are links."""
    path.unlink()
    path.write_bytes(content)


def _cut_off(path: Path) -> None:
    _written(path, path.read_bytes()[:-200])


def _changed(old: str, new: str) -> Any:
    return lambda path: _written(path, path.read_bytes().replace(old.encode(), new.encode()))


def _holding(text: str) -> Any:
    return lambda path: _written(path, text.encode())


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("test.txt", Path.unlink, r"test\.txt"),
        ("test.txt", _holding(""), r"test\.txt names no image"),
        ("test.txt", _changed("000_0.jpg 0", "000_0.jpg"), r"line 1: .* is not `path label`"),
        ("test.txt", _changed("003_0.jpg 3", "003_0.jpg 4"), r"line 4: .*003_0\.jpg has label 4; labels are 0\.\.3"),
        ("test.txt", _changed("images/test/003_0.jpg 3\n", ""), r"test\.txt has no image of class 3"),
        ("test.txt", _changed("test/001_0", "test/009_0"), r"009_0\.jpg"),
        ("test.txt", _changed("test/001_0", "train800val200/001_0"), "is in train and in test"),
        ("images/test/001_0.jpg", Path.unlink, r"001_0\.jpg"),
        ("images/test/001_0.jpg", _cut_off, r"001_0\.jpg"),
    ],
)
def test_damage_to_a_task_is_named(kitti: Path, file: str, damage: Any, message: str) -> None:
    damage(kitti / file)
    with pytest.raises(DataMissing, match=message) as caught:
        build(kitti.parents[1], "vtab1k", task="kitti")
    assert "accepted in" in str(caught.value.hint)


def test_numbers_of_images_are_those_of_the_benchmark(roots: Path) -> None:
    root = roots / "vtab1k" / "data"
    with pytest.raises(DataMissing, match="train800val200: 8 images, published are 1,000"):
        build(root, "vtab1k", task="kitti", miniature=False)
    with pytest.raises(DataMissing, match="has no folder svhn"):
        build(root, "vtab1k", task="svhn")
    with pytest.raises(ValueError, match="task: 'mnist' is none of VTAB-1k"):
        vtab1k.Vtab1kConfig(task="mnist")


# --- FGVC ---------------------------------------------------------------------------------------


def test_lists_of_the_vpt_paper_are_read(roots: Path) -> None:
    scenario = build(roots / "fgvc" / "data", "fgvc")
    (part,) = scenario.experiences
    assert (scenario.name, scenario.num_classes, scenario.class_names[0]) == ("fgvc/cub", 200, "Some Bird 1")
    assert [len(one) for one in (part.train, part.test)] == [200, 200]
    assert part.validation is not None
    dogs = build(roots / "fgvc" / "data", "fgvc", set="dogs")
    assert (dogs.num_classes, dogs.class_names[119]) == (120, "Some dog 120")
    assert len(fgvc.SETS) == len(fgvc.SPEC.variants) == 5


def test_classes_are_ranks_of_ids_and_without_folders_they_are_called_by_them(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "fgvc" / "flowers"
    for part in fgvc.PARTS.values():
        # As strings, as some copies have them: 10 comes behind 9.
        files = {f"jpg/{part}_{one}.jpg": str(one) for one in range(1, 103)}
        _trees.write(folder, files)
        (folder / f"{part}.json").write_text(json.dumps(files))
    scenario = build(tmp_path / "data", "fgvc", set="flowers")
    assert scenario.class_names[8:11] == ("class 9", "class 10", "class 11")
    assert scenario.notes["class names"] == "ids of the lists"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("val.json", Path.unlink, r"val\.json"),
        ("val.json", _holding("{"), r"val\.json is no JSON"),
        ("val.json", _holding("{}"), r"val\.json names no image"),
        ("val.json", _holding("[1]"), "is not `image name: class id`"),
        ("val.json", _holding('{"a.jpg": true}'), "is not `image name: class id`"),
        ("val.json", _holding('{"a.jpg": 1, "a.jpg": 2}'), r"names a\.jpg twice"),
        ("test.json", _changed(": 120", ": 119"), r"test\.json has no image of class 120"),
        ("Images/n00000001-Some_dog_1/test_1.jpg", Path.unlink, r"test_1\.jpg"),
        ("Images/n00000001-Some_dog_1/test_1.jpg", _cut_off, r"test_1\.jpg"),
    ],
)
def test_damage_to_a_data_set_is_named(dogs: Path, file: str, damage: Any, message: str) -> None:
    damage(dogs / file)
    with pytest.raises(DataMissing, match=message) as caught:
        build(dogs.parents[1], "fgvc", set="dogs")
    assert "accepted in" in str(caught.value.hint)


def test_missing_and_strange_data_sets_say_so(roots: Path, tmp_path: Path, dogs: Path) -> None:
    with pytest.raises(DataMissing, match="train: 200 images, published are 5,394"):
        build(roots / "fgvc" / "data", "fgvc", miniature=False)
    with pytest.raises(DataMissing, match="has no folder nabirds"):
        build(roots / "fgvc" / "data", "fgvc", set="nabirds")
    (tmp_path / "nothing").mkdir()
    for name in SPECS:
        with pytest.raises(DataMissing, match="it is not fetched by itself"):
            build(tmp_path / "nothing", name)
    for part in fgvc.PARTS.values():
        path = dogs / f"{part}.json"
        kept = {name: one for name, one in json.loads(path.read_text()).items() if one != 7}
        _written(path, json.dumps(kept).encode())
    with pytest.raises(DataMissing, match="the lists have 119 classes instead of 120"):
        build(dogs.parents[1], "fgvc", set="dogs")
    with pytest.raises(ValueError, match="set: 'cats' is none of FGVC"):
        fgvc.FgvcConfig(set="cats")


# --- Presets ------------------------------------------------------------------------------------


def pipeline(preset: str) -> ImagePipeline:
    return ImagePipeline(preset, size=28, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize("shape", [(40, 53), (61, 37), (33, 33)])
def test_random_crops_are_windows_of_the_resized_image(shape: tuple[int, int]) -> None:
    raw = torch.randint(0, 256, (6, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = pipeline("fgvc224").train(raw, torch.Generator().manual_seed(0))
    draws = cuts.draw_places(
        6, torch.Generator().manual_seed(0), side=28, short=32, interpolation="bilinear", flip=True
    )
    assert 0 < draws.mirrored.sum() < 6
    for place, image in enumerate(raw):
        whole = Image.fromarray(image.permute(1, 2, 0).numpy())
        by_file = reference.to_tensor(draws(place, whole))  # what a source of files makes of it
        # A mirrored tensor is cut behind the mirror: the window lies on the other side.
        resized = reference.to_tensor(cuts.shrink(whole, geometry.resized(*shape, 32), "bilinear"))
        down, across = draws.place[:, place].astype(np.float64)
        top, left = (int(part * (length - 27)) for part, length in zip((down, across), resized.shape[1:], strict=True))
        assert torch.equal(by_file, resized[:, top : top + 28, left : left + 28])
        turned = resized.flip(-1) if draws.mirrored[place] else resized
        window = turned[:, top : top + 28, left : left + 28]
        assert torch.allclose(found[place], window, atol=0 if shape[0] != shape[1] else 1 / 255)


def test_a_preset_without_augmentation_squashes() -> None:
    raw = torch.randint(0, 256, (2, 3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = pipeline("vtab224")
    assert plain.cut(2, torch.Generator()) is None
    assert not plain.random
    by_pil = [reference.resize(Image.fromarray(one.permute(1, 2, 0).numpy()), [28, 28]) for one in raw]
    expected = torch.stack([reference.to_tensor(one) for one in by_pil])
    assert torch.equal(plain.eval(raw), expected)
    assert torch.equal(plain.train(raw, torch.Generator()), expected)


def test_files_are_cut_for_training_and_kept_before_their_own_crop() -> None:
    draws = pipeline("fgvc224").cut(3, torch.Generator().manual_seed(0))
    assert isinstance(draws, cuts.PlacedCrops)
    assert (draws.constant, draws.whole, draws.side) == ("short-32-bilinear", False, 28)
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (50, 41, 3)).astype(np.uint8))
    some = draws.at(np.array([2, 0]))
    assert np.array_equal(some(0, image), draws(2, image))
    assert draws.drawn(1, draws.prepared(image)).size == (28, 28)


# --- The table ----------------------------------------------------------------------------------


def run(name: str, accuracy: float, group: str) -> records.Record:
    plain = records.plain(records.read(GOLDEN / f"v{records.SCHEMA}.json"))
    plain["scenario"] |= {
        "family": "collection",
        "name": f"some/{name}",
        "variant_option": "task",
        "options": {"task": name},
        "notes": {"group": group} if group else {},
        "content": f"{ord(name):064x}",
        "fingerprint": f"{ord(name):064x}",
        "tests": [{"name": "test", "further": False}],
        "experiences": plain["scenario"]["experiences"][:1],
    }
    plain |= {"accuracy": [[accuracy]], "counts": [50], "baseline": None, "metrics": {"final_acc": accuracy}}
    plain["run_id"] = f"{ord(name):016x}"
    return records.parse(plain)


FIGURES = {"a": (0.7, "natural"), "b": (0.8, "natural"), "c": (0.9, "natural"), "d": (0.4, "structured")}


def test_one_table_has_the_mean_of_groups_and_the_mean_of_all() -> None:
    (table,) = leaderboard.leaderboard([run(name, *values) for name, values in FIGURES.items()])
    found = {column.title: cell.text for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert {key: found[key] for key in ("a", "d", "Natural", "Structured", "Mean of groups", "Mean of 4")} == {
        "a": "70.00",
        "d": "40.00",
        "Natural": "80.00",
        "Structured": "40.00",
        "Mean of groups": "60.00",
        "Mean of 4": "70.00",
    }
    assert "of the mean of groups" in table.caption
    # The specification's figures (VPT's row of NOAH's table).
    assert single.vtab_mean_groups([[78.49], [82.43], [55.0]]) == pytest.approx(71.97, abs=0.01)


def test_without_groups_there_is_one_mean() -> None:
    (table,) = leaderboard.leaderboard([run(name, accuracy, "") for name, (accuracy, _) in FIGURES.items()])
    titles = [column.title for column in table.columns]
    assert titles[1:6] == ["a", "b", "c", "d", "Mean"]
