from __future__ import annotations

import csv
import re
import sys
from typing import cast

import pytest

from benchmark import registry
from benchmark.leaderboard import published
from benchmark.leaderboard.bibliography import bibtex
from benchmark.specs import MethodSpec

L2P = """% finetune, l2p
@misc{wang2022learning,
  author        = {Wang and Zhang and Lee and Zhang and Sun and Ren and Su and Perot and Dy and Pfister},
  title         = {{Learning to Prompt for Continual Learning}},
  year          = {2022},
  note          = {CVPR 2022},
  eprint        = {2112.08654},
  archivePrefix = {arXiv},
}
"""
PAPERS = list(csv.DictReader(published.PAPERS.read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def ours() -> dict[str, tuple[str, str]]:
    """Id of the paper and header of every method of ours."""
    found = {}
    for name, (entry, *_) in registry.entries("methods").items():
        if entry.distribution.startswith("adaptbench "):
            spec = cast("MethodSpec", registry.load_method(name).spec)
            found[name] = spec.paper, " ".join((sys.modules[entry.module].__doc__ or "").split())
    return found


def test_one_entry_for_each_paper() -> None:
    text, without = bibtex({"l2p": "arXiv:2112.08654", "finetune": "arXiv:2112.08654", "naive": ""})
    assert (text, without) == (L2P, ["naive"])


def test_what_is_not_known_is_not_made_up() -> None:
    text, _ = bibtex({"new": "arXiv:2612.00001", "old": "10.1000/x_1"})
    assert "@misc{arxiv261200001,\n  eprint        = {2612.00001},\n  archivePrefix = {arXiv},\n}" in text
    assert "@misc{101000x1,\n  doi           = {10.1000/x_1},\n}" in text
    assert "author" not in text


def test_plugins_bring_entries_of_their_own() -> None:
    entry = "@inproceedings{me2026, title = {Mine}}"
    text, without = bibtex({"mine": "arXiv:2112.08654"}, {"mine": entry})
    assert text == f"% mine\n{entry}\n"
    assert not without


def test_keys_differ() -> None:
    papers = {str(place): f"doi:{name}" for place, name in enumerate(("a.1", "a1", "a-1"))}
    keys = re.findall(r"@misc\{(\w+),", bibtex(papers)[0])
    assert len(set(keys)) == 3


def test_a_listed_paper_is_stated_in_the_header_of_a_method(ours: dict[str, tuple[str, str]]) -> None:
    for row in PAPERS:
        headers = [header for paper, header in ours.values() if paper == row["paper"]]
        first, number = row["author"].split(" and ")[0], row["paper"].removeprefix("arXiv:")
        assert any(first in header and number in header for header in headers), row
        venue = row["venue"].removesuffix(" Workshops")
        if venue and number != "2103.00020":  # whose header names no venue
            assert any(venue in header for header in headers), row
            assert row["year"] in venue


def test_every_paper_and_name_of_ours_is_listed(ours: dict[str, tuple[str, str]]) -> None:
    assert {paper for paper, _ in ours.values() if paper and not published.paper(paper)} == set()
    assert ours.keys() == published.names().keys()
    ids = [row["paper"] for row in PAPERS]
    assert len(ids) == len(set(ids))
