"""What ``bench doctor`` finds, says and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import doctor, main
from benchmark.errors import EXIT_OK, EXIT_PLUGIN

HEALTHY: dict[str, Any] = {
    "broken": [],
    "weights": {"nano-vit": "found, SHA-256 as stated"},
    "disk": {"results": {"path": "runs", "free_bytes": 10**12, "writable": True}},
    "data": {"scenarios": {"split-glyphs": "found: 10 experiences"}},
    "device": {"default": "cuda"},
    "deep": True,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering and loading what is bundled have tests of their own."""
    monkeypatch.setattr(doctor, "_data", lambda given: {"root": "nowhere", "scenarios": {"far": "missing: no data"}})
    monkeypatch.setattr(doctor, "_weights", lambda deep: dict(HEALTHY["weights"]))


@pytest.mark.usefixtures("quick")
def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--out", str(tmp_path / "a" / "b")]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["adaptbench"] != "not installed"
    assert found["plugins"]["methods"]["found"] >= 10
    assert found["broken"] == []
    assert found["disk"]["results"]["free_bytes"] > 0
    assert not (tmp_path / "a").exists(), "doctor writes nothing"
    assert any("BENCH_DATA" in line and "far" in line for line in found["next"])
    assert main(["doctor"]) == EXIT_OK
    shown = capsys.readouterr().out
    for section in ("versions:", "plugins:", "data in nowhere:", "weights:", "disk:", "device:", "what to do next:"):
        assert section in shown


@pytest.mark.usefixtures("quick")
def test_broken_plugin_gives_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    item = {"plugin": "method bad", "distribution": "bench-bad 1.0", "problem": "ImportError: x"}
    monkeypatch.setattr(doctor, "_plugins", lambda deep: ({}, [item]))
    assert main(["doctor"]) == EXIT_PLUGIN
    shown = capsys.readouterr().out
    assert "broken: method bad of bench-bad 1.0: ImportError: x" in shown
    assert "fix or uninstall `bench-bad`" in shown


def test_data_of_every_scenario_is_looked_for(tmp_path: Path) -> None:
    found = doctor._data(tmp_path)
    assert found["root"] == str(tmp_path)
    assert found["scenarios"]["split-glyphs"] == "found: made by the suite"
    assert found["scenarios"]["folder"] == "found: reads folder:PATH"
    assert found["scenarios"]["split-cifar100"] == f"missing: CIFAR-100 not found below {tmp_path}"
    assert found["scenarios"]["split-cifar"] == "alias of split-cifar100"
    (tmp_path / "cifar100").mkdir()
    assert doctor._data(tmp_path)["scenarios"]["split-cifar100"] == "found: CIFAR-100"
    nowhere = doctor._data(tmp_path / "none")
    assert nowhere["root"].startswith("missing: ")
    assert nowhere["scenarios"]["split-cifar100"] == nowhere["root"]


def test_damaged_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench_backbones import bundled

    found = doctor._weights(deep=True)
    assert all("found" in text or "installed" in text for name, text in found.items() if name != "hub cache")
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path)
    assert doctor._weights(deep=True)["nano-vit"].startswith("damaged: ")


def test_nothing_heavy_is_imported_and_nothing_loaded(tmp_path: Path) -> None:
    """Two seconds: to import torch alone takes as long."""
    code = (
        "import sys; from benchmark.cli import main; code = main(['doctor', '--json'])\n"
        "heavy = {'torch', 'timm', 'transformers', 'avalanche', 'pandas', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == EXIT_OK, done.stderr
    found = json.loads(done.stdout)
    assert found["weights"]["nano-vit"] == "found, not loaded"
    assert found["plugins"]["methods"]["found"] >= 10
    assert found["device"]["default"] in ("cpu", "cuda")
    assert "--deep" in found["next"][-1]


@pytest.mark.parametrize(
    ("part", "value", "line"),
    [
        ("weights", {"x": "damaged: y"}, "weights of x are unusable"),
        ("disk", {"cache": {"path": "c", "free_bytes": 5, "writable": True}}, "little space left for the cache"),
        ("disk", {"results": {"path": "r", "free_bytes": 5, "writable": False}}, "r cannot be written"),
        ("device", {"default": "cpu"}, "no GPU"),
    ],
)
def test_next_steps(part: str, value: Any, line: str) -> None:
    assert doctor._next(HEALTHY) == ["try: bench run --scenario split-glyphs --method l2p"]
    assert line in doctor._next({**HEALTHY, part: value})[0]
