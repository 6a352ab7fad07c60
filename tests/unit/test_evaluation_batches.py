"""Which test samples are predicted together, and recipes that fix it as their official code does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark import records
from benchmark.jobs import Job
from benchmark.leaderboard.footnotes import row_facts
from benchmark.run import plan
from benchmark.run.rules import Rules


def rules(order: str, size: int, seed: int = 0) -> Rules:
    about: dict[str, Any] = {"name": "m", "uses": frozenset(), "pipeline": None, "device": torch.device("cpu")}
    return Rules(**about, seed=0, eval_seed=seed, batch_size=1, eval_batch_size=size, eval_order=order)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(1, 7),
    st.sampled_from(["shuffled", "natural", "by-experience"]),
)
def test_every_sample_is_predicted_once(lengths: list[int], size: int, order: str) -> None:
    batches = rules(order, size).test_batches(lengths)
    assert all(0 < len(batch) <= size for batch in batches)
    places = [place for batch in batches for place in batch.tolist()]
    assert sorted(places) == list(range(sum(lengths)))
    assert order == "shuffled" or places == sorted(places)
    if order == "by-experience":
        ends = [sum(lengths[:count]) for count in range(1, len(lengths) + 1)]
        for batch in batches:
            assert len({next(k for k, end in enumerate(ends) if place < end) for place in batch.tolist()}) == 1


@pytest.mark.parametrize(
    ("method", "size", "order", "origin"),
    [
        ("l2p@l2p-pytorch", 16, "by-experience", "recipe l2p-pytorch"),
        ("l2p@pilot", 16, "natural", "recipe pilot"),
        ("l2p", 256, "shuffled", "default"),
        ("dualprompt@mammoth", 128, "by-experience", "recipe mammoth"),
    ],
)
def test_recipes_that_read_the_test_batch_fix_it(method: str, size: int, order: str, origin: str) -> None:
    resolved = plan.resolve(Job(scenario="split-glyphs", method=method))
    assert (resolved.engine.eval_batch_size, resolved.engine.eval_order) == (size, order)
    assert resolved.origin["engine.eval_order"] == origin
    assert resolved.of_track()["engine"] == resolved.effective()["engine"]
    own = plan.resolve(Job(scenario="split-glyphs", method=method, settings={"engine.eval_batch_size": "7"}))
    assert own.engine.eval_batch_size == 7
    assert own.effective()["engine"]["eval_batch_size"] == 7
    assert own.of_track() == resolved.of_track()


def test_tables_say_what_is_predicted_together() -> None:
    made = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))
    made["method"]["uses"] = ["test_batch"]
    made["config"]["effective"]["engine"] |= {"eval_batch_size": 16, "eval_order": "by-experience"}
    told = row_facts([records.parse(made)])
    assert any("other test images (batches of 16, of one experience, in file order)" in fact for fact in told)
