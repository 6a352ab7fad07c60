"""`bench rerun`: a record repeated from itself, and what is said of what is equal."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchmark
from benchmark import Job, records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_DATA, EXIT_FAILED, EXIT_OK, EXIT_USAGE, DataMissing, UsageError
from benchmark.records import comparison, predictions
from benchmark.run import rerun
from benchmark.run.plan import resolve

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """A record whose options, seeds and preset are not those of today's track."""
    job = Job(
        scenario="toy",
        method="toy-linear",
        seed=3,
        init_seed=5,
        settings={"epochs": "1", "batch_size": "7", "engine.eval_batch_size": "5", "engine.save_logits": "true"},
        preset="glyph32",
        device="cpu",
        out=str(tmp_path_factory.mktemp("made")),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(session_cache))
        return benchmark.run_job(job)


def where(out: Path, **changes: Any) -> rerun.Where:
    return rerun.Where(**{"out": str(out), **changes})


def altered(made: Path, **changes: Any) -> records.Record:
    content = records.plain(records.read(made))
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            content[part][name] = value
        else:
            content[part] = value
    return records.parse(content)


def test_the_repetition_is_equal_bit_for_bit(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", str(made), "--compare", "--out", str(tmp_path), "-q"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "toy-linear on toy, seed 3: equal bit for bit" in shown
    assert "DIFFERS" not in shown
    (again,) = tmp_path.rglob("*.json")
    assert again.name == made.name, "the same identity"
    one, other = records.read(made), records.read(again)
    assert other.inputs.facts["preset"] == "glyph32"
    assert other.config.effective == one.config.effective
    assert other.config.origin["method.batch_size"] == "the record"
    assert "method.lr" not in other.config.given, "what is the track's is not set"
    parts = comparison.compare(
        one, other, old_file=made.with_suffix(".parquet"), new_file=again.with_suffix(".parquet")
    )
    assert [part for part in parts if part.equal is False] == []  # a wheel knows no commit


def test_a_path_or_the_beginning_of_an_id_names_the_record(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rerun", made.stem[:8], "--results", str(made.parents[2]), "--out", str(tmp_path), "-q", "--json"]
    assert main(words) == EXIT_OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict"] == "equal bit for bit"
    assert facts["new_options"] == {}
    assert main(["rerun", "nothing", "--results", str(made.parents[2])]) == EXIT_USAGE
    assert main(["rerun", str(tmp_path / "none.json")]) == EXIT_USAGE


def test_a_record_is_never_written_over(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = made.read_bytes()
    assert main(["rerun", str(made), "--out", str(made.parents[2])]) == EXIT_USAGE
    assert "would be written over" in capsys.readouterr().err
    assert made.read_bytes() == before


def test_a_result_that_differs_is_said_and_is_an_exit_code(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = records.plain(records.read(made))
    content["accuracy"][0][0] = 0.123
    content["metrics"]["final_avg_acc"] += 0.01
    content["losses"][0][0] = {name: value + 1 for name, value in content["losses"][0][0].items()}
    path = tmp_path / "old" / made.name
    records.write(path, content)
    words = ["rerun", str(path), "--out", str(tmp_path / "new"), "-q"]
    assert main([*words, "--compare"]) == EXIT_FAILED
    shown = capsys.readouterr().out
    assert "accuracy          DIFFERS  1 of " in shown
    assert "final_avg_acc: " in shown
    assert ", -0.01" in shown
    assert "losses            DIFFERS  differ by" in shown
    assert main(words) == EXIT_OK, "without --compare it is only said"
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"backbone__sha256": "0" * 64}, "the weights are .*, the record's 00000000"),
        ({"scenario__content": "1" * 64}, "what the data decode to is .*, the record's 11111111"),
        ({"scenario__fingerprint": "2" * 64}, "the split is .*, the record's 22222222"),
        ({"scenario__version": 9}, r"the scenario is version \d, the record's 9"),
    ],
)
def test_other_data_or_weights_are_refused_before_training(
    made: Path, tmp_path: Path, changes: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(DataMissing, match=wrong):
        rerun.rerun(altered(made, **changes), where(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_what_a_record_cannot_bring_is_asked_for(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="somebody's own, folder:birds-1a2b3c4d: where are they") as caught:
        rerun.job_of(altered(made, scenario__name="folder:birds-1a2b3c4d"), where(tmp_path))
    assert "--scenario folder:PATH" in str(caught.value.hint)
    own = altered(made, backbone__own_weights=True, backbone__name="custom:mine-1a2b3c4d")
    with pytest.raises(UsageError, match="weights of somebody's own"):
        rerun.job_of(own, where(tmp_path))
    job = rerun.job_of(own, where(tmp_path, weights="/w.pt", backbone="nano-vit"))
    assert (job.weights, job.backbone) == ("/w.pt", "nano-vit")
    told = altered(made, backbone__own_weights=True, backbone__architecture="nano-vit")
    assert rerun.job_of(told, where(tmp_path, weights="/w.pt")).backbone == "nano-vit"
    with pytest.raises(UsageError, match="is failed: there is no result"):
        rerun.job_of(altered(made, status="failed"), where(tmp_path))


def test_options_that_there_are_not_any_more_are_refused(made: Path, tmp_path: Path) -> None:
    effective = records.plain(records.read(made))["config"]["effective"]
    effective["method"]["momentum_of_old"] = 3
    content = records.plain(records.read(made))
    content["config"]["effective"] = effective
    with pytest.raises(UsageError, match="momentum_of_old"):
        rerun.job_of(records.parse(content), where(tmp_path))


def test_options_that_are_new_have_their_defaults_and_are_told(made: Path, tmp_path: Path) -> None:
    content = records.plain(records.read(made))
    del content["config"]["effective"]["engine"]["select"]
    record = records.parse(content)
    job = rerun.job_of(record, where(tmp_path))
    assert rerun.defaults_since(record, resolve(job)) == {"engine.select": "last"}


def test_a_preset_is_checked_as_any_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown input preset `glyph33`"):
        resolve(Job(scenario="toy", method="toy-linear", preset="glyph33"))
    with pytest.raises(UsageError, match="holds no images"):
        resolve(Job(scenario="split-topics", method="lm-head", preset="glyph32"))


def test_committed_records_can_be_planned() -> None:
    """One of every fourth method and recipe: options, recipes and presets of all records are known to this version."""
    root = Path(__file__).parents[2] / "results" / "records"
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.json"), reverse=True):
        found.setdefault(path.parts[-2], path)
    assert len(found) > 50
    some = [found[name] for name in sorted(found)][::4]
    presets = set()
    with registry.remembered():
        for path in some:
            record = records.read(path)
            if ":" not in record.scenario.name and record.evaluated_on == "test":
                job = rerun.job_of(record, where(Path("x")))
                presets.add(job.preset)
    assert "glyph32" in presets, "records of the first preset are repeated with it"


def test_threads_are_those_of_the_record_for_the_time_being() -> None:
    before = torch.get_num_threads()
    with rerun.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with rerun.threads(0):
        assert torch.get_num_threads() == before


def test_single_predictions_are_compared_in_any_order(made: Path, tmp_path: Path) -> None:
    old = records.read(made)
    table = predictions.read(made.with_suffix(".parquet"))
    turned = table._rows(np.ones(len(table), dtype=bool))
    values = {name: getattr(turned, name) for name in turned.__dataclass_fields__}
    values = {name: None if value is None else value[::-1].copy() for name, value in values.items()}
    values["prediction"][0] += 1
    predictions.write(tmp_path / "new.parquet", predictions.Predictions(**values))
    content = copy.deepcopy(records.plain(old))
    content["predictions"]["sha256"] = "0" * 64
    parts = comparison.compare(
        old, records.parse(content), old_file=made.with_suffix(".parquet"), new_file=tmp_path / "new.parquet"
    )
    by_name = {part.name: part for part in parts}
    assert by_name["predictions"].equal is False
    assert by_name["predictions"].detail.startswith(f"{len(table) - 1:,} of {len(table):,} equal")
    assert comparison.verdict(parts) == "different predictions; equal accuracy, metrics, losses"
    assert not comparison.reproduced(parts)
    gone = comparison.compare(old, old, old_file=tmp_path / "none.parquet", new_file=tmp_path / "new.parquet")
    assert {part.name: part.equal for part in gone}["predictions"] is None


def test_what_another_processor_makes_of_the_same_sums_is_nearly_equal(made: Path) -> None:
    new = records.read(made)
    content = records.plain(new)
    content["metrics"]["ece"] += 1e-8
    content["losses"][0][0] = {name: value * (1 + 1e-7) for name, value in content["losses"][0][0].items()}
    content["predictions"]["sha256"] = "0" * 64
    parts = comparison.compare(records.parse(content), new)
    assert {part.name for part in parts if part.near} == {"metrics", "losses"}
    assert comparison.verdict(parts) == (
        "equal accuracy; equal within 1e-06 metrics, losses; single predictions are not compared"
    )
    assert comparison.reproduced(parts)
    content["metrics"]["ece"] += 1e-3
    assert not comparison.reproduced(comparison.compare(records.parse(content), new))


def test_a_column_that_older_versions_did_not_write_is_no_difference(made: Path, tmp_path: Path) -> None:
    new = records.read(made)
    table = replace(predictions.read(made.with_suffix(".parquet")), prediction_in_task=None, logits=None)
    more = replace(table, prediction_in_task=np.zeros(len(table), dtype=np.int32))
    predictions.write(tmp_path / "old.parquet", table)
    predictions.write(tmp_path / "new.parquet", more)
    content = records.plain(new)
    content["predictions"]["sha256"] = benchmark.files.sha256(tmp_path / "old.parquet")
    parts = comparison.compare(records.parse(content), new, new_file=tmp_path / "new.parquet")
    (file,) = [part for part in parts if part.name == "predictions file"]
    assert file.equal
    assert "prediction_in_task" in file.detail


def test_machines_and_code_that_differ_are_told(made: Path) -> None:
    old = altered(
        made,
        identity={"engine": 0, "code": "1" * 64},
        provenance__threads=7,
        provenance__packages={"torch": "1.0", "gone": "2"},
        provenance__git_commit="a" * 40,
        run_id="0" * 16,
    )
    parts = {part.name: part for part in comparison.compare(old, records.read(made))}
    assert parts["code"].detail.startswith("11111111 is now ")
    assert parts["engine"].equal is None
    assert parts["threads"].detail.startswith("7 is now ")
    assert parts["versions"].detail.startswith("torch 1.0 is now ")
    assert not parts["run id"].equal
    assert comparison.reproduced(list(parts.values())), "no result is known to differ"


def test_data_missing_is_an_exit_code(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "old" / made.name
    records.write(path, altered(made, backbone__sha256="0" * 64))
    assert main(["rerun", str(path), "--out", str(tmp_path / "new"), "-q"]) == EXIT_DATA
