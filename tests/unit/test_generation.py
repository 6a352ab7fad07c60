"""Runs that generate: what reaches a method, what is refused, what is kept, and all of it through ``bench``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import records
from benchmark.api import Batch, Method, Samples, Scenario, Text
from benchmark.cli import main
from benchmark.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, BenchError, DataMissing, PluginError
from benchmark.records import predictions
from benchmark.run import engine, preparation
from benchmark.specs import MethodSpec
from benchmark.testing import toys
from benchmark.testing.checks import run_checks
from benchmark.testing.generation import TOY_WRITER, ToyWriter, toy_stream
from benchmark.testing.laboratory import MethodSubject, Outcome, manager
from benchmark.testing.subjects import method_subject


def spec(build: type[Method], **changes: Any) -> MethodSpec:
    return dataclasses.replace(TOY_WRITER, build=build, **changes)


def brief(subject: MethodSubject, scenario: Scenario | None = None) -> Outcome:
    return subject.run(subject.brief() if scenario is None else scenario)


@pytest.fixture(scope="module")
def subject() -> MethodSubject:
    return method_subject(TOY_WRITER)


def test_the_toy_writer_passes_the_contract(subject: MethodSubject) -> None:
    found = {result.check: result for result in run_checks(subject)}
    told = {name: result.message for name, result in found.items() if result.result != "pass"}
    assert told.pop("named") == "it does not declare `open_vocabulary`"
    assert set(told.values()) == {"it does not adapt to a stream of test batches"}


def test_it_learns_to_write(subject: MethodSubject) -> None:
    run = subject.baseline
    assert [run.record.accuracy[place][place] for place in (0, 1)] == [1.0, 1.0]
    values = run.record.metrics or {}
    assert values["forgetting"] > 0.5
    assert values["bleus"] == run.record.accuracy[-1]
    assert run.record.baseline is None
    assert all("loss_per_token" in terms for part in run.record.losses for terms in part)
    assert run.record.provenance.packages["sacrebleu"]
    found = run.predictions
    assert found.text is not None
    assert found.logits is None
    assert set(found.prediction.tolist()) == {-1}


class Nosy(ToyWriter):
    """Remembers what it is shown."""

    batches: list[Batch]
    shown: list[Text]

    def train_step(self, batch: Batch) -> Any:
        type(self).batches.append(batch)
        return super().train_step(batch)

    def generate(self, texts: Sequence[Text]) -> Sequence[str]:
        type(self).shown += texts
        return super().generate(texts)


def test_references_of_training_samples_are_shown_those_of_test_samples_never() -> None:
    Nosy.batches, Nosy.shown = [], []
    subject = method_subject(spec(Nosy))
    run = brief(subject)
    train = run.prepared.stream.scenario.experiences[0].train
    told = dict(zip((text["source"] for text in train.texts(slice(None))), train.references or (), strict=True))
    assert Nosy.batches
    for batch in Nosy.batches:
        assert batch.references == tuple(told[text["source"]] for text in batch.texts)
    assert {tuple(text) for text in Nosy.shown} == {("source",)}


def wrong(answer: Callable[[Sequence[Text]], Any]) -> type[ToyWriter]:
    class Wrong(ToyWriter):
        def generate(self, texts: Sequence[Text]) -> Any:
            return answer(texts)

    return Wrong


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: "one text", "`generate` returned 'one text' (str)"),
        (lambda texts: torch.zeros(len(texts)), "`generate` returned a Tensor"),
        (lambda texts: ["one", "too many"] * len(texts), "texts for"),
        (lambda texts: [None] * len(texts), "`generate` returned None"),
        (lambda texts: ["\ud800"] * len(texts), "half a character"),
        (lambda texts: [f"one of {len(texts)}"] * len(texts), "depends on the others of its batch"),
        (lambda texts: 1 / 0, "`generate` failed: ZeroDivisionError"),
    ],
)
def test_wrong_answers(answer: Callable[[Sequence[Text]], Any], message: str) -> None:
    with pytest.raises(BenchError, match=message.replace("(", r"\(").replace(")", r"\)")):
        brief(method_subject(spec(wrong(answer))))


def test_a_method_that_leaks_is_caught_by_the_contract_and_one_that_says_so_is_not() -> None:
    class Leaks(ToyWriter):
        """Every ninth text tells how large its batch was: the four probes of the engine miss it."""

        def generate(self, texts: Sequence[Text]) -> Sequence[str]:
            return [f"of {len(texts)}" if sum(map(ord, text["source"])) % 9 == 0 else "all alike" for text in texts]

    alone = [run_checks(method_subject(spec(Leaks)), frozenset({check})) for check in ("batch", "written")]
    found = {result.check: result for (result,) in alone}  # together the second one would be skipped
    assert {r.result for r in found.values()} == {"fail"}
    assert "differ: " in found["batch"].message
    assert found["batch"].message.endswith("texts")

    open_spec = spec(Leaks, uses=TOY_WRITER.uses | {"test_batch"})  # type: ignore[operator]
    (one,) = run_checks(method_subject(open_spec), frozenset({"batch"}))
    assert one.result == "skip"


def test_a_method_that_reads_test_references_is_caught() -> None:
    class Peeks(ToyWriter):
        """Looks its answers up in the frames of the engine: no view shows them."""

        def generate(self, texts: Sequence[Text]) -> Sequence[str]:
            import sys

            frame: Any = sys._getframe()
            while frame is not None and not isinstance(frame.f_locals.get("joined"), Samples):
                frame = frame.f_back
            if frame is None:
                return super().generate(texts)
            joined = frame.f_locals["joined"]
            sources = [text["source"] for text in joined.texts(torch.arange(len(joined)))]
            return [joined.references[sources.index(text["source"])][0] for text in texts]

    (found,) = run_checks(method_subject(spec(Peeks)), frozenset({"written"}))
    assert found.result == "fail"
    assert "with other references of test samples" in found.message


class Mute(Method):
    """Implements neither answer."""

    def train_step(self, batch: Batch) -> Any:
        return {"loss": 0.0}


def test_a_method_on_masked_models_is_told_that_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--set", "scenario.train=2", "--set", "scenario.test=2", "--out", str(tmp_path / "runs")]
    assert main(["run", "--scenario", "places-text", "--method", "pet", *few]) == EXIT_USAGE
    assert "it generates no texts" in capsys.readouterr().err


def test_who_is_refused_and_why() -> None:
    tables, things = toys.toy_scenario(family="generation"), toys.toy_scenario(kind="text")
    classifier = dataclasses.replace(TOY_WRITER, classifies=True, generates=False)
    uses: frozenset[str] = frozenset()
    assert preparation.refusal(TOY_WRITER, uses, tables) is None
    assert "it generates no texts" in str(preparation.refusal(classifier, uses, tables))
    assert "it generates texts and classifies nothing" in str(preparation.refusal(TOY_WRITER, uses, things))
    both = dataclasses.replace(TOY_WRITER, classifies=True)
    assert preparation.refusal(both, uses, tables) is preparation.refusal(both, uses, things) is None
    for mute, asked in ((spec(Mute), "generate"), (spec(Mute, classifies=True, generates=False), "predict")):
        with pytest.raises(PluginError, match="`build` returned a Mute") as caught:
            brief(method_subject(mute))
        assert f"no `{asked}`" in str(caught.value.hint)


def test_methods_without_an_answer_say_so() -> None:
    run = brief(method_subject(TOY_WRITER))
    with pytest.raises(NotImplementedError, match="ToyWriter does not classify"):
        run.method.predict([])
    with pytest.raises(NotImplementedError, match="ToyWriter generates no texts"):
        Method.generate(run.method, [])


def altered(change: Callable[[Samples], Samples]) -> Callable[[Any, Any], Scenario]:
    def build(config: Any, request: Any) -> Scenario:
        made = toy_stream("generation", 1, 4, 4, seed=0)
        (part,) = made.experiences
        return dataclasses.replace(made, experiences=(dataclasses.replace(part, test=change(part.test)),))

    return build


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda test: Samples(test.source, test.rows, test.labels, test.ids), "`test` has no `references`"),
        (
            lambda test: Samples(test.source, test.rows, test.labels + 1, test.ids, references=test.references),
            "has a label that is not one of 0..0",
        ),
    ],
)
def test_scenarios_that_cannot_be_scored(change: Callable[[Samples], Samples], message: str) -> None:
    loaded = method_subject(TOY_WRITER).prepare(toys.toy_scenario(family="generation")).plan.scenario
    broken = dataclasses.replace(loaded, spec=dataclasses.replace(toys.TOY_SCENARIO, build=altered(change)))
    places = {"data_root": None, "cache": Path(), "download": "never"}
    with pytest.raises(PluginError, match=message):
        preparation.make_scenario(broken, toys.ToyConfig(), places, seed=0)


def test_selection_takes_the_epoch_with_the_best_bleu(subject: MethodSubject, tmp_path: Path) -> None:
    prepared = subject.prepare(subject.scenario(experiences=1, train=40))
    plan = dataclasses.replace(
        prepared.plan, engine=dataclasses.replace(prepared.plan.engine, select="source-validation")
    )
    prepared = dataclasses.replace(prepared, plan=plan)
    path = engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    found = records.read(path).selection
    assert len(found.scores[0]) == 2
    assert found.scores[0][found.chosen[0] or 0] == max(found.scores[0]) > 0


# --- The file of predictions ----------------------------------------------------------------------


def made(experience: int = 0, count: int = 3) -> predictions.Predictions:
    return predictions.generated(
        experience,
        test_set=[0] * count,
        sample_id=range(count),
        label=[0] * count,
        text=["", "naïve 文", *["line\nbreak"] * (count - 2)],
        references=[["a", ""], ["b"], *[["c", "d", "e"]] * (count - 2)],
        inputs=[{"name": "Ä | : \ud800", "area": ""}] * count,
    )


def test_texts_survive_the_file(tmp_path: Path) -> None:
    joined = predictions.concat([made(), made(1, 4)])
    path = tmp_path / "run.parquet"
    predictions.write(path, joined)
    found = predictions.read(path)
    for name in ("text", "references", "input", "label", "prediction"):
        np.testing.assert_array_equal(getattr(found, name), getattr(joined, name))
    assert found.top5.shape == (7, 0)
    assert found.text is not None
    assert found.text[0] == ""
    assert found.input is not None
    assert predictions.fields(found.input[0]) == {"name": "Ä | : \ud800", "area": ""}
    assert found.after(1).references is not None
    assert found.after(1).references.tolist() == joined.references.tolist()[3:]  # type: ignore[union-attr]


def test_nulls_of_another_writer_are_empty_and_a_missing_column_is_damage(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "run.parquet"
    predictions.write(path, made())
    table = pq.read_table(path)
    place = table.column_names.index("text")
    pq.write_table(table.set_column(place, "text", pa.array([None, "b", "c"], pa.string())), path)
    found = predictions.read(path)
    assert found.text is not None
    assert found.text.tolist() == ["", "b", "c"]
    pq.write_table(table.drop_columns(["references"]), path)
    with pytest.raises(DataMissing, match="no column references"):
        predictions.read(path)


def test_texts_and_labels_cannot_be_joined() -> None:
    labels = predictions.table(0, test_set=[0], sample_id=[0], label=[0], prediction=[0], top5=[[0]], confidence=[1.0])
    with pytest.raises(ValueError, match="some parts have generated texts and some do not"):
        predictions.concat([made(), labels])
    with pytest.raises(ValueError, match="differ in length"):
        predictions.generated(
            0, test_set=[0], sample_id=[0], label=[0], text=["a", "b"], references=[["a"]], inputs=[{}]
        )


# --- Through the command line ----------------------------------------------------------------------

PLUGIN = """
from dataclasses import dataclass
from benchmark import ScenarioSpec, hookimpl
from benchmark.testing.generation import TOY_WRITER, toy_stream

