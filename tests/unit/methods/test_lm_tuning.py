"""Methods that tune a language model: what trains, steps of a plain loop, memories, what is refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import lm_bias, lm_finetune, lm_head, lm_joint, lm_lora, lm_replay, p_tuning_v2
from benchmark import records
from benchmark.api import Batch, Context, Manifest, Method, Scenario
from benchmark.backbones.language import LanguageModel
from benchmark.errors import UsageError
from benchmark.inputs.texts import TextPipeline
from benchmark.learners.language import HeadLearner
from benchmark.registry import Entry, Loaded
from benchmark.samples import Samples, Text
from benchmark.specs import MethodSpec
from benchmark.testing import by_hand
from benchmark.testing.laboratory import MethodSubject
from benchmark.testing.language import tiny_language
from benchmark.testing.toys import toy_scenario

pytestmark = pytest.mark.usefixtures("one_thread")


def spec_of(module: Any) -> MethodSpec:
    (found,) = module.bench_register_methods()
    assert isinstance(found, MethodSpec)
    return found


def make(
    module: Any, language: LanguageModel | None = None, scenario: Scenario | None = None, **options: Any
) -> Method:
    spec = spec_of(module)
    config = spec.config(**options)
    context = Context(
        pretrained=tiny_language() if language is None else language,
        device=torch.device("cpu"),
        scenario=stream() if scenario is None else scenario,
        pipeline=TextPipeline(),
        manifest=Manifest(spec.name, spec.uses_of(config)),
    )
    torch.manual_seed(0)
    return spec.build(config, context)


def stream(**options: Any) -> Scenario:
    return toy_scenario(kind="text", **{"experiences": 2, "classes": 2, "train": 8, "test": 4, **options})


def names(method: Method) -> set[str]:
    return {name for name, parameter in method.named_parameters() if parameter.requires_grad}


class TestWhatTrains:
    def test_all_that_a_classifier_reads(self) -> None:
        method = make(lm_finetune)
        found = names(method)
        base = {name for name, _ in method.named_parameters() if name.startswith("model.model.")}
        assert base <= found
        assert found - base == {"head.weight", "head.bias"}  # and no head over words

    def test_all_with_words(self) -> None:
        found = names(make(lm_finetune, readout="cloze"))
        assert {"model.decoder.bias", "model.head.dense.weight"} <= found
        assert not any(name.startswith("head.") for name in found)

    def test_the_encoder_of_an_encoder_decoder(self) -> None:
        found = names(make(lm_finetune, tiny_language("encoder-decoder")))
        assert not any(".decoder." in name for name in found)
        assert "model.encoder.block.0.layer.0.SelfAttention.q.weight" in found

    def test_biases(self) -> None:
        found = names(make(lm_bias)) - {"head.weight"}
        assert found
        assert all(name.endswith("bias") for name in found)
        assert "model.model.layers.0.attn.Wqkv.bias" in found

    def test_low_rank_changes(self) -> None:
        method = make(lm_lora, rank=3)
        assert {name.rpartition(".")[0] for name in names(method)} == {"changes.down", "changes.up", "head"}
        count = sum(parameter.numel() for name, parameter in method.named_parameters() if name.startswith("changes"))
        assert count == 2 * 2 * 3 * (24 + 24)  # layers, projections, rank, inputs and outputs

    @pytest.mark.parametrize("architecture", ["masked", "causal", "encoder-decoder"])
    @pytest.mark.parametrize("module", [lm_lora, p_tuning_v2, lm_finetune])
    def test_every_kind_of_model_learns(self, module: Any, architecture: Any) -> None:
        scenario = stream()
        small = {"length": 3} if module is p_tuning_v2 else {}
        method = make(module, tiny_language(architecture), scenario, lr=1e-2, epochs=4, batch_size=8, **small)
        before = copy.deepcopy(dict(method.named_parameters()))
        by_hand.learn(method, scenario, 0, steps=8)
        moved = dict(method.named_parameters())
        for name in names(method):
            if name in before and before[name].shape == moved[name].shape:
                assert not torch.equal(before[name], moved[name]), name


def test_dropout_of_the_model_acts_in_training_only() -> None:
    scenario = stream()
    with_dropout, without = make(lm_lora, scenario=scenario), make(lm_lora, scenario=scenario, dropout="off")
    batch = by_hand.batch_of(without, scenario, 0)
    tokens = without.language.batch(without.rows(batch.texts))  # type: ignore[union-attr, operator]
    for method in (with_dropout, without):
        by_hand.begin(method, scenario, 0)
    assert not torch.equal(with_dropout.scores(tokens), with_dropout.scores(tokens))  # type: ignore[operator]
    assert torch.equal(without.scores(tokens), without.scores(tokens))  # type: ignore[operator]


def plain_loop(language: LanguageModel, batches: Sequence[Batch], rows: Any, head: Any, *, lr: float) -> list[float]:
    """Fine-tuning of a classifier as anyone would write it, one text at a time, with torch's AdamW."""
    weights = [*language.model.base_model.parameters(), *head.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    losses = []
    for step, batch in enumerate(batches):
        states = []
        for row in rows(batch.texts):
            ids = torch.tensor([row.ids])
            states.append(language.model.base_model(input_ids=ids).last_hidden_state[:, 0])
        loss = F.cross_entropy(head(torch.cat(states)), batch.labels)
        for group in optimizer.param_groups:
            group["lr"] = lr * (len(batches) - step) / len(batches)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_full_fine_tuning_is_a_plain_loop() -> None:
    scenario = stream()
    method = make(lm_finetune, scenario=scenario, lr=1e-2, weight_decay=0.0, warmup=0.0, dropout="off", batch_size=8)
    method.double()
    by_hand.begin(method, scenario, 0)
    batches = [by_hand.at(by_hand.batch_of(method, scenario, 0, step), step, each=4) for step in range(4)]
    head = copy.deepcopy(method.head)  # type: ignore[arg-type]
    language = tiny_language()
    language.model.double()
    wanted = plain_loop(language, batches, method.rows, head, lr=1e-2)
    found = [float(method.train_step(batch)["loss"]) for batch in batches]
    assert found == pytest.approx(wanted, abs=1e-9)


def test_states_that_were_computed_before_are_those_of_the_batch() -> None:
    """The engine trains `lm-head` on kept states; the same head trained on every batch anew gets the same losses."""
    cached = spec_of(lm_head)
    fresh = dataclasses.replace(cached, build=HeadLearner)
    found = [
        MethodSubject(Loaded(spec, Entry("lm-head", "bench_methods.lm_head", "adaptbench"), "0" * 64), "default").run()
        for spec in (cached, fresh)
    ]
    one, two = ([epoch["loss"] for part in run.record["losses"] for epoch in part] for run in found)
    assert one == pytest.approx(two, abs=1e-6)
    assert torch.allclose(*(torch.from_numpy(run.predictions.logits) for run in found), atol=1e-5)
    assert records.plain(found[0].record)["inputs"]["shortened"] == {"train": [0, 0, 0], "test": [0, 0, 0]}


class TestReplay:
    def test_every_text_has_the_same_chance(self) -> None:
        scenario = stream(experiences=3, classes=1, train=20)
        kept = torch.zeros(3)
        torch.manual_seed(0)
        for _ in range(150):
            method = make(lm_replay, FAKE, scenario, memory=6)
            torch.manual_seed(int(torch.randint(10**6, ()) + kept.sum()))
            for index in range(3):
                method.end_experience(by_hand.view_of(method, scenario, index))
            assert len(method.texts) == 6  # type: ignore[arg-type]
            kept += torch.bincount(method.labels, minlength=3)  # type: ignore[arg-type]
        assert torch.allclose(kept / 150, torch.full((3,), 2.0), atol=0.3)

    def test_memory_holds_texts_with_their_labels_and_survives_a_restart(self) -> None:
        scenario = stream()
        method = make(lm_replay, scenario=scenario, memory=20)
        by_hand.learn(method, scenario, 0)
        train = scenario.experiences[0].train
        known = dict(zip([text["text"] for text in train.texts(slice(None))], train.labels.tolist(), strict=True))
        held = dict(zip([text["text"] for text in method.texts], method.labels.tolist(), strict=True))  # type: ignore
        assert held == known
        again = make(lm_replay, scenario=scenario, memory=20)
        again.load_extra_state(method.extra_state())
        assert again.texts == method.texts
        written = sum(len(value) for text in method.texts for value in text.values())  # type: ignore[union-attr]
        sizes = [tensor.numel() for tensor in method.kept_between_experiences() if tensor.dtype == torch.uint8]
        assert sizes == [written]

    def test_a_step_is_on_new_and_old_texts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scenario = stream()
        method = make(lm_replay, scenario=scenario, memory=20, replayed=5)
        seen: list[int] = []
        by_hand.begin(method, scenario, 0)
        loss = method.loss

        def watch(tokens: Any, labels: Tensor) -> Any:
            seen.append(len(labels))
            return loss(tokens, labels)  # type: ignore[operator]

        monkeypatch.setattr(method, "loss", watch)
        method.train_step(by_hand.batch_of(method, scenario, 0))
        method.end_experience(by_hand.view_of(method, scenario, 0))
        by_hand.begin(method, scenario, 1)
        method.train_step(by_hand.batch_of(method, scenario, 1))
        assert seen == [8, 13]

    def test_a_mask_over_classes_is_refused(self) -> None:
        with pytest.raises(ValueError, match="leaves out the classes of the memory"):
            lm_replay.LmReplayConfig(mask="current")


FAKE = tiny_language()  # of methods that never read it


class TestTexts:
    def test_long_ones_are_counted_and_read_from_their_start(self) -> None:
        subject = MethodSubject(
            Loaded(spec_of(lm_head), Entry("lm-head", "bench_methods.lm_head", "adaptbench"), "0" * 64), "default"
        )
        run = subject.run(config=subject.small("default", max_length=10, epochs=1))
        stream = subject.scenario()
        sets = [part.train for part in stream.experiences], [part.test for part in stream.experiences]

        def long(samples: Samples) -> int:
            # Two segments: [CLS] text [SEP] place [SEP]
            return sum(len(text["text"].split()) + 4 > 10 for text in samples.texts(slice(None)))

        wanted = {name: list(map(long, some)) for name, some in zip(("train", "test"), sets, strict=True)}
        assert records.plain(run.record)["inputs"]["shortened"] == wanted
        assert 0 < wanted["train"][0] < len(sets[0][0])
        method: Any = run.method
        text = {"text": "a thing1 in light3 it is . it is .", "place": "place0"}
        row = method.rows([text])[0]
        assert len(row) == 10
        start = {**text, "text": "a thing1 in light3 it is"}
        assert row.ids == method.rows([start])[0].ids

    @pytest.mark.parametrize("readout", ["head", "cloze"])
    def test_empty_ones_have_special_tokens(self, readout: str) -> None:
        scenario = stream()
        method: Any = make(lm_finetune, scenario=scenario, readout=readout)
        by_hand.begin(method, scenario, 0)
        method.eval()
        empty: Text = {"text": "", "place": " "}
        with torch.no_grad():
            both = method.predict([empty, {"text": "a thing1", "place": "place0"}])
            alone = method.predict([empty])
        assert torch.isfinite(both).all()
        assert torch.allclose(both[:1], alone, atol=1e-5)
        assert method.shortened([empty]) == 0


class TestRefusals:
    def test_words_of_several_tokens(self) -> None:
        method = make(lm_finetune, readout="cloze", words="thing0;it is")
        with pytest.raises(UsageError, match=r"word `it is` is 2 tokens \(it is\) for the tokenizer of tiny-masked"):
            by_hand.begin(method, stream(), 0)

    def test_unknown_words(self) -> None:
        method = make(lm_finetune, readout="cloze", words="thing0;nonsense")
        with pytest.raises(UsageError, match="word `nonsense` is unknown to the tokenizer"):
            by_hand.begin(method, stream(), 0)

    def test_labels_without_words(self) -> None:
        method = make(lm_finetune, readout="cloze", words="thing0")
        with pytest.raises(UsageError, match="names words of 1 classes, and 2 were seen"):
            by_hand.begin(method, stream(), 0)

    def test_words_of_an_encoder_decoder(self) -> None:
        with pytest.raises(UsageError, match="encoder-decoder, whose words are not asked for at a mask"):
            make(lm_finetune, tiny_language("encoder-decoder"), readout="cloze")

    def test_words_of_a_model_without_a_head_over_them(self) -> None:
        language = dataclasses.replace(tiny_language(), fills=False)
        with pytest.raises(UsageError, match="no pretrained head over words"):
            make(lm_finetune, language, readout="cloze")

    def test_biases_of_a_model_without_any(self) -> None:
        with pytest.raises(UsageError, match="`tiny-causal` has no biases that could be trained"):
            make(lm_bias, tiny_language("causal", biases=False))

    def test_a_prefix_as_long_as_the_context(self) -> None:
        with pytest.raises(UsageError, match="a prefix of 64 positions leaves no place in the 64 of tiny-masked"):
            make(p_tuning_v2, length=64)

    @pytest.mark.parametrize(
        ("module", "options", "message"),
        [
            (lm_finetune, {"readout": "cloze", "head_lr": 0.1}, "head_lr: 0.1 has no effect with readout `cloze`"),
            (lm_finetune, {"words": "bad;good"}, "words: 'bad;good' has no effect with readout `head`"),
            (lm_lora, {"targets": "qx"}, "targets: 'qx' is not made of different letters of qkv"),
            (lm_lora, {"rank": 0}, "rank: 0"),
            (p_tuning_v2, {"length": 0}, "length: 0"),
        ],
    )
    def test_options_without_meaning(self, module: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            spec_of(module).config(**options)


def test_joint_training_is_an_upper_bound_of_streams() -> None:
    assert spec_of(lm_joint).stream == "joint"
    assert spec_of(lm_replay).uses_of(lm_replay.LmReplayConfig()) == {"boundaries", "memory"}
    assert spec_of(lm_finetune).uses_of(lm_finetune.LmFinetuneConfig(readout="cloze")) == {"boundaries", "class_names"}
