"""Finding and loading plugins; broken distributions are in tests/plugins."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.errors import PluginError, UsageError

PLUGIN = """
from benchmark import ExporterSpec, hookimpl

@hookimpl
def bench_register_exporters():
    return [ExporterSpec(name="short", export=lambda tables: "", summary="from a file")]

@hookimpl
def bench_experience_ended(event):
    pass
"""


def write(folder: Path, text: str, name: str = "plugin.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_names_are_sorted_and_know_their_distribution() -> None:
    for kind in registry.KINDS:
        entries = registry.entries(kind)
        assert list(entries) == sorted(entries)
        assert all(claims[0].distribution for claims in entries.values())


def test_unknown_name_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown method `nearest-meen`") as caught:
        registry.load_method("nearest-meen")
    assert "did you mean `nearest-mean`" in str(caught.value.hint)


def test_file_plugin_joins_the_registry_once(tmp_path: Path) -> None:
    path = write(tmp_path, PLUGIN)
    registry.add_file(path)
    registry.add_file(path)
    assert "short" in registry.names("exporters")
    assert registry.load_exporter("short").summary == "from a file"
    assert any("bench_file_plugin" in str(plugin) for plugin in registry.life_cycle().get_plugins())


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    registry.add_file(write(tmp_path, PLUGIN, "one.py"))
    registry.add_file(write(tmp_path, PLUGIN, "two.py"))
    with pytest.raises(PluginError, match=r"claimed by .*one\.py.*two\.py"):
        registry.load_exporter("short")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.py: no such file"):
        registry.add_file(tmp_path / "none.py")
    with pytest.raises(PluginError, match="cannot be imported: ZeroDivisionError"):
        registry.add_file(write(tmp_path, "1 / 0"))


def test_misspelt_hook_in_a_life_cycle_plugin_is_an_error(tmp_path: Path) -> None:
    registry.add_file(write(tmp_path, PLUGIN.replace("bench_experience_ended", "bench_experience_endet"), "typo.py"))
    with pytest.raises(PluginError, match="bench_experience_endet"):
        registry.life_cycle()


def test_hidden_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DISABLE_PLUGINS", "nearest-mean, finetune")
    assert not {"nearest-mean", "finetune"} & set(registry.names("methods"))


def test_tracing_prints_hook_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_TRACE_PLUGINS", "1")
    registry.add_file(write(tmp_path, PLUGIN))
    registry.load_exporter("short")
    assert "bench_register_exporters" in capsys.readouterr().err


def test_code_hash_follows_the_source(tmp_path: Path) -> None:
    registry.add_file(write(tmp_path, PLUGIN))
    first = registry.load("exporters", "short").code_sha256
    registry._files.clear()
    registry.add_file(write(tmp_path, PLUGIN + "CHANGED = 1\n"))
    assert registry.load("exporters", "short").code_sha256 != first
    assert len(first) == 64


def test_entry_points_of_this_package_are_visible() -> None:
    groups = importlib.metadata.entry_points(group="bench.methods")
    assert {point.name for point in groups} <= set(registry.names("methods"))


def test_a_scenario_answers_to_its_alias() -> None:
    for name in registry.names("scenarios"):
        spec = registry.load_scenario(name).spec
        assert name == spec.name or name in spec.aliases  # type: ignore[union-attr]