@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    experiences: int = 2
    train: int = 16
    test: int = 6

def build(options, request):
    return toy_stream("generation", options.experiences, options.train, options.test, seed=0)

@hookimpl
def bench_register_scenarios():
    about = {"summary": "tables", "family": "generation", "tracks": {"nano": ""}}
    return [ScenarioSpec(name="toy", build=build, config=Options, **about)]

@hookimpl
def bench_register_methods():
    return [TOY_WRITER]
"""


def test_a_strangers_stream_of_tables_through_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "tables.py"
    plugin.write_text(PLUGIN)
    bench = ["-p", str(plugin)]
    runs = str(tmp_path / "runs")
    words = ["run", "--scenario", "toy", "--method", "toy-writer", "--seed", "0,1", "--out", runs]
    assert main([*bench, *words, "--set", "epochs=8"]) == EXIT_OK
    said = capsys.readouterr().out
    assert "BLEU, rows: after experience, columns: test set" in said
    assert "accuracy" not in said
    for word in ("BLEU  ", "chrF  ", "ROUGE-L  ", "slot error  ", "forgetting", "input      name : ", "output  "):
        assert word in said, word
    assert said.count("reference  ") == 2 * 3
    paths = sorted(Path(runs).rglob("*.json"))
    assert len(paths) == 2

    assert main([*bench, "metrics", str(paths[0])]) == EXIT_OK
    recomputed = capsys.readouterr()
    assert recomputed.err == ""
    assert "slot_error" in recomputed.out
    for form in ("markdown", "html", "latex", "csv", "json"):
        assert main([*bench, "leaderboard", "--results", runs, "--format", form]) == EXIT_OK
        table = capsys.readouterr().out
        assert "toy-writer" in table
        assert ("sacrebleu" in table) == (form != "csv")
    assert main([*bench, "leaderboard", "--results", runs]) == EXIT_OK
    table = capsys.readouterr().out
    for word in ("BLEU", "95 % over texts", "chrF", "ROUGE-L", "Slot error (%)", "tok:13a", "rouge-score"):
        assert word in table, word
    assert "acc." not in table

    refused = main([*bench, "run", "--scenario", "toy", "--method", "finetune", "--out", runs])
    assert refused == EXIT_USAGE
    assert "it reads images" in capsys.readouterr().err
    damaged = json.loads(paths[0].read_text())
    damaged["metrics"]["chrf"] += 0.1
    paths[0].write_text(json.dumps(damaged))
    assert main([*bench, "metrics", str(paths[0])]) == EXIT_FAILED
    assert "chrf is" in capsys.readouterr().err
