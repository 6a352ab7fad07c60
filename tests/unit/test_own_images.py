"""Images of the user's own: `folder:PATH` and `domains:PATH`, and what is said of trees that are not right."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench_scenarios import own_images
from benchmark import readers
from benchmark.cli import main
from benchmark.errors import DataMissing
from benchmark.readers.survey import survey
from benchmark.scenario import Scenario, ScenarioRequest


def put(path: Path, seed: int, *, side: int = 8, form: str = "PNG", **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.RandomState(seed).randint(0, 256, (side, side + seed % 3, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path, form, **options)


def tree(root: Path, prefixes: tuple[str, ...] = ("",), classes: int = 4, each: int = 5) -> Path:
    for place, prefix in enumerate(prefixes):
        for label in range(classes):
            for number in range(each):
                put(root / prefix / f"Klasse, {label}" / f"{number} ü.png", 1000 * place + 100 * label + number)
    return root


def build(path: Path, cache: Path, name: str = "folder", *, seed: int = 0, **options: Any) -> Scenario:
    spec = own_images.SPECS[name]
    request = ScenarioRequest(data_root=None, cache=cache, tag=str(path), seed=seed)
    return spec.build(spec.config(**options), request)


def sizes(scenario: Scenario) -> list[tuple[int, int]]:
    return [(len(part.train), len(part.test)) for part in scenario.experiences]


def test_class_folders_become_a_stream_cut_by_the_suites_rule(tmp_path: Path) -> None:
    scenario = build(tree(tmp_path / "birds"), tmp_path, experiences=2, class_order="3,1,0,2")
    assert sizes(scenario) == [(8, 2), (8, 2)]
    assert scenario.class_names == ("Klasse, 3", "Klasse, 1", "Klasse, 0", "Klasse, 2")
    assert scenario.partition == "80/20 cut"
    whole = sorted(torch.cat([part.ids for one in scenario.experiences for part in (one.train, one.test)]).tolist())
    assert whole == list(range(20))


def test_folders_train_and_test_are_used_and_others_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "x", ("Train", "test", "val"), classes=2)
    scenario = build(root, tmp_path, experiences=1)
    assert sizes(scenario) == [(10, 10)]
    assert scenario.partition == "given"
    assert scenario.notes["left out"] == "val"
    shutil.rmtree(root / "test")
    assert sizes(build(root, tmp_path, experiences=1)) == [(10, 10)]  # val is tested


def test_class_folders_called_train_are_classes(tmp_path: Path) -> None:
    for name in ("train", "tram", "test"):
        for number in range(5):
            put(tmp_path / name / f"{number}.png", number)
    assert build(tmp_path, tmp_path / "cache", experiences=3).class_names == ("test", "train", "tram")


def test_domains_become_every_family(tmp_path: Path) -> None:
    root = tree(tmp_path / "mine", ("photo", "sketch", "clay"))

    def of(**options: Any) -> Scenario:
        return build(root, tmp_path, "domains", **options)

    stream = of()
    assert stream.domains == ("clay", "photo", "sketch")
    assert of(order=("sketch", "clay")).domains == ("sketch", "clay")
    assert sizes(stream) == [(16, 4)] * 3
    adaptation = of(family="uda", source="photo", target="clay")
    (part,) = adaptation.experiences
    assert (len(part.train), len(part.target or ()), part.source_domains, part.domain) == (20, 20, ("photo",), "clay")
    assert adaptation.transductive
    (part,) = of(family="dg").experiences
    assert (len(part.train), len(part.test), part.source_domains) == (32, 20, ("clay", "photo"))
    assert part.train.domains is not None
    assert part.train.domains.bincount().tolist() == [16, 16]
    (part,) = of(family="few-shot", shots=2).experiences
    assert part.train.labels.bincount().tolist() == [2, 2, 2, 2]
    assert not set(part.train.ids.tolist()) & set(part.test.ids.tolist())
    new = of(family="base-to-new", shots=1)
    assert (new.experiences[0].classes, new.tests[0].classes) == ((0, 1), (2, 3))
    assert sizes(of(family="class-il", experiences=4)) == [(12, 3)] * 4
    for options, words in (
        ({"family": "uda", "source": "clay", "target": "clay"}, "target: it is the source too"),
        ({"family": "dg", "target": "oil"}, "target: 'oil' is not a domain; use one of clay, photo, sketch"),
        ({"order": ("clay", "clay")}, "order: 'clay,clay' names a domain twice"),
    ):
        with pytest.raises(ValueError, match=words):
            of(**options)


def test_lists_and_tables_are_read(tmp_path: Path) -> None:
    root = tree(tmp_path / "x", ("a", "b"), classes=2)
    names = list(readers.find_images(root).names)
    (root / "all.txt").write_text("".join(f"{name} {name.split('/')[1][-1]}\n" for name in names), encoding="utf-8-sig")
    by_list = build(root / "all.txt", tmp_path, experiences=2)
    assert by_list.class_names == ("0", "1")
    assert sizes(by_list) == [(8, 2), (8, 2)]
    kinds = {True: '"bird, blue"', False: "wren"}
    lines = [f'"{name}",{kinds["0/" in name]},{"test" if "4" in name else "train"},{name[0]}' for name in names]
    (root / "all.csv").write_text("Filename,Class,split,domain\n" + "\n".join(reversed(lines)), encoding="utf-8")
    table = build(root / "all.csv", tmp_path, experiences=2)
    assert table.class_names == ("bird, blue", "wren")
    assert sizes(table) == [(8, 2), (8, 2)]
    assert build(root / "all.csv", tmp_path, "domains").domains == ("a", "b")
    for name, kept in (("train", names[:12]), ("test", names[12:])):
        (root / f"{name}.txt").write_text("".join(f"{one} {one.split('/')[1][-1]}\n" for one in kept))
    assert sizes(build(root, tmp_path, experiences=1)) == [(12, 8)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x.png\n", "line 1: 'x.png' is not `path label`"),
        ("", "names no image"),
        ("a.png 1\na.png 2\n", r"line 2: a\.png is in .*line 1 already"),
        ("gone.png 1\n", r"gone\.png cannot be read"),
    ],
)
def test_wrong_lists_are_named_by_line(tmp_path: Path, content: str, words: str) -> None:
    put(tmp_path / "a.png", 0)
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataMissing, match=words):
        build(tmp_path / "list.txt", tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file,kind\na.png,x\n", "no column label"),
        ("file,label\na.png,\n", "line 2: a row without a path or without a label"),
        ("file,label,split\na.png,1,half\n", "line 2: split 'half' is neither train nor test"),
        ("file,label,split\na.png,1,train\nb.png,2,\n", "line 3: says neither train nor test"),
        ("file,label,split\na.png,1,train\nb.png,2,train\n", "every image is for training"),
    ],
)
def test_wrong_tables_are_named_by_line(tmp_path: Path, content: str, words: str) -> None:
    for name in ("a", "b"):
        put(tmp_path / f"{name}.png", 0)
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataMissing, match=words):
        build(tmp_path / "list.csv", tmp_path / "cache")


def test_trees_that_are_not_right_are_one_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "x", classes=2)
    put(root / "stray.png", 0)
    with pytest.raises(DataMissing, match=r"stray\.png lies in no class folder"):
        build(root, tmp_path)
    (root / "stray.png").unlink()
    (root / "empty").mkdir()
    with pytest.raises(DataMissing, match="empty holds no image"):
        build(root, tmp_path)
    (root / "empty").rmdir()
    with pytest.raises(ValueError, match="experiences: 2 classes cannot be cut into 5 equal parts; use 1, 2"):
        build(root, tmp_path)
    with pytest.raises(DataMissing, match="there is nothing at") as caught:
        build(tmp_path / "gone", tmp_path)
    assert "bench data check" in str(caught.value.hint)
    domains = tree(tmp_path / "d", ("a", "b"), classes=2)
    shutil.rmtree(domains / "b" / "Klasse, 1")
    with pytest.raises(DataMissing, match="b has no images of class Klasse, 1"):
        build(domains, tmp_path, "domains")


def test_a_truncated_image_is_one_error_or_left_out_by_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "x", classes=2, each=6)
    victim = root / "Klasse, 1" / "3 ü.png"
    victim.write_bytes(victim.read_bytes()[:-60])
    with pytest.raises(DataMissing, match=r"Klasse, 1/3 ü\.png is not a readable image") as caught:
        build(root, tmp_path, experiences=2)
    assert "on_error=skip" in str(caught.value.hint)
    scenario = build(root, tmp_path, experiences=2, on_error="skip")
    assert scenario.notes["skipped"] == "1 files that cannot be read: Klasse, 1/3 ü.png"
    assert sum(map(sum, sizes(scenario))) == 11


def test_a_copy_in_another_quality_is_another_scenario(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "birds", tmp_path / "b" / "birds"
    for root, quality in ((first, 90), (second, 60)):
        for label in range(2):
            for number in range(5):
                put(root / f"c{label}" / f"{number}.jpg", 10 * label + number, side=16, form="JPEG", quality=quality)
    one, other = (build(root, tmp_path, experiences=1) for root in (first, second))
    assert one.fingerprint != other.fingerprint
    shutil.copytree(first, tmp_path / "c" / "birds")
    again = build(tmp_path / "c" / "birds", tmp_path, experiences=1)
    assert again.fingerprint == one.fingerprint
    reduced = build(first, tmp_path, experiences=1, size=8)
    assert reduced.fingerprint != one.fingerprint


def test_what_is_there_is_said_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    root = tree(tmp_path / "x", ("train", "test"), classes=3)
    shutil.copy(root / "train" / "Klasse, 0" / "1 ü.png", root / "test" / "Klasse, 1" / "twin.PNG")
    (root / "train" / "Klasse, 2" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (root / "notes.txt").write_text("x")
    found = survey(root, tmp_path / "cache", quiet=True)
    assert found.per_class == {"Klasse, 0": (5, 5), "Klasse, 1": (5, 6), "Klasse, 2": (6, 5)}
    assert found.shared == found.disputed == (("test/Klasse, 1/twin.PNG", "train/Klasse, 0/1 ü.png"),)
    assert found.forms == {"PNG RGB": 31}
    assert main(["data", "check", str(root)]) == 4
    said = capsys.readouterr().out
    for words in (
        "16 for training, 16 for testing",
        "1 images are in training and test",
        "unreadable  train/Klasse, 2/cut.jpg",
    ):
        assert words in said
    (root / "train" / "Klasse, 2" / "cut.jpg").unlink()
    assert main(["data", "check", str(root), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["other files"] == ["notes.txt"]
    domains = tree(tmp_path / "d", ("a", "b"), classes=2, each=1)
    seen = survey(domains, tmp_path / "cache", quiet=True)
    assert seen.layout.domain_names == ("a", "b")
    assert seen.few == ("Klasse, 0", "Klasse, 1")
    assert seen.single == ()


def test_a_run_reads_a_folder_with_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    root = tree(tmp_path / "birds", classes=2, each=8)
    records = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        arguments = ["run", "--scenario", f"domains:{tree(tmp_path / 'd', ('a', 'b'), classes=2, each=8)}"]
        arguments += ["--method", "vpt-shallow", "--track", "mini", "--set", "epochs=2", "--set", "batch_size=4"]
        assert main([*arguments, "--set", f"engine.workers={workers}", "--out", str(out), "-q"]) == 0
        assert multiprocessing.active_children() == []
        (file,) = out.rglob("*.json")
        records.append(json.loads(file.read_text()))
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["accuracy"] == records[1]["accuracy"]
    assert os.fspath(tmp_path) not in json.dumps(records[0]["scenario"])
    assert root.exists()
