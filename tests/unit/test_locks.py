"""Lock files: what they hold, what they do not depend on, and what is said where the data here are others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from bench_scenarios import _pacs, pacs
from benchmark import locks, records
from benchmark.api import Scenario, ScenarioRequest
from benchmark.cli import main
from benchmark.errors import EXIT_DATA, EXIT_OK, EXIT_USAGE, DataMissing, UsageError
from benchmark.jobs import Job
from benchmark.locks import Lock
from benchmark.samples import Pixels, Samples
from benchmark.scenario import Experience, TestSet
from benchmark.testing import toys

FACTS: dict[str, Any] = {"name": "toy/2x2", "track": "nano", "preset": "plain", "options": {"train": 2}, "seed": None}


def lock_of(scenario: Scenario, **changed: Any) -> Lock:
    return locks.lock_of(scenario, **{**FACTS, **changed})


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return toys.toy_scenario(experiences=2, classes=2, train=2, test=2)


def test_a_lock_is_a_small_file_that_reads_as_it_was(scenario: Scenario, tmp_path: Path) -> None:
    lock = lock_of(scenario)
    locks.write(lock, tmp_path / "a.lock")
    text = (tmp_path / "a.lock").read_text(encoding="utf-8")
    assert locks.read(tmp_path / "a.lock") == lock
    assert lock.id.startswith("toy-2t:")
    assert json.loads(text)["class_order"] == [0, 1, 2, 3]
    assert [part.where for part in lock.sets] == [f"experience {e}, {s}" for e in (0, 1) for s in ("train", "test")]
    assert str(tmp_path) not in text
    assert max(map(len, text.splitlines())) < 200


def test_the_short_name_hangs_on_what_decides_alone(scenario: Scenario) -> None:
    first = lock_of(scenario).id
    assert lock_of(scenario, track="mini", options={}, seed=3).id == first
    for changed in (
        lock_of(scenario, preset="other"),
        lock_of(dataclasses.replace(scenario, version=scenario.version + 1)),
        lock_of(dataclasses.replace(scenario, content="1" * 64)),
        lock_of(dataclasses.replace(scenario, partition="official lists")),
        lock_of(dataclasses.replace(scenario, class_order=(1, 0, 2, 3))),
    ):
        assert changed.id.startswith("toy-2t:")
        assert changed.id != first


@pytest.mark.parametrize(
    ("name", "experiences", "wanted"),
    [
        ("split-cifar100/10x10", 10, "split-cifar100-10t:"),
        ("pacs", 4, "pacs-4t:"),
        ("pacs-uda/photo-art_painting", 1, "pacs-uda-photo-art_painting:"),
        ("glyphs-base-to-new", 1, "glyphs-base-to-new:"),
        ("folder:birds-1a2b3c4d/5x2", 5, "folder-5t:"),
    ],
)
def test_short_names(name: str, experiences: int, wanted: str) -> None:
    facts: dict[str, Any] = {"version": 1, "preset": "", "partition": "", "fingerprint": "f", "class_order": [0]}
    found = locks.short_name(scenario=name, experiences=experiences, content="c", **facts)
    assert found.startswith(wanted)
    assert len(found) == len(wanted) + locks.DIGITS
    assert locks.short_name(scenario=name, experiences=experiences, content="", **facts) == ""


# --- differences --------------------------------------------------------------------------------


def changed_labels(scenario: Scenario) -> Scenario:
    first, *rest = scenario.experiences
    train = dataclasses.replace(first, train=first.train.subset(torch.arange(len(first.train)).flip(0)))
    train.train.labels = train.train.labels.flip(0)
    return dataclasses.replace(scenario, experiences=(train, *rest))


def shorter(scenario: Scenario) -> Scenario:
    parts = tuple(dataclasses.replace(part, test=part.test.subset(torch.arange(1))) for part in scenario.experiences)
    return dataclasses.replace(scenario, experiences=parts)


def with_test(scenario: Scenario) -> Scenario:
    return dataclasses.replace(scenario, tests=(TestSet(name="new", images=scenario.experiences[0].test),))


def renamed(scenario: Scenario) -> Scenario:
    return dataclasses.replace(scenario, class_names=("x", *scenario.class_names[1:]))


@pytest.mark.parametrize(
    ("change", "facts", "said"),
    [
        (lambda s: s, {"preset": "cifar32"}, r": preset cifar32 instead of plain$"),
        (lambda s: s, {"options": {"train": 3}}, r": option train 3 instead of 2$"),
        (lambda s: dataclasses.replace(s, version=9), {}, r": version 9 instead of \d$"),
        (lambda s: dataclasses.replace(s, partition="80/20 cut"), {}, r": partition 80/20 cut instead of none$"),
        (
            lambda s: dataclasses.replace(s, class_order=(0, 2, 1, 3)),
            {},
            r": class order: label 2 instead of 1 at place 1, and 1 more differ$",
        ),
        (renamed, {}, r": class names: name x instead of thing 0 at place 0$"),
        (changed_labels, {}, r": experience 0, train: as many samples, but other ones or with other labels$"),
        (shorter, {}, r": experience 0, test: 1 samples instead of 4 \(and so in 1 more sets\)$"),
        (with_test, {}, r": test set new is not in the lock$"),
        (
            lambda s: dataclasses.replace(s, content="2" * 64),
            {},
            r": other pixels or texts: what was decoded has the hash 22222222 instead of [0-9a-f]{8} \(another copy",
        ),
        (lambda s: dataclasses.replace(s, fingerprint=f"{s.fingerprint}-lossy"), {}, r": these data are a lossy copy$"),
    ],
)
def test_a_difference_is_told(change: Any, facts: dict[str, Any], said: str, scenario: Scenario) -> None:
    lock, other = lock_of(scenario), lock_of(change(scenario), **facts)
    locks.check(lock, lock_of(scenario, seed=7, track="mini"))
    with pytest.raises(DataMissing, match=said) as caught:
        locks.check(lock, other)
    own = f" (here: {other.id})" if other.id != lock.id else ""
    assert caught.value.message.startswith(f"this is not the split of lock {lock.id}{own}: ")
    with pytest.raises(DataMissing):
        locks.check(other, lock)


def test_the_seed_of_a_lock_is_named(scenario: Scenario) -> None:
    with pytest.raises(DataMissing) as caught:
        locks.check(lock_of(scenario, seed=3), lock_of(changed_labels(scenario), seed=0))
    assert caught.value.hint == "the lock was made with --class-order-seed 3"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.replace('"version": ', '"version": 1'), "was changed: its facts are those of toy-2t:"),
        (lambda text: text.replace('"class_order": [0, 1', '"class_order": [1, 0'), "was changed"),
        (lambda text: text[:100], "is no lock file"),
        (lambda text: "{}", "is no lock file: .*`format`"),
        (lambda text: text.replace("lock 1", "lock 2"), "is no lock file: .*lock 2"),
        (lambda text: text.replace('"samples": ', '"samples": -'), "is no lock file: .*samples"),
        (lambda text: text.replace('"preset"', '"presets"'), "is no lock file: .*presets"),
    ],
)
def test_a_spoilt_lock_is_refused(spoil: Any, said: str, scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text(spoil(locks.dumps(lock_of(scenario))), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"a\.lock {said}"):
        locks.read(tmp_path / "a.lock")


# --- what a lock does not depend on -------------------------------------------------------------


def photographs(root: Path, *, backwards: bool) -> ScenarioRequest:
    """A PACS tree, its folders and files made in one order or the other."""
    places = [
        (domain, name, number)
        for domain in _pacs.DOMAINS
        for name in _pacs.CLASSES
        for number in range(5)  # four to train on, one to test
    ]
    for domain, name, number in reversed(places) if backwards else places:
        folder = root / "PACS" / domain / (name.title() if backwards else name)
        folder.mkdir(parents=True, exist_ok=True)
        shade = len(domain) * 9 + len(name) * 5 + number
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(folder / f"{number}.png")
    return ScenarioRequest(data_root=root, cache=root / "cache", download="never")


def test_a_lock_depends_on_no_path_no_locale_and_no_order_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pacs, "COUNTS", dict.fromkeys(_pacs.DOMAINS, 35))
    config = pacs.PacsDilConfig()
    facts = {**FACTS, "name": "pacs", "options": {}}
    first = locks.lock_of(pacs.build(config, photographs(tmp_path / "a", backwards=False)), **facts)
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    second = locks.lock_of(pacs.build(config, photographs(tmp_path / "b" / "ü x", backwards=True)), **facts)
    assert locks.dumps(first) == locks.dumps(second)
    changed = next((tmp_path / "b" / "ü x").rglob("sketch/*/3.png"))
    Image.fromarray(np.full((8, 8, 3), 250, np.uint8)).save(changed)
    again = ScenarioRequest(data_root=tmp_path / "b" / "ü x", cache=tmp_path / "cache", download="never")
    third = locks.lock_of(pacs.build(config, again), **facts)
    (said,) = locks.differences(first, third)
    assert said.startswith("other pixels or texts")


# --- the command line ---------------------------------------------------------------------------

SMALL = ("--set", "scenario.train=2", "--set", "scenario.test=1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("locks") / "glyphs.lock"
    assert main(["lock", "split-glyphs/20x5", *SMALL, "--set", "class_order=seed", "-o", str(file)]) == EXIT_OK
    return file


def test_a_lock_names_the_seed_only_where_the_split_follows_it(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert locks.read(made).seed == 0
    assert main(["lock", "split-glyphs/20x5", *SMALL]) == EXIT_OK
    lock = locks.loads(capfd.readouterr().out, "stdout")
    assert lock.seed is None
    assert lock.options == {"split": "20x5", "class_order": "natural", "train": 2, "test": 1}


@pytest.mark.usefixtures("one_thread")
def test_a_run_on_a_lock_takes_its_scenario_options_and_seed(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "--lock", str(made), "--method", "nearest-mean", "--out", str(tmp_path), "--seed", "1", "--json"]
    assert main(run) == EXIT_OK
    (path,) = tmp_path.rglob("*.json")
    record = records.read(path)
    lock = locks.read(made)
    assert record.scenario.lock == lock.id
    assert record.scenario.options == lock.options
    assert (record.seeds.seed, record.seeds.class_order) == (1, 0)
    assert main([*run[:-1], "--set", "scenario.test=2"]) == EXIT_DATA
    said = capsys.readouterr().err
    assert f"this is not the split of lock {lock.id}" in said
    assert ": option test 2 instead of 1; " in said
    assert "experience 0, test: 40 samples instead of 20 (and so in 19 more sets)" in said
    assert main([*run[:-1], "--class-order-seed", "1"]) == EXIT_DATA
    assert "hint: the lock was made with --class-order-seed 0" in capsys.readouterr().err
    assert [*tmp_path.rglob("*.json")] == [path]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenario", "glyph-domains"], "is of scenario `split-glyphs`, not of `glyph-domains`"),
        (["--lock", "nowhere.lock"], "nowhere.lock cannot be read"),
    ],
)
def test_a_lock_that_does_not_fit_is_a_usage_error(
    words: list[str], said: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--lock", str(made), "--method", "nearest-mean", *words]) == EXIT_USAGE
    assert said in capsys.readouterr().err


def test_a_job_can_be_sent_with_its_lock(made: Path) -> None:
    job = Job(scenario="split-glyphs", method="nearest-mean", lock=locks.dumps(locks.read(made)))
    assert Job.of(json.loads(json.dumps(job.as_dict()))) == job


def test_new_records_and_tables_say_what_a_lock_says(scenario: Scenario) -> None:
    """The name in a record that an earlier version wrote is made from its facts, and is that of a lock of today."""
    from benchmark.leaderboard import leaderboard
    from benchmark.leaderboard.rows import lock_of as told

    (record, *_), _ = records.read_all(Path(__file__).parents[2] / "results" / "records" / "pacs")
    assert record.scenario.lock == ""
    name = told(record)
    assert name.startswith("pacs-4t:")
    newer = msgspec.structs.replace(record, scenario=msgspec.structs.replace(record.scenario, lock=name))
    (table,) = leaderboard([newer])
    assert f"Split: {name}." in [text for _, text in table.footnotes]
    assert [run["scenario_lock"] for run in table.runs] == [name]


def test_a_source_is_hashed_once(scenario: Scenario) -> None:
    """A lock reads no sample: all that it needs is known once the scenario is built."""

    class Counted(Pixels):
        reads = 0

        def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor:
            Counted.reads += 1
            return super().__getitem__(rows)

    source = Counted(torch.zeros(4, 3, 2, 2, dtype=torch.uint8))
    labels = torch.tensor([0, 0, 1, 1])
    whole = Samples(source, torch.arange(4), labels)
    part = Experience(train=whole, test=whole, classes=(0, 1))
    built = Scenario(name="x", version=1, family="class-il", experiences=(part,), class_names=("a", "b"))
    before = Counted.reads
    lock_of(built)
    assert Counted.reads == before
