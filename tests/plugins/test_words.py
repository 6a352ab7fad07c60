"""A stranger's package that reads texts: a scenario of sentences and a bag of words, on the road of the built-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark import records

WORDS = Path(__file__).parent / "bench-words"
RUN = (
    "bench",
    "run",
    "-q",
    "--scenario",
    "toy-sentences",
    "--method",
    "bag-of-words",
    "--set",
    "engine.checkpoint_seconds=0",
)
STOPS_IN_THE_MIDDLE = """
from benchmark import hookimpl

@hookimpl
def bench_epoch_ended(event):
    if event.experience == 1 and event.epoch == 0:
        raise KeyboardInterrupt
"""


@pytest.fixture(scope="module")
def words(stranger: Callable[..., Any], install: Callable[[Path], None]) -> Callable[..., Any]:
    install(WORDS)
    return stranger


def test_texts_go_the_road_of_images(words: Callable[..., Any], tmp_path: Path) -> None:
    listing = json.loads(words("bench", "list", "--json").stdout)
    for kind, name in (("methods", "bag-of-words"), ("scenarios", "toy-sentences")):
        assert {row["name"]: row["distribution"] for row in listing[kind]}[name] == "bench-words 0.1.0"
    words(*RUN, "--out", "runs", cwd=tmp_path)
    (path,) = (tmp_path / "runs").rglob("*.json")
    record = records.read(path)
    assert record["status"] == "completed"
    assert (record["inputs"]["kind"], record["inputs"]["facts"]) == ("text", {})
    assert (record["backbone"]["name"], record["backbone"]["parameters"]) == ("none", 0)
    assert record["accuracy"][0][0] > 0.8
    table = words("bench", "leaderboard", "--results", "runs", cwd=tmp_path).stdout
    assert "bag-of-words" in table
    refused = words("bench", "run", "--scenario", "toy-sentences", "--method", "finetune", cwd=tmp_path, code=2).stderr
    assert (
        "method `finetune` does not run on `toy-sentences/2x2`: it reads images, and the scenario holds texts"
        in refused
    )
    drawn = words("bench", "info", "toy-sentences", "--show", "sheet.png", cwd=tmp_path, code=2).stderr
    assert "`toy-sentences/2x2` holds texts, no images" in drawn
    given = words(*RUN, "--backbone", "nano-vit", cwd=tmp_path, code=2).stderr
    assert "--backbone: method `bag-of-words` has no pretrained model" in given


def test_a_run_on_texts_that_was_killed_goes_on_as_if_it_had_not_been(
    words: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "stops.py").write_text(STOPS_IN_THE_MIDDLE, encoding="utf-8")
    stopped = words(*RUN, "-p", "stops.py", "--out", "runs", cwd=tmp_path, code=130)
    assert "resume with" in stopped.stderr
    words(*RUN, "--out", "runs", cwd=tmp_path)
    words(*RUN, "--out", "other", cwd=tmp_path)
    (resumed,), (whole,) = ([*(tmp_path / folder).rglob("*.json")] for folder in ("runs", "other"))
    assert records.read(resumed)["timing"]["resumed"] == 1
    one, two = (records.comparable(records.read(path)) for path in (resumed, whole))
    assert one == two
    assert resumed.with_suffix(".parquet").read_bytes() == whole.with_suffix(".parquet").read_bytes()


def test_a_strangers_method_on_a_language_model(words: Callable[..., Any], tmp_path: Path) -> None:
    """With the bundled masked model of the track, with a causal one, and on no image."""
    run = (*RUN[:-3], "mean-state", "--out", "runs")
    words(*run, cwd=tmp_path)
    words(*run, "--backbone", "nano-lm", cwd=tmp_path)
    found = {record["backbone"]["name"]: record for record in map(records.read, (tmp_path / "runs").rglob("*.json"))}
    assert set(found) == {"nano-mlm", "nano-lm"}
    for record in found.values():
        assert record["accuracy"][0][0] > 0.6  # of two classes; some of the words are not the models'
        assert len(record["inputs"]["facts"]["tokenizer_sha256"]) == 64
    refused = words(*run, "--backbone", "nano-vit", cwd=tmp_path, code=2).stderr
    assert "reads texts, but `nano-vit` is a vision backbone" in refused


def test_texts_pass_the_contract(words: Callable[..., Any]) -> None:
    done = words("bench", "check", "bag-of-words", "mean-state", "toy-sentences", "--json")
    results = {row["check"]: row["result"] for part in json.loads(done.stdout) for row in part["checks"]}
    assert "fail" not in results.values()
    assert results["resume"] == results["batch"] == results["no-images-kept"] == results["images"] == "pass"
