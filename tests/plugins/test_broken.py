"""A broken distribution never breaks the others, and is named."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import entry_points, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_PLUGIN, PluginError

BROKEN = Path(__file__).parent / "broken"
PROBLEMS = {
    "broken-import": "ModuleNotFoundError: No module named 'a_library_that_nobody_has'",
    "broken-exit": "SystemExit: a plugin must not do this",
    "broken-record": "returned a dict in its list",
    "broken-name": "registers `something-else`",
    "broken-hook": "unknown hook",
    "finetune": "is claimed by",
    "broken-scenario": "returned ScenarioSpec",
}


@pytest.fixture(autouse=True)
def _broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BROKEN))
    entry_points.read.cache_clear()
    yield
    monkeypatch.undo()
    entry_points.read.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("bench_broken")]:
        del sys.modules[name]


def test_list_works_and_warns_of_the_name_claimed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == EXIT_OK
    shown = capsys.readouterr()
    assert "nearest-mean" in shown.out
    assert "broken-import" in shown.out
    assert "warning: method `finetune` is claimed by" in shown.err
    assert "bench-broken 0.9" in shown.err
    assert re.search(r"^ +finetune +.*bench-broken 0\.9", shown.out, re.MULTILINE)
    assert re.search(r"^ +finetune +.*adaptbench ", shown.out, re.MULTILINE), "both owners are shown"
    assert "bench_broken" not in sys.modules, "`bench list` imports plugins"


@pytest.mark.parametrize("name", PROBLEMS)
def test_info_names_distribution_and_problem(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", name]) == EXIT_PLUGIN
    shown = capsys.readouterr().err
    assert "bench-broken 0.9" in shown
    assert PROBLEMS[name] in shown


def test_others_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nearest-mean"]) == EXIT_OK
    assert main(["run", "--scenario", "split-glyphs", "--method", "nearest-mean", "--dry-run"]) == EXIT_OK


def test_check_refuses_with_the_plugin_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "broken-import"]) == EXIT_PLUGIN
    assert "bench-broken 0.9" in capsys.readouterr().err


def test_hidden_plugins_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DISABLE_PLUGINS", "broken-import,broken-exit")
    names = registry.names("methods")
    assert "broken-import" not in names
    assert "broken-record" in names


def test_broken_life_cycle_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "bench_cycle-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-cycle\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[bench]\ncycle = bench_cycle_missing\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points.read.cache_clear()
    with pytest.raises(PluginError, match=r"`cycle` of `bench-cycle 0\.1` cannot be imported"):
        registry.life_cycle()
    left_out = []
    assert registry.life_cycle(lambda entry, error: left_out.append((entry, error.message))).get_plugins() == set()
    ((entry, message),) = left_out
    assert entry.distribution == "bench-cycle 0.1"
    assert "cannot be imported" in message


def test_doctor_names_every_broken_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.cli import doctor

    _, broken = doctor._plugins(deep=True)
    found = {item["plugin"].split()[1]: item for item in broken}
    assert set(PROBLEMS) <= set(found)
    assert all("bench-broken 0.9" in found[name]["distribution"] for name in PROBLEMS)


def test_doctor_sees_at_a_glance_what_is_not_there() -> None:
    from benchmark.cli import doctor

    _, broken = doctor._plugins(deep=False)
    found = {item["plugin"].split()[1]: item["problem"] for item in broken}
    assert "is claimed by" in found["finetune"]
    assert "returned ScenarioSpec" in found["broken-scenario"]
    assert "bench_broken.import_error" not in sys.modules, "a module that may import torch was imported"
