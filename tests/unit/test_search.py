"""The values of the tracks are those that the search found, and the search went far enough.

What is not so yet stands in ``results/search/open.json`` with its reason; nothing else may, so that the list shrinks.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark import registry
from benchmark.config import as_text, read_toml
from benchmark.tuning import trials
from benchmark.tuning.axes import Axis, axes
from benchmark.tuning.bracket import sides
from benchmark.tuning.trials import Trial, key

RESULTS = Path(__file__).resolve().parents[2] / "results"
SEARCH = RESULTS / "search"
GRIDS: dict[str, Any] = json.loads((SEARCH / "grids.json").read_text(encoding="utf-8"))
OPEN: dict[str, dict[str, dict[str, str]]] = json.loads((SEARCH / "open.json").read_text(encoding="utf-8"))
PARTS = [
    (track, part["stream"], method, grid)
    for track, parts in GRIDS.items()
    for part in parts
    for method, grid in part["grids"].items()
]
SEARCHES = [(track, method, grid) for track, _, method, grid in PARTS]
IDS = [f"{track} {method}" for track, method, _ in SEARCHES]


def found(track: str, method: str) -> list[Trial]:
    rows = trials.read(SEARCH / f"{track}.csv")
    return sorted((one for target, one in rows if target.method == method), key=lambda one: one.number)


def listed(method: str, grid: dict[str, list[Any]]) -> list[Axis]:
    config = registry.load_method(method).spec.config  # type: ignore[union-attr]
    texts = {name: [as_text(value) for value in values] for name, values in grid.items()}
    return axes(config, chosen={}, listed=texts, key=method)


def in_force(track: str, method: str, names: Any) -> dict[str, Any]:
    spec: Any = registry.load_method(method).spec
    defaults = spec.config()
    return {name: spec.tracks[track].get(name, getattr(defaults, name)) for name in names}


@pytest.mark.parametrize(("track", "method", "grid"), SEARCHES, ids=IDS)
def test_the_best_point_has_worse_neighbours(track: str, method: str, grid: dict[str, list[Any]]) -> None:
    left = [str(side) for side in sides(listed(method, grid), found(track, method))]
    reason = OPEN["not bracketed"].get(track, {}).get(method)
    assert bool(left) == bool(reason), f"{method} on {track}: open {left}, reason {reason!r}"


@pytest.mark.parametrize(("track", "method", "grid"), SEARCHES, ids=IDS)
def test_tracks_have_the_values_that_the_search_found(track: str, method: str, grid: dict[str, list[Any]]) -> None:
    """Or some that are worse by no more than the standard error of the best one: the first ones stay."""
    spec: Any = registry.load_method(method).spec
    done = found(track, method)
    best, values = trials.best(done), in_force(track, method, grid)
    assert best is not None
    (own,) = [one for one in done if one.key == key(values)]
    worse = own.score < best.score - best.noise
    assert worse == (method in OPEN["other values are better"].get(track, {})), f"{values} {own.value}, {best}"
    assert "search" in spec.rule


def test_what_is_open_is_known_and_has_a_reason() -> None:
    for part in OPEN.values():
        for track, reasons in part.items():
            assert reasons.keys() <= {method for other, method, _ in SEARCHES if other == track}
            assert all(len(reason) > 10 for reason in reasons.values())
    assert set(OPEN) == {"not bracketed", "other values are better"}


def test_every_point_of_the_table_is_on_the_grid_or_beyond_it() -> None:
    for track, stream, method, grid in PARTS:
        rows = [(target, one) for target, one in trials.read(SEARCH / f"{track}.csv") if target.method == method]
        assert len({one.code for _, one in rows}) == 1, f"{method} on {track}: of different code"
        assert len({one.key for _, one in rows}) == len(rows), f"{method} on {track}: a point twice"
        for target, one in rows:
            assert set(one.point) == set(grid), method
            for name, values in grid.items():
                grown = len(values) > 1 and isinstance(values[0], (int, float))
                assert grown or one.point[name] in values, (track, method, one)
            options = json.dumps(stream["settings"], sort_keys=True)
            assert (target.track, target.scenario, target.options) == (track, stream["scenario"], options)
            assert (target.experiences, target.seeds) == (stream["experiences"], "0")
        points = {one.key for _, one in rows}
        axis = {name: len(values) for name, values in grid.items()}
        assert len(points) >= max(axis.values())


def test_presets_are_the_winners() -> None:
    files = sorted((SEARCH / "presets").glob("*/*.toml"))
    assert files
    for file in files:
        track, method = file.parent.name, file.stem
        best, preset = trials.best(found(track, method)), read_toml(file)
        assert best is not None
        assert preset["run"]["track"] == track
        values = preset["method"][method]
        assert {name: values[name] for name in best.point} == best.point, file


@pytest.fixture(scope="module")
def search() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search", RESULTS / "search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_search_of_a_track_is_a_command_that_plans(search: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.cli import main

    assert main([*search.command("nano", "linear-probe"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "linear-probe on split-glyphs, track nano, seed 0: final_avg_acc" in told
    assert "lr: 0.0003, 0.001, 0.003, 0.01, steps of factors" in told


def test_a_search_with_other_code_takes_the_place_of_the_old_one(search: ModuleType, tmp_path: Path) -> None:
    def row(method: str, number: int, code: str) -> tuple[trials.Target, Trial]:
        target = trials.Target(method=method, scenario="s", track="nano")
        return target, Trial(number=number, point={"lr": number}, value=0.5, samples=1, code=code)

    file = tmp_path / "log.csv"
    new = [row("b", 0, "2"), row("b", 1, "2")]
    file.write_text(trials.render([row("a", 0, "1"), row("b", 0, "1"), row("c", 0, "1"), *new]), encoding="utf-8")
    search.replace_old(file, "b")
    assert trials.read(file) == [row("a", 0, "1"), *new, row("c", 0, "1")]


@pytest.mark.slow
def test_a_committed_search_and_its_preset_are_made_again(
    search: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing: the same trials and the same preset.

    The last bits of another machine turn a sample or two of 120; half of a standard error is far more than that.
    """
    from benchmark.cli import main

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    method = "lm-head"
    words = search.command("nano", method)
    for option, place in {"--log": "log.csv", "--save": f"{method}.toml", "--out": "runs"}.items():
        words[words.index(option) + 1] = str(tmp_path / place)
    assert main([*words, "-q"]) == 0
    again = [one for _, one in trials.read(tmp_path / "log.csv")]
    committed = found("nano", method)
    assert [one.point for one in again] == [one.point for one in committed]
    for one, other in zip(again, committed, strict=True):
        assert one.value == pytest.approx(other.value, abs=other.noise / 2)
    preset = SEARCH / "presets" / "nano" / f"{method}.toml"
    assert read_toml(tmp_path / f"{method}.toml") == read_toml(preset)
