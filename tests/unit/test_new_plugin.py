"""The skeleton that ``bench new-plugin`` writes; tests/plugins installs it and runs the contract."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmark import testing
from benchmark.cli import main
from benchmark.cli.new_plugin import GROUPS, TARGETS, TEMPLATES, USE, families, fill
from benchmark.config import read_toml
from benchmark.errors import EXIT_OK, EXIT_USAGE

KINDS = [(kind, family) for kind in GROUPS for family in families(kind) or [""]]


def test_no_two_templates_are_the_same_file() -> None:
    """A wheel that holds a file twice is refused by check-wheel-contents (tox -e pkg)."""
    files = [path for path in TEMPLATES.rglob("*") if path.is_file()]
    assert len({path.read_bytes() for path in files}) == len(files)


@pytest.mark.parametrize(("kind", "family"), KINDS)
def test_writes_a_package(kind: str, family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--family", family] if family else []
    assert main(["new-plugin", "deep-sea", "--kind", kind, "--dir", str(tmp_path), *more]) == EXIT_OK
    folder = tmp_path / "bench-deep-sea"
    shown = capsys.readouterr()
    assert len(shown.out.split()) == len(TARGETS)
    assert "bench check deep-sea" in shown.err
    project = read_toml(folder / "pyproject.toml")
    assert project["project"]["entry-points"][GROUPS[kind]] == {"deep-sea": "bench_deep_sea"}
    assert "\n    bench " in (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"@[A-Z]+@", text), f"{path} has an unfilled word"
            if path.suffix == ".py":
                ast.parse(text)
                assert max(map(len, text.splitlines())) <= 120
    contract = (folder / "tests" / "test_contract.py").read_text(encoding="utf-8")
    assert f"class TestDeepSea({kind.capitalize()}Contract):" in contract
    assert hasattr(testing, f"{kind.capitalize()}Contract")


def test_families(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert families("scenario") == ["class-il", "domain-il", "uda"]
    assert main(["new-plugin", "mine", "--family", "dg", "--dir", str(tmp_path)]) == EXIT_USAGE
    assert "use one of class-il, uda" in capsys.readouterr().err
    assert main(["new-plugin", "mine", "--kind", "plot", "--family", "uda", "--dir", str(tmp_path)]) == EXIT_USAGE
    assert "a plot is of no family" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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


def test_every_template_is_used() -> None:
    words = [{"KIND": kind, "FAMILY": f".{family}" if family else ""} for kind, family in KINDS]
    used = {fill(template, one) for one in words for template in (*TARGETS.values(), USE)}
    assert used == {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.tmpl")}
