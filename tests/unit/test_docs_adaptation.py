"""The plugin on the page about adaptation works as it is."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.run.options import TARGET_FREE, EngineConfig
from benchmark.testing import checks

PAGE = (Path(__file__).parents[2] / "docs" / "adaptation.md").read_text(encoding="utf-8")


pytestmark = pytest.mark.usefixtures("registry_as_it_was")


def test_the_plugin_passes_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "align.py"
    path.write_text(PAGE.split("```python\n")[1].split("```")[0], encoding="utf-8")
    registry.add_file(path)
    wanted = {"undeclared", "supports", "hidden-labels", "resume", "weights"}
    for result in checks.run_checks(checks.method_subject("align"), frozenset(wanted)):
        assert result.result == "pass", result


def test_every_rule_is_explained() -> None:
    rules = list(typing.get_args(typing.get_type_hints(EngineConfig)["select"]))
    assert rules == ["last", "source-validation", "target-oracle", *TARGET_FREE]
    assert all(f"`{rule}`" in PAGE for rule in rules)
