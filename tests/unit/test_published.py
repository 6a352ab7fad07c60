"""Published figures: complete rows, known keys."""

from __future__ import annotations

import pytest

from benchmark import published

KEYS = ("finetune", "linear-probe", "nearest-mean", "joint", "l2p")


@pytest.mark.parametrize("key", KEYS)
def test_every_figure_has_a_source_and_a_backbone(key: str) -> None:
    rows = published.rows(key)
    assert rows
    for row in rows:
        assert 0 < float(row["value"]) < 100
        assert row["std"] == "" or 0 <= float(row["std"]) < 10
        assert all(row[name] for name in ("row", "scenario", "backbone", "metric", "source"))
        assert "key" not in row


def test_the_papers_headline_is_there() -> None:
    first = published.rows("l2p")[0]
    assert (first["scenario"], first["value"], first["std"]) == ("split-cifar100/10x10", "83.83", "0.04")


def test_an_unknown_key_has_no_figures() -> None:
    assert published.rows("nothing") == []
