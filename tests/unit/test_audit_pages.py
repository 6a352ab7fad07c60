"""The committed audit pages: one for every recipe that declares ``test_batch``, and the table of docs/auditing.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import pytest

from benchmark import registry
from benchmark.specs import MethodSpec

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "results" / "audits").glob("*.md")}
CLEAN = frozenset({"l2p"})
"""Audited to show what a clean page looks like."""
LEAK = re.compile(
    r"alone (?P<alone>[\d.]+) %, 128 shuffled (?P<shuffled>[\d.]+) %, 128 sorted (?P<sorted>[\d.]+) %: "
    r"leak (?P<leak>[+-][\d.]+) points; up to (?P<changed>[\d.]+)% of predictions differ"
)


def declared() -> set[str]:
    """Recipes that declare ``test_batch`` by choice; in test-time adaptation the batches are the protocol."""
    found = set()
    for name in registry.names("methods"):
        spec = cast("MethodSpec", registry.load_method(name).spec)
        for recipe, values in {spec.default_recipe: {}, **spec.recipes}.items():
            config = spec.config(**{**spec.tracks.get("nano", {}), **values})
            if "test_batch" in spec.uses_of(config) and not spec.adapts:
                found.add(f"{name}@{recipe}")
    return found


def verdicts(page: str) -> dict[str, tuple[str, str]]:
    """Verdict and finding by question."""
    rows = re.findall(r"^\| (.+?) \| \*\*(\w+)\*\* \| (.+) \|$", page, re.MULTILINE)
    return {question: (verdict, finding) for question, verdict, finding in rows}


def test_every_recipe_that_breaks_the_contract_on_purpose_has_a_page() -> None:
    assert set(PAGES) - CLEAN == declared()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_finds_what_its_recipe_declares_and_nothing_else(name: str) -> None:
    page = PAGES[name]
    assert page.startswith(f"# Audit of {name} on ")
    assert f"    bench audit {name} --scenario " in page
    told = verdicts(page)
    assert "found" not in {verdict for verdict, _ in told.values()}
    batches = next(value for question, value in told.items() if question.startswith("What does a test batch bring"))
    assert batches[0] == ("clean" if name in CLEAN else "declared")
    assert LEAK.fullmatch(batches[1].replace("\\", ""))


def test_the_table_of_the_docs_is_that_of_the_pages() -> None:
    text = (ROOT / "docs" / "auditing.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \|(.+)\|$", text, re.MULTILINE))
    assert set(rows) == set(PAGES)
    for name, cells in rows.items():
        told = verdicts(PAGES[name])
        found = next(value for question, value in told.items() if question.startswith("What does a test batch bring"))
        match = LEAK.fullmatch(found[1])
        assert match is not None
        assert [cell.strip() for cell in cells.split("|")] == [
            found[0],
            *(match[part] for part in ("alone", "shuffled", "sorted", "leak")),
            f"{match['changed']} %",
        ]
