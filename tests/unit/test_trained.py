"""Trained methods that runs have kept: the same answers as in their records, and words for all that can be missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import benchmark as bench
from benchmark import data, records
from benchmark.cli import main
from benchmark.errors import EXIT_DATA, EXIT_OK, EXIT_USAGE, BenchWarning, DataMissing, UsageError
from benchmark.records import predictions
from benchmark.results import TrainedModel
from benchmark.run import preparation, rerun, streams
from benchmark.run.jobs import plan_of
from benchmark.samples import Samples

pytestmark = pytest.mark.usefixtures("one_thread", "plugin_file")
PLUGIN = """
from benchmark import hookimpl
from benchmark.testing.toys import TOY_SCENARIO

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""
KEPT = {"engine.save_model": True, "engine.save_logits": True}
KINDS: dict[str, dict[str, Any]] = {
    "prompt pool": {"method": "l2p", "epochs": 1},
    "closed form": {"method": "ranpac"},
    "text of CLIP": {"method": "coop", "epochs": 1},
    "among names": {"method": "coop", "epochs": 1, "scenario.family": "base-to-new"},
    "head of a language model": {"method": "lm-head", "epochs": 1, "scenario.kind": "text"},
    "task known": {"method": "linear-probe", "engine.task_known": True},
    "whole network": {"method": "finetune", "epochs": 1},
    "writes": {"method": "lm-finetune", "backbone": "nano-lm", "epochs": 1, "scenario.family": "generation"},
}


