"""Pages say what the code does: generated ones are fresh, the tutorial's commands and code run."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmark import hookspecs, registry
from benchmark.cli import COMMANDS, main
from benchmark.errors import EXIT_OK
from benchmark.specs import USES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "plugin-author.md").read_text(encoding="utf-8")
METHOD_PART, _, OTHER_PARTS = TUTORIAL.partition("## What a method may know")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["hooks.md", "cli.md", "methods.md", "scenarios.md", "records.md", "reference.md"])
def test_generated_page_is_fresh(page: str, generate: Any) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == generate.PAGES[page](), "run `python docs/generate.py`"


def test_every_hook_is_documented_with_its_signature(generate: Any) -> None:
    text = (DOCS / "hooks.md").read_text(encoding="utf-8")
    hooks = [value for name, value in vars(hookspecs).items() if name.startswith("bench_")]
    assert len(hooks) <= 19  # thirteen doors and six events (ADR 14)
    for hook in hooks:
        assert generate.signature(hook) in text
        assert "*New in" in text[text.index(f"## {hook.__name__}") :]
    assert all(f"`{use}`" in text for use in USES)


def test_every_command_is_documented() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert all(f"## bench {name}" in text for name in COMMANDS)


def test_links_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def cells(table: str) -> dict[str, str]:
    """The first figure of each row of a Markdown table; marks of footnotes and code are left out."""
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return {re.sub(r"<sup>.*?</sup>|`", "", row[0]).strip(): row[1].strip() for row in rows}


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_figures_of_the_first_page_are_those_of_the_committed_table(page: str) -> None:
    table = (ROOT / "results" / "leaderboards" / "nano.md").read_text(encoding="utf-8")
    (part,) = [part for part in table.split("\n## ") if part.startswith("split-glyphs/10x10 ")]
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = cells(text[text.index("(results/leaderboards/nano.md)") :])
    shown = {name: cell for name, cell in shown.items() if re.match(r"\d", cell)}
    assert len(shown) == 9
    assert shown.items() <= cells(part).items()


@pytest.mark.usefixtures("registry_as_it_was")
def test_tutorial_from_skeleton_to_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command and every edit of the first part, in order.

    pip is replaced by ``-p``: tests/plugins/test_stranger.py installs a skeleton for real.
    """
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "bench-mine" / "bench_mine" / "__init__.py"
    commands = [line.removeprefix("$ ") for block in blocks(METHOD_PART, "console") for line in block.splitlines()]
    assert commands[:2] == ["bench new-plugin mine", "python -m pip install -e bench-mine"]
    assert main(shlex.split(commands[0])[1:]) == EXIT_OK
    options, remember, loss, predict = blocks(METHOD_PART, "python")
    text = module.read_text(encoding="utf-8")
    old_loss = "        loss = F.cross_entropy(self.predict(batch.images), batch.labels)\n"
    for old, new in (
        ("    lr: float = 0.1\n", "    lr: float = 0.1\n" + options),
        ("lr=self.config.lr)\n", "lr=self.config.lr)\n" + remember),
        (old_loss, loss),
        ("        return self.head(cls_feature(self.backbone, images))\n", predict),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    module.write_text(text, encoding="utf-8")
    assert sum(len(block.splitlines()) for block in (options, remember, loss, predict)) <= 15
    registry.add_file(module)
    shown = {}
    for command in commands[2:]:
        program, *words = shlex.split(command)
        assert program == "bench"
        if words[0] == "check":  # the whole contract takes half a minute: tests/contract
            words += ["--only", "options,weights,undeclared,resume"]
        assert main(words) == EXIT_OK, command
        shown[words[0]] = capsys.readouterr().out
    assert "0 failed, 0 skipped" in shown["check"]
    assert re.search(r"^mine ", shown["leaderboard"], re.MULTILINE)
    assert "nearest-mean" in shown["leaderboard"]


@pytest.mark.usefixtures("registry_as_it_was")
def test_other_examples_register_what_they_say(tmp_path: Path) -> None:
    strategy, exporter, life_cycle, executor = blocks(OTHER_PARTS, "python")
    assert len(strategy.splitlines()) <= 20
    parts = {"strategy": strategy, "exporter": exporter, "life_cycle": life_cycle, "executor": executor}
    for name, code in parts.items():
        path = tmp_path / f"{name}.py"
        path.write_text(code, encoding="utf-8")
        registry.add_file(path)
    assert registry.load_exporter("short").export([]) == ""
    assert registry.load("executors", "by-seed").entry.distribution.endswith("executor.py")
    assert registry.life_cycle().hook.bench_experience_ended.get_hookimpls()
    from benchmark.testing import checks

    (result,) = checks.run_checks(checks.method_subject("smooth"), frozenset({"undeclared"}))
    assert result.result == "pass", result
    assert all(result.result != "fail" for result in checks.run_checks(checks.exporter_subject("short")))


def test_manifest_table_has_every_use() -> None:
    table = OTHER_PARTS[: OTHER_PARTS.index("- **Recipes**")]
    assert all(f"`{use}`" in table for use in USES)
