"""Names of scenarios, above all of libraries: ``name:PATH``, the user's own data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import records, registry
from benchmark.cli import main
from benchmark.run.requests import _scenarios
from benchmark.scenario_names import ScenarioName, base_of, tagged

pytestmark = pytest.mark.usefixtures("one_thread")

LINES = '''
"""lines: every line of a file is a class of its own, which a number of copies repeats."""
from dataclasses import dataclass

import torch

from benchmark import Samples, ScenarioSpec, hookimpl, splits
from benchmark.api import Scenario
from benchmark.errors import DataMissing
from benchmark.files import user_path


@dataclass(frozen=True, kw_only=True)
class Config:
    copies: int = 4


def build(config, request):
    try:
        lines = user_path(request.tag).read_text().splitlines()
    except OSError as error:
        raise DataMissing(f"{request.tag}: {error.strerror}") from error
    rows = torch.arange(len(lines) * config.copies)
    train, test = (
        Samples([{"text": text} for text in lines for _ in range(config.copies)], rows, rows // config.copies, rows + n)
        for n in (0, 1000)
    )
    order = splits.class_order("seed", len(lines), seed=request.seed)
    return Scenario.of(
        SPEC, config, version=1, experiences=splits.class_incremental(train, test, order, (len(lines),)),
        class_names=tuple(lines[label] for label in order), class_order=order,
    )


def example(folder):
    (folder / "colours.txt").write_text("red\\nblue\\n")
    return str(folder / "colours.txt")


SPEC = ScenarioSpec(
    name="lines", build=build, config=Config, summary="a class a line", family="class-il", tracks={"nano": ""},
    tag="FILE", example=example,
)


@hookimpl
def bench_register_scenarios():
    return [SPEC]
'''
BAG = Path(__file__).parents[1] / "plugins" / "bench-words" / "bench_words" / "bag.py"


@pytest.fixture(scope="module", autouse=True)
def _lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The library and a method that reads texts, as plugins."""
    path, before = tmp_path_factory.mktemp("plugins") / "lines.py", list(registry._files)
    path.write_text(LINES, encoding="utf-8")
    registry.add_file(path)
    registry.add_file(BAG)
    yield
    registry._files[:] = before


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(scenario: str, *more: str, code: int = 0) -> None:
    assert main(["run", "-q", "--scenario", scenario, "--method", "bag-of-words", "--device", "cpu", *more]) == code


def test_a_name_has_a_tag_or_a_variant() -> None:
    assert ScenarioName.parse("split-glyphs") == ScenarioName("split-glyphs")
    assert ScenarioName.parse("split-glyphs/10x10") == ScenarioName("split-glyphs", variant="10x10")
    assert ScenarioName.parse("texts:/data/mine.csv") == ScenarioName("texts", tag="/data/mine.csv")
    assert ScenarioName.parse("texts:C:/mine.csv") == ScenarioName("texts", tag="C:/mine.csv")
    assert base_of("texts:mine.csv-1a2b3c4d/10x10") == "texts"


def test_names_for_records_hold_no_place(tmp_path: Path) -> None:
    assert tagged("texts", str(tmp_path / "mine.csv")) == "texts:mine.csv"
    assert tagged("folder", f"{tmp_path}/my dogs/", "1a2b3c4d5e") == "folder:my_dogs-1a2b3c4d"
    assert tagged("folder", ".", "1a2b3c4d5e") == f"folder:{tmp_path.name}-1a2b3c4d"


def test_commas_go_on_with_the_path_before_them() -> None:
    assert _scenarios("lines:/a,b.txt,split-glyphs/50,50,lines:c") == [
        "lines:/a,b.txt",
        "split-glyphs/50,50",
        "lines:c",
    ]


def test_a_run_is_named_by_the_content_of_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, lines in (("one", "red\nblue\n"), ("two", "red\nblue\n"), ("three", "red\ngreen\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my,colours.txt").write_text(lines, encoding="utf-8")
        run(f"lines:{folder}/my,colours.txt")
    found = [records.read(path) for path in (tmp_path / "runs").rglob("*.json")]
    names = {record["scenario"]["name"] for record in found}
    assert len(found) == len(names) == 2  # "two" is known already
    for record in found:
        assert record["scenario"]["name"] == f"lines:my_colours.txt-{record['scenario']['content'][:8]}"
        assert record["scenario"]["options"] == {"copies": 4}
    assert {path.parents[1].name for path in (tmp_path / "runs").rglob("*.json")} == {
        name.replace(":", "-") for name in names
    }
    capsys.readouterr()
    assert main(["leaderboard", "--results", "runs", "--scenario", "lines"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in names)


def test_a_bare_setting_that_only_the_scenario_has_is_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "colours.txt").write_text("red\nblue\n", encoding="utf-8")
    run("lines:colours.txt", "--set", "copies=3", "--set", "epochs=2", "--dry-run", "--json")
    values = {row["key"]: (row["value"], row["origin"]) for row in json.loads(capsys.readouterr().out)[0]}
    assert values["scenario"][0] == "lines:colours.txt"
    assert values["scenario.copies"] == (3, "--set")
    assert values["method.epochs"] == (2, "--set")


@pytest.mark.parametrize(
    ("scenario", "code", "told"),
    [
        ("lines", 2, "scenario `lines` reads data of your own: which?"),
        ("split-glyphs:x", 2, "scenario `split-glyphs` is one data set, but `:x` was given"),
        ("lines:absent.txt", 4, "absent.txt: No such file or directory"),
    ],
)
def test_what_a_tag_cannot_be(scenario: str, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(scenario, code=code)
    assert told in capsys.readouterr().err


def test_a_library_is_checked_on_its_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "lines"]) == 0
    assert " 0 failed" in capsys.readouterr().out
    assert main(["info", "lines"]) == 0
    assert "lines:FILE" in capsys.readouterr().out
