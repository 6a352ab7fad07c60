"""The skeleton that ``bench new-plugin`` writes; tests/plugins installs it and runs the contract."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cli.new_plugin import TARGETS, TEMPLATES
from benchmark.config import read_toml
from benchmark.errors import EXIT_OK, EXIT_USAGE


@pytest.mark.parametrize("kind", ["method", "scenario"])
def test_writes_a_package(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "deep-sea", "--kind", kind, "--dir", str(tmp_path)]) == EXIT_OK
    folder = tmp_path / "bench-deep-sea"
    shown = capsys.readouterr()
    assert len(shown.out.split()) == len(TARGETS)
    assert "bench check deep-sea" in shown.err
    project = read_toml(folder / "pyproject.toml")
    assert project["project"]["entry-points"][f"bench.{kind}s"] == {"deep-sea": "bench_deep_sea"}
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"@[A-Z]+@", text), f"{path} has an unfilled word"
            if path.suffix == ".py":
                ast.parse(text)
                assert max(map(len, text.splitlines())) <= 120
    assert "class TestDeepSea" in (folder / "tests" / "test_contract.py").read_text(encoding="utf-8")


def test_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "bench-mine" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    assert main(["new-plugin", "mine", "--dir", str(tmp_path)]) == EXIT_USAGE
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in kept.parent.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("name", ["Mine", "1st", "a_b", "a--b", "a/b", "", "-"])
def test_malformed_names(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "--dir", str(tmp_path), "--", name]) == EXIT_USAGE
    assert "cannot be the name of a plugin" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_name_of_an_installed_plugin_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "nearest-mean", "--dir", str(tmp_path)]) == EXIT_USAGE
    assert "exists already in `adaptbench" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["method", "scenario"])
def test_every_template_is_used(kind: str) -> None:
    assert {path.name for path in (TEMPLATES / kind).iterdir()} == set(TARGETS)
