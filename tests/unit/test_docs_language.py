"""docs/language.md: its commands are understood, its method is the one that the outside package's test runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.errors import EXIT_OK

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
RUNS = [line for line in re.findall(r"^bench run .*$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("command", RUNS)
def test_command_is_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{star},it was the {word} number {number}"
        for star, word in (("1", "bad"), ("2", "good"))
        for number in range(8)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["stars,review", *rows]) + "\n", encoding="utf-8")
    assert main([*shlex.split(command)[1:], "--dry-run"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "method" in shown


def test_there_are_commands() -> None:
    assert len(RUNS) >= 4


def test_the_method_is_that_of_the_outside_package() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    package = ROOT / "tests" / "plugins" / "bench-words" / "bench_words" / "mean_state.py"
    assert code in package.read_text(encoding="utf-8")
