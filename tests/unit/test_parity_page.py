"""docs/parity.md is whole: every method has its row, and every recorded case is in a row or compared elsewhere."""

from __future__ import annotations

import collections
import runpy
from pathlib import Path
from typing import Any

from benchmark import registry

ROOT = Path(__file__).parents[2]
TOOL: dict[str, Any] = runpy.run_path(str(ROOT / "tests" / "parity.py"))
ELSEWHERE = {  # what the tests that compare these say of them is no deviation of an array
    ("domainbed_search", "hparams"): "test_domainbed_search.py",
    ("domainbed_search", "selection"): "test_domainbed_search.py",
    ("parameter_selection", "names"): "test_tuning_golden.py",
    ("pet", "bert_two_segments_many_words_lm"): "test_pet_golden.py",
    ("pet", "bert_yelp_full_p0"): "test_pet_golden.py",
    ("pet", "distil_wmean_T2"): "test_pet_golden.py",
    ("pet", "ipet_wmean"): "test_pet_golden.py",
    ("protocol", "schedules"): "test_optimizers.py",
    ("protocol", "vpt_optimizers"): "test_optimizers.py",
}


def rows(first: str) -> list[list[str]]:
    """The cells of the table whose first column has a title."""
    lines = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_every_method_has_its_row() -> None:
    assert [row[0] for row in rows("method")] == registry.names("methods")


def test_every_recorded_case_is_counted() -> None:
    recorded = set(TOOL["cases"]())
    assert set(ELSEWHERE) <= recorded
    counted: dict[str, int] = collections.Counter()
    for name, _, precision, count, *_ in rows("recorded from"):
        if precision == "float64":
            counted[name] += int(count)
    wanted = collections.Counter(method for method, case in recorded if (method, case) not in ELSEWHERE)
    assert counted == wanted


def test_a_method_is_restated_exactly_where_nothing_was_recorded() -> None:
    by_method: dict[str, int] = collections.Counter()
    for method, case in set(TOOL["cases"]()) - set(ELSEWHERE):
        for name in TOOL["ours"](method, case):
            by_method[name] += 1
    assert set(by_method) <= set(registry.names("methods"))
    for name, paper, ran, count, *numbers in rows("method"):
        assert paper == registry.load_method(name).spec.paper.replace("arXiv:", "arXiv ")
        assert int(count or 0) == by_method[name], name
        assert (ran == "no: restated") == (not by_method[name] and name not in TOOL["OWN"]), name
        assert any(numbers) == bool(by_method[name])


def test_tests_that_compare_elsewhere_are_there() -> None:
    there = {path.name for path in (ROOT / "tests" / "unit").rglob("test_*.py")}
    assert {*ELSEWHERE.values(), *TOOL["OWN"].values()} <= there
