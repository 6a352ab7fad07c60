"""One name for a whole family of runs, and what is printed of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark import records
from benchmark.cli import main, summary
from benchmark.errors import EXIT_OK, EXIT_USAGE, UsageError
from benchmark.run.jobs import expand

GOLDEN = Path(__file__).parents[1] / "golden" / "records"
STYLES = ("ink", "chalk", "outline", "photo")
PAIRS = [f"glyphs-uda/{one}-{two}" for one in STYLES for two in STYLES if one != two]


def test_a_family_is_all_its_variants() -> None:
    assert expand(["glyphs-uda"], {}, {}) == PAIRS
    assert expand(["glyphs-uda/all"], {}, {}) == PAIRS
    assert expand(["glyphs-dg"], {}, {}) == [f"glyphs-dg/{style}" for style in ("ink", "chalk", "outline", "photo")]
    assert expand(["glyphs-few-shot"], {}, {}) == [f"glyphs-few-shot/{shots}" for shots in (1, 2, 4, 8, 16)]


def test_a_variant_that_was_chosen_stays_alone() -> None:
    assert expand(["glyphs-uda/ink-photo", "split-glyphs"], {}, {}) == ["glyphs-uda/ink-photo", "split-glyphs"]
    assert expand(["glyphs-uda"], {"scenario.pair": "ink-photo"}, {}) == ["glyphs-uda"]
    assert expand(["glyphs-uda"], {}, {"scenario": {"glyphs-uda": {"pair": "ink-photo"}}}) == ["glyphs-uda"]
    assert expand(["glyphs-uda"], {"scenario.train": "2"}, {}) == PAIRS
    assert len(expand(["glyphs-uda", "glyphs-uda/ink-photo"], {}, {})) == 12  # once each


def test_variants_that_do_not_belong_together() -> None:
    with pytest.raises(UsageError, match="do not belong together"):
        expand(["split-glyphs/all"], {}, {})


def test_the_command_runs_every_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--scenario", "glyphs-dg", "--method", "nearest-mean", "--out", str(tmp_path), "--device", "cpu"]
    small = ["--set", "scenario.train=1", "--set", "scenario.test=1", "-q"]
    assert main([*words, *small]) == EXIT_OK
    found, problems = records.read_all(tmp_path)
    assert not problems
    assert sorted(record["scenario"]["name"] for record in found) == sorted(expand(["glyphs-dg"], {}, {}))
    assert all(record["scenario"]["variant_option"] == "held_out" for record in found)
    capsys.readouterr()
    assert main(["run", "--scenario", "glyphs-dg/oil", "--method", "nearest-mean"]) == EXIT_USAGE
    assert "held_out: 'oil' is not a style" in capsys.readouterr().err


def test_info_lists_the_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "glyphs-uda"]) == EXIT_OK
    assert "ink-chalk, ink-outline, ink-photo" in capsys.readouterr().out


def adapted(**changes: Any) -> records.Record:
    record = records.plain(records.read(GOLDEN / f"v{records.SCHEMA}.json"))
    tests = [{"name": "target", "further": False}, {"name": "source", "further": True}]
    record["scenario"] |= {"family": "uda", "tests": tests}
    record["scenario"]["experiences"] = record["scenario"]["experiences"][:1]
    record["accuracy"], record["counts"] = [[0.625, 0.75]], [50, 50]
    record["metrics"] = {"final_avg_acc": 0.625, "target_acc": 0.625, "source_acc": 0.75, "mean_class_acc": 0.61}
    return records.parse(record | changes)


def test_the_summary_uses_the_words_of_the_family() -> None:
    shown = summary.render(adapted(), Path("r.json"), colour=False)
    assert "target accuracy                   62.50 %" in shown
    assert "source accuracy kept              75.00 %" in shown
    assert "mean accuracy per class           61.00 %" in shown
    assert "final average accuracy" not in shown
    assert " target source" in shown
    assert "model selection" not in shown
    chosen = {"rule": "target-oracle", "chosen": [3], "scores": [[0.1]], "facts": {}}
    assert "target-oracle: epoch 3" in summary.render(adapted(selection=chosen), Path("r.json"), colour=False)
