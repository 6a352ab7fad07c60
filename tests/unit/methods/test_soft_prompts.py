"""Vectors in the input of a language model: where they stand, what they start from, and what predictions share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench_methods import autoprompt, progressive_prompts, prompt_tuning
from bench_methods.progressive_prompts import ProgressivePrompts
from bench_methods.prompt_tuning import PromptTuning, PromptTuningConfig
from benchmark.api import Batch, ExperienceView, Scenario
from benchmark.backbones.language import LanguageModel
from benchmark.backbones.language.soft_prompts import initial
from benchmark.errors import DataMissing, UsageError
from benchmark.learners.targets import Targets, sequence_loss
from benchmark.optimizers import DecayLastAdamW
from benchmark.testing import text_methods
from benchmark.testing.by_hand import place
from benchmark.testing.language import tiny_language, toy_wording

pytestmark = pytest.mark.usefixtures("one_thread")
(AUTOPROMPT,) = autoprompt.bench_register_methods()
(TUNING,) = prompt_tuning.bench_register_methods()
(PROGRESSIVE,) = progressive_prompts.bench_register_methods()
TEXTS = [
    {"text": text} for text in ("a thing0 in light3", "thing1", "", "that stream has no other words", "a thing2 .")
]
LABELS = [0, 1, 0, 1, 1]
ARCHITECTURES = ("masked", "causal", "encoder-decoder")


def scenario_of(texts: Sequence[dict[str, str]] = TEXTS) -> Scenario:
    return text_methods.text_scenario(texts, LABELS, names=["thing 0", "thing 1"], wording=toy_wording(2))


def begun(language: LanguageModel, spec: Any = TUNING, **options: Any) -> Any:
    return text_methods.begun(spec, language, scenario_of(), **{"length": 3, **options})


class TestInitial:
    language = tiny_language()

    def initial(self, init: Any, length: int = 4, **options: Any) -> Tensor:
        return initial(self.language, length, init, **options)

    def test_uniform_is_one_sided(self) -> None:
        found = self.initial("uniform", 200)
        assert 0 <= float(found.min()) < 0.01
        assert 0.49 < float(found.max()) < 0.5

    def test_vocabulary_draws_different_rows_of_the_first_5000(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("benchmark.backbones.language.soft_prompts.COMMON", 30)
        table = self.language.embedding.weight
        found = self.initial("vocabulary", 30)
        rows = torch.cdist(found, table).argmin(dim=1).tolist()
        assert sorted(rows) == list(range(30))
        torch.testing.assert_close(found, table[rows])
        with pytest.raises(UsageError, match="30 embeddings for a prompt of 31"):
            self.initial("vocabulary", 31)

    def test_labels_are_means_of_their_pieces_and_those_behind_the_prompt_are_left_out(self) -> None:
        table, word = self.language.embedding.weight, self.language.word
        found = self.initial("labels", 3, labels=["thing0", "place1 light2"])
        torch.testing.assert_close(found[0], table[word("thing0")])
        torch.testing.assert_close(found[1], (table[word("place1")] + table[word("light2")]) / 2)
        assert bool((table == found[2]).all(dim=1).any())  # some row of the vocabulary
        assert len(self.initial("labels", 1, labels=["thing0", "thing1"])) == 1

    def test_string_lays_one_piece_behind_the_other(self) -> None:
        table = self.language.embedding.weight
        found = self.initial("string", 4, text="it is a")
        torch.testing.assert_close(found[:3], table[[self.language.word(word) for word in ("it", "is", "a")]])

    def test_file(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).normal(size=(4, 24)).astype(np.float32)
        np.save(tmp_path / "prompt.npy", array)
        found = self.initial("file", file=str(tmp_path / "prompt.npy"))
        np.testing.assert_array_equal(found.numpy(), array)

    def test_what_cannot_be_started_from_says_why(self, tmp_path: Path) -> None:
        np.save(tmp_path / "short.npy", np.zeros((3, 24)))
        (tmp_path / "text.npy").write_text("no array")
        np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(UsageError, match="nothing to start from"):
            self.initial("string")
        with pytest.raises(DataMissing, match="no file"):
            self.initial("file")
        with pytest.raises(DataMissing, match="holds no array"):
            self.initial("file", file=str(tmp_path / "text.npy"))
        with pytest.raises(DataMissing, match="holds no array"):
            self.initial("file", file=str(tmp_path / "object.npy"))
        with pytest.raises(UsageError, match=re.escape("float64 (3, 24)")):
            self.initial("file", file=str(tmp_path / "short.npy"))


@pytest.mark.parametrize("option", ["init_text", "init_file"])
def test_an_option_of_another_start_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: 'words' has no effect with init `vocabulary`"):
        PromptTuningConfig(**{option: "words"})


def test_a_pattern_without_a_place_for_what_a_method_needs_is_refused() -> None:
    with pytest.raises(UsageError, match="asks for no word"):
        text_methods.method_of(TUNING, tiny_language("masked"), scenario_of(), pattern="{text} it is")
    with pytest.raises(UsageError, match="no place for the triggers"):
        text_methods.method_of(AUTOPROMPT, tiny_language("causal"), scenario_of(), pattern="{text} it is")


class TestPlace:
    def test_in_front_of_everything_but_what_the_tokenizer_puts_there(self) -> None:
        fronts = {"masked": 1, "causal": 1, "encoder-decoder": 0}  # [CLS]; <s>; nothing
        for architecture in ARCHITECTURES:
            (row,) = begun(tiny_language(architecture)).rows(TEXTS[:1])
            front = fronts[architecture]
            assert row.marks["soft"] == tuple(range(front, front + 3))

    def test_where_the_pattern_says(self) -> None:
        method = begun(tiny_language(), pattern="{text} {soft} it is {mask} .")
        (row,) = method.rows(TEXTS[:1])
        assert row.marks["soft"] == (5, 6, 7)
        tokens = method.language.batch([row])
        found, plain = method.embeds(tokens), method.language.embed(tokens.ids)
        torch.testing.assert_close(found[0, 5:8], method.vectors)
        torch.testing.assert_close(found[0, [0, 4, 8]], plain[0, [0, 4, 8]])

    def test_long_texts_make_room_for_it(self) -> None:
        method = begun(tiny_language(), length=40)
        (row,) = method.rows([{"text": "a " * 100}])
        assert len(row) == 64
        assert len(row.marks["soft"]) == 40
        assert method.shortened([{"text": "a " * 100}, TEXTS[0]]) == 1

    def test_a_prompt_that_leaves_no_room_is_refused(self) -> None:
        with pytest.raises(UsageError, match="alone has more than 64 tokens"):
            begun(tiny_language(), length=64).rows(TEXTS[:1])

    def test_a_pattern_needs_to_show_it_once(self) -> None:
        method = begun(tiny_language(), pattern="{soft} {text} {soft} it is {mask} .")
        with pytest.raises(UsageError, match="6 soft positions for a prompt of 3 vectors"):
            method.predict(TEXTS)


class TestSharedStart:
    """Keys and values of the start of a pattern, computed once for a causal model, change nothing."""

    @pytest.mark.parametrize("pattern", ["auto", "it is {text} it is {mask} .", "{text} {soft} is {mask}"])
    def test_predictions_are_those_of_the_whole_sequence(self, pattern: str) -> None:
        language = tiny_language("causal")
        language.module.double()
        method = begun(language, pattern=pattern).double().eval()
        with torch.no_grad():
            found = method.predict(TEXTS)
            tokens = language.batch(method.rows(TEXTS))
            logits = language.logits(tokens, tokens.last, embeds=method.embeds(tokens))
            wanted = method._words.scores(logits[:, 0])
            alone = torch.cat([method.predict([text]) for text in TEXTS])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-12)

    def test_a_text_that_is_empty_leaves_one_token_to_ask_at(self) -> None:
        method = begun(tiny_language("causal"), pattern="it is {text} {mask}").eval()
        with torch.no_grad():
            method.predict(TEXTS[:1])  # the start is computed for three more tokens than the empty text leaves
            together = method.predict(TEXTS)
            torch.testing.assert_close(method.predict(TEXTS[2:3]), together[2:3])

    def test_it_is_computed_once_and_anew_after_training(self, monkeypatch: pytest.MonkeyPatch) -> None:
        method, calls = begun(tiny_language("causal")), []
        real = LanguageModel.keys_and_values
        monkeypatch.setattr(
            LanguageModel, "keys_and_values", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs)
        )
        with torch.no_grad():
            before = method.eval().predict(TEXTS)
            method.predict(TEXTS[:2])
        assert len(calls) == 1
        method.train()
        method.train_step(Batch(TEXTS, torch.tensor(LABELS), place=place(0)))
        with torch.no_grad():
            after = method.eval().predict(TEXTS)
        assert len(calls) == 2
        assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_lowers_the_loss_and_moves_nothing_else(architecture: Any) -> None:
    torch.manual_seed(0)  # start values decide how far 30 steps come
    language = tiny_language(architecture)
    before = {name: value.clone() for name, value in language.module.state_dict().items()}
    method = begun(language, lr=0.1, init="labels")
    assert isinstance(method, PromptTuning)
    batch = Batch(TEXTS, torch.tensor(LABELS), place=place(0))
    losses = [float(method.train_step(batch)["loss"]) for _ in range(30)]
    assert min(losses[-5:]) < 0.95 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in language.module.state_dict().items())


def test_the_prompt_goes_on_and_the_optimiser_starts_anew() -> None:
    method = begun(tiny_language())
    before = method.vectors.clone()
    first = method.optimizer
    text_methods.begin(method, scenario_of())
    torch.testing.assert_close(method.vectors.detach(), before.detach())
    assert method.optimizer is not first


def test_dropout_of_the_model_is_on_where_it_is_asked_for() -> None:
    for option in (False, True):
        method = begun(tiny_language(), model_dropout=option)
        assert method.train().language.module.training is option
        assert not method.eval().language.module.training


class TestTargets:
    language = tiny_language("encoder-decoder")

    def test_names_of_several_pieces_end_with_the_end_and_are_padded(self) -> None:
        targets = Targets(["thing0", "it is"], self.language)
        end, pad = self.language.tokenizer.eos_token_id, self.language.pad
        word = self.language.word
        assert targets.written.tolist() == [[word("thing0"), end, pad], [word("it"), word("is"), end]]
        assert targets.read.tolist() == [[0, word("thing0"), end], [0, word("it"), word("is")]]
        assert targets.mask.tolist() == [[1, 1, 0], [1, 1, 1]]

    def test_names_must_differ_and_have_pieces(self) -> None:
        for names in (["thing0", "thing0"], ["thing0", " "]):
            with pytest.raises(UsageError, match=r"is empty, or the text of two classes"):
                Targets(names, self.language)

    def test_scores_do_not_depend_on_the_lengths_of_other_names(self) -> None:
        tokens = begun(self.language).language.batch(begun(self.language).rows(TEXTS[:2]))
        alone = Targets(["thing0"], self.language).scores(tokens)
        among = Targets(["thing0", "it is a"], self.language).scores(tokens)
        torch.testing.assert_close(among[:, :1], alone)

    def test_the_loss_is_the_sum_or_the_mean_over_tokens(self) -> None:
        logits = torch.randn(2, 3, 7)
        target, mask = torch.tensor([[1, 2, 0], [3, 4, 5]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
        labels = target.masked_fill(mask == 0, -100)
        mean = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())  # as transformers
        torch.testing.assert_close(sequence_loss(logits, target, mask, reduction="mean").total, mean)
        found = sequence_loss(logits, target, mask, z_loss=0.01)
        z = 0.01 * (logits.logsumexp(2).square() * mask).sum()
        torch.testing.assert_close(found.z, z)
        torch.testing.assert_close(found.total, 5 * mean + z)


class TestProgressive:
    """The concatenation, what is frozen and what is kept, as arazd/ProgressivePrompts has it."""

    def begun(self, architecture: Any = "masked", **options: Any) -> ProgressivePrompts:
        method = begun(tiny_language(architecture), PROGRESSIVE, length=2, bottleneck=8, **options)
        assert isinstance(method, ProgressivePrompts)
        return method

    def end(self, method: ProgressivePrompts) -> None:
        method.end_experience(ExperienceView(scenario_of(), 0, method.context.manifest))

    def step(self, method: ProgressivePrompts) -> None:
        method.train_step(Batch(TEXTS, torch.tensor(LABELS), place=place(0)))

    def test_the_newest_prompt_stands_in_front_and_the_old_ones_are_frozen(self) -> None:
        method = self.begun()
        self.step(method)
        first = method.own.detach().clone()
        self.end(method)
        torch.testing.assert_close(method.prompt().detach(), first)
        text_methods.begin(method, scenario_of())
        assert method.past.requires_grad is False
        self.step(method)
        torch.testing.assert_close(method.prompt().detach(), torch.cat([method.own.detach(), first]))
        (row,) = method.rows(TEXTS[:1])
        assert row.marks["soft"] == (1, 2, 3, 4)
        assert not torch.equal(method.own.detach(), first)

    @pytest.mark.parametrize(("network", "layer_norm"), [("mlp1", True), ("mlp1", False), ("mlp2", True)])
    def test_what_the_network_gave_is_kept_and_the_network_is_not(self, network: Any, layer_norm: bool) -> None:
        method = self.begun(network=network, layer_norm=layer_norm)
        inner = method.network
        kinds = [type(part).__name__ for part in inner.children()]
        assert (
            kinds
            == {
                ("mlp1", True): ["Linear", "ReLU", "Linear", "LayerNorm"],
                ("mlp1", False): ["Linear", "Tanh", "Linear"],
                ("mlp2", True): ["Linear", "ReLU", "Linear", "Tanh", "Linear"],
            }[network, layer_norm]
        )
        self.step(method)
        torch.testing.assert_close(method.prompt(), inner(method.own) + method.own)
        wanted = method.prompt().detach().clone()
        self.end(method)
        torch.testing.assert_close(method.prompt().detach(), wanted)
        assert not list(method.network.parameters())
        text_methods.begin(method, scenario_of())
        assert method.network is not inner

    def test_the_optimiser_is_that_of_transformers_with_its_eps(self) -> None:
        optimizer = self.begun().optimizer
        assert isinstance(optimizer, DecayLastAdamW)
        assert [(group["eps"], group["weight_decay"], group["lr"]) for group in optimizer.param_groups] == [
            (1e-8, 1e-5, 0.3)
        ]

    @pytest.mark.parametrize("architecture", ["masked", "causal"])
    def test_a_known_task_gets_the_prompts_up_to_its_own(self, architecture: Any) -> None:
        method = self.begun(architecture, task_known=True)
        with torch.no_grad():
            wanted = []
            for _ in range(3):
                self.end(method)
                wanted.append(method.eval().predict(TEXTS))
                text_methods.begin(method, scenario_of())
            self.end(method)
            method.eval()
            for task, logits in enumerate(wanted):
                torch.testing.assert_close(method.predict_task(TEXTS, task), logits)
            torch.testing.assert_close(method.predict_task(TEXTS, 9), method.predict(TEXTS))

    def test_the_task_is_declared_only_where_it_is_used(self) -> None:
        config = PROGRESSIVE.config
        assert "task_id" not in PROGRESSIVE.uses_of(config())
        assert "task_id" in PROGRESSIVE.uses_of(config(task_known=True))

    def test_only_the_prompts_are_kept(self) -> None:
        method = self.begun(network="mlp1")
        self.end(method)
        assert sum(tensor.numel() for tensor in method.kept_between_experiences()) == 2 * 24
