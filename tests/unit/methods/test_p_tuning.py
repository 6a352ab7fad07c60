"""P-tuning's parts: where learned positions stand, what is asked, what trains at which rate, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench_methods import p_tuning
from bench_methods.p_tuning import PTuning, PTuningConfig, with_soft
from benchmark.api import Batch, Text
from benchmark.backbones.language.prompt_encoders import PromptEncoder
from benchmark.errors import UsageError
from benchmark.scenario import Wording
from benchmark.testing import text_methods
from benchmark.testing.by_hand import place
from benchmark.testing.language import tiny_language, toy_wording

pytestmark = pytest.mark.usefixtures("one_thread")
(SPEC,) = p_tuning.bench_register_methods()
TEXTS: list[Text] = [{"text": "a thing0 in light3"}, {"text": "thing1"}, {"text": ""}, {"text": "light4 thing2 ."}]
LABELS = torch.tensor([0, 1, 0, 1])


def begun(architecture: Any = "masked", wording: Wording | None = None, **options: Any) -> PTuning:
    scenario = text_methods.text_scenario(
        TEXTS, LABELS.tolist(), names=["thing 0", "thing 1"], wording=wording or toy_wording(2)
    )
    method = text_methods.begun(SPEC, tiny_language(architecture), scenario, **options)
    assert isinstance(method, PTuning)
    return method


def written(method: PTuning, text: Text) -> list[str]:
    """The tokens of an example; learned positions are ``*``."""
    (row,) = method.rows([text])
    words: list[str] = method.language.tokenizer.convert_ids_to_tokens(list(row.ids))
    return ["*" if at in row.marks.get("soft", ()) else word for at, word in enumerate(words)]


class TestEncoder:
    @pytest.mark.parametrize(
        ("kind", "count"),
        [
            ("lstm", lambda n, d: 43 * d * d + 34 * d + n * d),
            ("half-lstm", lambda n, d: 14 * d * d + 18 * d + n * d),
            ("mlp", lambda n, d: 2 * d * d + 2 * d + n * d),
        ],
    )
    def test_it_has_the_parameters_of_the_official_codes(self, kind: Any, count: Any) -> None:
        encoder = PromptEncoder(3, 12, kind)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == count(3, 12)
        assert encoder().shape == (3, 12)

    def test_every_position_hears_of_every_other_but_for_an_mlp(self) -> None:
        for kind, alone in (("lstm", False), ("half-lstm", False), ("mlp", True)):
            encoder = PromptEncoder(3, 8, kind)  # type: ignore[arg-type]
            (gradient,) = torch.autograd.grad(encoder()[0].square().sum(), encoder.table.weight)
            assert bool((gradient[2] == 0).all()) is alone, kind

    def test_half_of_an_odd_width_is_refused(self) -> None:
        with pytest.raises(UsageError, match="half-lstm halves the width"):
            PromptEncoder(3, 7, "half-lstm")


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "wanted"),
        [
            ("it was {mask} . {text}", "{soft:2} it was {mask} . {text}"),
            ("{text} it is {mask} .", "{text} {soft:2} it is {mask} ."),
            ("{a} ? | {mask} , {b}", "{a} ? | {soft:2} {mask} , {b}"),
            ("{text} {mask:2}", "{text} {soft:2} {mask:2}"),
        ],
    )
    def test_learned_positions_lead_to_the_mask(self, pattern: str, wanted: str) -> None:
        assert with_soft(pattern, 2) == wanted

    def test_those_of_the_pattern_are_counted(self) -> None:
        method = begun(pattern="{soft} {text} {soft:3} it is {mask} .", length=9)
        assert len(method.encoder.table.weight) == 4
        assert written(method, TEXTS[1]) == ["[CLS]", "*", "thing1", "*", "*", "*", "it", "is", "[MASK]", ".", "[SEP]"]

    def test_first_and_second_are_fields_of_the_scenario(self) -> None:
        wording = Wording(segments=("place", "text"), words=toy_wording(2).words)
        method = begun(wording=wording, pattern="{first} {soft} in {second} {mask}")
        found = written(method, {"text": "thing1", "place": "place2"})
        assert found == ["[CLS]", "place2", "*", "in", "thing1", "[MASK]", "[SEP]"]

    @pytest.mark.parametrize(
        ("architecture", "template", "wanted"),
        [
            ("masked", (1, 2, 1), "[CLS] * [MASK] * * thing1 * [SEP]"),
            ("masked", (0, 2, 0), "[CLS] [MASK] * * thing1 . [SEP]"),
            ("causal", (1, 2, 1), "[CLS] * thing1 * *"),
        ],
    )
    def test_a_template_has_no_words(self, architecture: Any, template: Sequence[int], wanted: str) -> None:
        method = begun(architecture, template=tuple(template), encoder="half-lstm")
        assert written(method, TEXTS[1]) == wanted.split()

    def test_a_causal_model_with_a_template_is_asked_before_the_last_position(self) -> None:
        """The official code sets the label at the last position, and the library shifts it by one."""
        method = begun("causal", template=(1, 2, 0), dropout="off")
        tokens = method.language.batch(method.rows(TEXTS))
        everywhere = method.language.logits(tokens, embeds=method.embeds(tokens))
        wanted = torch.stack([row[int(last) - 1] for row, last in zip(everywhere, tokens.last, strict=True)])
        torch.testing.assert_close(method.word_logits(tokens), wanted)


class TestTraining:
    def test_the_loss_is_among_the_words_or_over_the_vocabulary(self) -> None:
        for loss in ("words", "vocabulary"):
            method = begun(loss=loss, dropout="off")
            tokens = method.language.batch(method.rows(TEXTS))
            logits = method.word_logits(tokens)
            ids = torch.tensor([method.language.word(word) for word in ("thing0", "thing1")])
            wanted = (
                F.cross_entropy(logits[:, ids], LABELS) if loss == "words" else F.cross_entropy(logits, ids[LABELS])
            )
            torch.testing.assert_close(method.loss(tokens, LABELS), wanted)

    def test_each_part_has_its_rate_and_decay(self) -> None:
        method = begun(lr=0.1, weight_decay=0.01, model_lr=0.2, model_decay=0.3)
        names = {id(parameter): name for name, parameter in method.named_parameters()}
        found = {
            names[id(parameter)]: (group["base_lr"], group["weight_decay"])
            for group in method.groups()
            for parameter in group["params"]
        }
        for name, (rate, decay) in found.items():
            norm = "bias" in name or "norm" in name.lower()
            wanted = (0.1, 0.01) if name.startswith("encoder.") else (0.2, 0.0 if norm else 0.3)
            assert (rate, decay) == wanted, name
        assert {wanted for wanted in found.values()} == {(0.1, 0.01), (0.2, 0.0), (0.2, 0.3)}

    def test_a_frozen_model_stays_as_it_is(self) -> None:
        method = begun(model_lr=0.0, lr=0.1)
        before = {name: value.clone() for name, value in method.state_dict().items()}
        method.train_step(Batch(TEXTS, LABELS))
        moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
        assert moved
        assert all(name.startswith("encoder.") for name in moved)

    def test_rates_fall_after_each_pass(self) -> None:
        method = begun(schedule="constant", epoch_decay=0.5, lr=0.1, model_lr=0.01)
        method.train_step(Batch(TEXTS, LABELS, place=place(5, each=2, epochs=4)))  # in the third pass
        assert {group["lr"] for group in method.active_optimizer.param_groups} == {0.1 / 4, 0.01 / 4}

    @pytest.mark.parametrize(
        ("drop", "size", "step", "each", "steps"),
        [(True, 4, 1, 2, 1), (True, 5, 0, 2, 1), (True, 5, 1, 2, 0), (True, 5, 0, 1, 1), (False, 5, 1, 2, 1)],
        ids=["full", "not the last", "dropped", "the only one", "kept"],
    )
    def test_a_last_batch_that_is_not_full(self, drop: bool, size: int, step: int, each: int, steps: int) -> None:
        method = begun(drop_last=drop, batch_size=size, lr=0.1, schedule="constant")
        before = method.encoder.table.weight.detach().clone()
        terms = method.train_step(Batch(TEXTS, LABELS, place=place(step, each=each, epochs=2)))
        assert torch.isfinite(torch.as_tensor(terms["loss"]))
        assert torch.equal(method.encoder.table.weight, before) is (steps == 0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"template": (3, 3)}, "use three sizes"),
            ({"template": (3, 0, 3)}, "the second at least 1"),
            ({"template": (3, -1, 3)}, "template: -1|template: .*-1"),
            ({"template": (1, 1, 1), "pattern": "{text} {mask}"}, "pattern: .* has no effect"),
            ({"loss": "vocabulary", "mask": "current"}, "mask: current has no effect"),
        ],
    )
    def test_options_that_make_no_sense(self, options: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            PTuningConfig(**options)

    def test_an_encoder_decoder(self) -> None:
        with pytest.raises(UsageError, match="is an encoder-decoder"):
            begun("encoder-decoder")

    def test_positions_that_a_causal_model_does_not_read(self) -> None:
        with pytest.raises(UsageError, match="no learned position"):
            begun("causal", pattern="{text} {mask} {soft}")

    def test_a_field_that_examples_do_not_have(self) -> None:
        method = begun(pattern="{first} {soft} {second} {mask}")
        with pytest.raises(UsageError, match="asks for `second`"):
            method.rows(TEXTS)