def run(out: Path, *, method: str, epochs: int | None = None, backbone: str | None = None, **settings: Any) -> Path:
    options: dict[str, Any] = {"backbone": backbone} | ({} if epochs is None else {"epochs": epochs})
    chosen = {"scenario.train": 4, "scenario.test": 2, **KEPT, **settings}
    return bench.run(scenario="toy", method=method, settings=chosen, out=out, device="cpu", **options).paths[0]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, session_cache: Path, plugin_file: Any) -> Callable[[str], Path]:
    """The record of a kind of method, made when it is first asked for."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("BENCH_CACHE", str(session_cache))
                made[kind] = run(tmp_path_factory.mktemp("kept"), **KINDS[kind])
        return made[kind]

    return of


def sets_of(path: Path) -> list[Samples]:
    """The test sets of a run."""
    job = rerun.job_of(records.read(path), rerun.Where(out="none", device="cpu"))
    plan = plan_of(job)
    scenario, _ = preparation.build_scenario(plan, {"data_root": None, "cache": data.cache_root(), "download": "never"})
    if plan.engine.task_known:
        scenario = streams.with_task_known(scenario)
    return list(preparation.make_stream(plan, scenario).tests)


def samples_of(test: Samples) -> list[Any]:
    raw = test.read(slice(None))
    return list(raw.permute(0, 2, 3, 1).numpy()) if isinstance(raw, torch.Tensor) else [dict(one) for one in raw]


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_answers_as_its_record_says(kind: str, kept: Callable[[str], Path]) -> None:
    path = kept(kind)
    record, model = records.read(path), bench.load_model(kept(kind), device="cpu")
    found = predictions.read(path.with_suffix(".parquet"))
    last = len(record.scenario.experiences) - 1
    checked = 0
    for place, test in enumerate(sets_of(path)):
        rows = (found.experience == last) & (found.test_set == place)
        order = np.argsort([int(np.flatnonzero(test.ids == one)[0]) for one in found.sample_id[rows]])
        options: dict[str, Any] = {"experience": place} if kind == "task known" else {}
        labels = range(len(model.class_names))
        if kind == "among names" and place:  # classes that were never trained
            labels = range(len(model.class_names), len(model.class_names) * 2)
            options["names"] = [model._opened.scenario.class_names[label] for label in labels]
        answers = model.predict(samples_of(test), **options)
        checked += len(answers)
        if model.generates:
            assert [one.text for one in answers] == [found.text[rows][one] for one in order]  # type: ignore[index]
            continue
        names = model._opened.scenario.class_names
        assert [one.name for one in answers] == [names[label] for label in found.prediction[rows][order]]
        shares = [one.probabilities[0][1] for one in answers]
        np.testing.assert_allclose(shares, found.confidence[rows][order], rtol=1e-4)
    assert checked == (found.experience == last).sum()
    assert record.model is not None
    assert record.model.bytes == path.with_name(record.model.file).stat().st_size


def test_what_is_kept_is_what_differs_from_the_pretrained_model(kept: Callable[[str], Path]) -> None:
    sizes = {}
    for kind in ("closed form", "prompt pool", "whole network"):
        model = records.read(kept(kind)).model
        assert model is not None
        sizes[kind] = model.bytes
    trained = records.read(kept("whole network")).cost
    assert trained is not None
    assert sizes["whole network"] > 4 * (trained.params_trainable or 0)
    assert sizes["prompt pool"] < sizes["whole network"] / 5


def test_the_option_changes_neither_the_run_nor_its_numbers(
    tmp_path: Path, kept: Callable[[str], Path], recwarn: pytest.WarningsRecorder
) -> None:
    path = kept("task known")
    options = {**KINDS["task known"], "engine.save_model": False}
    plain = run(tmp_path, **options)
    assert plain.name == path.name
    ours, theirs = (records.comparable(records.read(one)) for one in (plain, path))
    assert {key for key in ours if ours[key] != theirs[key]} == {"config"}  # says what was asked for
    assert ours["config"]["effective"] == theirs["config"]["effective"]
    assert not plain.with_suffix(".safetensors").exists()
    with pytest.raises(UsageError, match="has kept no model") as caught:
        bench.load_model(plain)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(f"--out {tmp_path} --set engine.save_model=true")
    chosen = {"scenario.train": 10, "scenario.test": 2}
    arguments: dict[str, Any] = {"settings": chosen, "out": tmp_path / "held out", "device": "cpu", "validate": 1}
    (held_out,) = bench.run(scenario="toy", method="nearest-mean", **arguments).paths
    with pytest.raises(UsageError, match="has kept no model") as caught:
        bench.load_model(held_out)
    assert " --validate 1 " in str(caught.value.hint)
    assert not recwarn.list
    with pytest.warns(BenchWarning, match=r"its trained method was not kept .*: the run is done again"):
        run(tmp_path, **{**options, "engine.save_model": True})
    assert bench.load_model(plain).predict(samples_of(sets_of(plain)[0]), experience=0)


@pytest.fixture
def copy(tmp_path: Path, kept: Callable[[str], Path]) -> Path:
    """The record of a closed form, to be damaged."""
    path = kept("closed form")
    shutil.copytree(path.parents[2], tmp_path / "runs")
    return tmp_path / "runs" / path.relative_to(path.parents[2])


def change(path: Path, **parts: dict[str, Any]) -> None:
    content = json.loads(path.read_text())
    for name, values in parts.items():
        content[name].update(values)
    path.write_text(json.dumps(content))


def test_damage_is_told_and_never_an_answer(copy: Path) -> None:
    file = copy.with_suffix(".safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataMissing, match="is damaged: its bytes are not those that the record names"):
        bench.load_model(copy)
    file.unlink()
    with pytest.raises(DataMissing, match="cannot be read: No such file"):
        bench.load_model(copy)


def test_other_weights_are_refused_and_other_code_is_told(copy: Path) -> None:
    code = json.loads(copy.read_text())["identity"]["code"]
    change(copy, identity={"code": "0" * 64})
    with pytest.warns(BenchWarning, match="the code of method `ranpac` is .*, that of the run was 00000000"):
        bench.load_model(copy)
    change(copy, identity={"code": code}, backbone={"sha256": "1" * 64})
    with pytest.raises(DataMissing, match="the run's were 11111111: the model does not fit them"):
        bench.load_model(copy)


@pytest.mark.parametrize(
    ("kind", "samples", "options", "problem"),
    [
        ("closed form", [], {}, "there is none"),
        ("closed form", "image.png", {}, "a str is no list"),
        ("closed form", [np.zeros((4, 4))], {}, r"an image is a ndarray of float64, shape \(4, 4\)"),
        ("closed form", [np.zeros((4, 4, 3), np.uint8)], {"top": 0}, "top: 0 is no number"),
        ("closed form", [np.zeros((4, 4, 3), np.uint8)], {"names": ["a"]}, "knows its own classes"),
        ("closed form", [np.zeros((4, 4, 3), np.uint8)], {"experience": 0}, "is not told the experience"),
        ("task known", [np.zeros((4, 4, 3), np.uint8)], {}, "which one is meant"),
        ("task known", [np.zeros((4, 4, 3), np.uint8)], {"experience": 7}, "experience: 7 is none of this run"),
        ("head of a language model", [3], {}, "a int is no text"),
        ("head of a language model", [{"words": "x"}], {}, "a text has the fields words, not"),
        ("writes", ["x"], {"names": ["a"]}, "chooses among no classes"),
    ],
)
def test_what_does_not_fit_the_run_is_told(
    kind: str, samples: Any, options: dict[str, Any], problem: str, kept: Callable[[str], Path]
) -> None:
    model: TrainedModel = bench.load_model(kept(kind), device="cpu")
    with pytest.raises(UsageError, match=problem):
        model.predict(samples, **options)


def test_the_command_answers_for_files(
    tmp_path: Path, kept: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = kept("prompt pool")
    files = []
    for place, image in enumerate(samples_of(sets_of(path)[0])[:2]):
        files.append(str(tmp_path / f"{place}.png"))
        Image.fromarray(image).save(files[-1])
    expected = bench.load_model(path).predict(files, top=2)
    assert main(["predict", str(path), *files, "--top", "2", "--json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    assert [one["input"] for one in found] == files
    told = [[(part["name"], part["probability"]) for part in one["probabilities"]] for one in found]
    assert told == [list(one.probabilities) for one in expected]
    assert main(["predict", path.stem[:8], "--results", str(path.parents[2]), *files]) == EXIT_OK
    assert expected[0].name in capsys.readouterr().out
    (tmp_path / "bad.png").write_bytes(b"no image")
    for words, code, problem in (
        ([str(tmp_path / "bad.png")], EXIT_DATA, "is not a readable image"),
        ([str(tmp_path / "gone.png")], EXIT_DATA, "cannot be read: No such file"),
        ([str(tmp_path)], EXIT_USAGE, "is a folder"),
        ([], EXIT_USAGE, "there is nothing to predict"),
        (["--text", "x"], EXIT_USAGE, "the method of this run reads images"),
    ):
        assert main(["predict", str(path), *words]) == code
        assert problem in capsys.readouterr().err


def test_the_command_answers_for_texts(
    tmp_path: Path, kept: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = kept("head of a language model")
    texts = samples_of(sets_of(path)[0])[:2]
    expected = [one.name for one in bench.load_model(path).predict(texts)]
    lines = tmp_path / "texts.jsonl"
    lines.write_text("\n".join(map(json.dumps, texts)) + "\n")
    assert main(["predict", str(path), "--texts", str(lines), "--json"]) == EXIT_OK
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == expected
    assert main(["predict", str(path), "--text", json.dumps(texts[0])]) == EXIT_OK
    assert expected[0] in capsys.readouterr().out
    lines.write_text("{no")
    assert main(["predict", str(path), "--texts", str(lines)]) == EXIT_DATA
    assert f"{lines}:1: not valid JSON" in capsys.readouterr().err


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(compile(block.replace('"split-glyphs"', '"toy"'), "docs/models.md", "exec"), {})
    assert "<nearest-mean on toy, run " in (said := capsys.readouterr().out)
    assert "torch.Size([1, 4])" in said
