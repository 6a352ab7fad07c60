"""Prompt tuning on T5 against numbers made with t5x's Adafactor (google-research/t5x at cc342d41), in float64.

The recorded model computes its norms in float64, the one of transformers always in float32: here they are torch's,
which are the same formula. t5x's exponent of the decay is float32, so later prompts and losses agree to 1e-6.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from bench_methods.prompt_tuning import PromptTuning, bench_register_methods
from benchmark.api import Batch
from benchmark.optimizers import Adafactor
from benchmark.testing import text_methods
from benchmark.testing.recorded import Recorded

pytestmark = pytest.mark.usefixtures("one_thread")
(SPEC,) = bench_register_methods()
WORDS = [f"w{number:02}" for number in range(36)]


def model_of(case: Recorded) -> transformers.T5ForConditionalGeneration:
    shape = case.meta["config"]
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=shape["vocab"],
            d_model=shape["d_model"],
            d_kv=shape["d_model"] // shape["heads"],
            d_ff=shape["d_ff"],
            num_layers=shape["layers"],
            num_heads=shape["heads"],
            relative_attention_num_buckets=shape["relative_buckets"],
            relative_attention_max_distance=shape["relative_max_distance"],
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=shape["tied"],
            decoder_start_token_id=shape["start"],
            dropout_rate=0.0,
        )
    ).double()
    weights = case.part("lm.")
    for side in ("encoder", "decoder"):
        weights[f"{side}.embed_tokens.weight"] = weights["shared.weight"]
    model.load_state_dict(weights)
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child).__name__ == "T5LayerNorm":
                norm = nn.RMSNorm(shape["d_model"], eps=child.variance_epsilon, dtype=torch.float64)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
    return model


@pytest.fixture
def case() -> Recorded:
    return Recorded(Path(__file__).parents[2] / "golden" / "prompt_tuning", "t5_from_step_0", torch.float64)


@pytest.fixture
def method(case: Recorded) -> PromptTuning:
    tokenizer = text_methods.word_tokenizer(
        WORDS, single="$A w01", pad_token="w00", eos_token="w01", unk_token="w02", model_max_length=64
    )
    language = text_methods.language_of(model_of(case), tokenizer, "encoder-decoder")
    shape, steps = case.meta["config"], case.meta["optimizer"]
    rows = [[number for number in row if number > 1] for row in case.tensor("input.ids").tolist()]
    targets = [[number for number in row if number > 1] for row in case.tensor("input.target").tolist()]
    scenario = text_methods.text_scenario(
        [{"text": text_methods.spoken(WORDS, row)} for row in rows],
        [0, 1, 2],
        names=[text_methods.spoken(WORDS, target) for target in targets],
    )
    method = text_methods.method_of(
        SPEC,
        language,
        scenario,
        length=shape["P"],
        z_loss=shape["z_loss"],
        lr=steps["lr"],
        weight_decay=steps["weight_decay_rate"],
        first_step=steps["first_step"],
    )
    assert isinstance(method, PromptTuning)
    method.double()
    text_methods.begin(method, scenario)
    with torch.no_grad():
        method.vectors.copy_(case.tensor("method.prompt"))
    return method


def texts(case: Recorded) -> list[dict[str, str]]:
    rows = case.tensor("input.ids").tolist()
    return [{"text": text_methods.spoken(WORDS, [number for number in row if number > 1])} for row in rows]


def test_logits_loss_gradient_and_three_steps(case: Recorded, method: PromptTuning) -> None:
    labels = torch.arange(3)
    tokens = method.language.batch(method.rows(texts(case)))
    assert torch.equal(tokens.mask, case.tensor("input.mask_with_prompt"))
    assert method._targets is not None
    assert torch.equal(method._targets.read, case.tensor("input.decoder_input"))
    assert torch.equal(method._targets.written, case.tensor("input.target"))
    assert float(method._targets.mask.sum()) == case.tensor("f64.weight_sum")
    case.compare("logits", method._targets.logits(tokens, labels, method.embeds(tokens), None))

    totals, zs = [], []
    for step in range(3):
        found = method._targets.loss(tokens, labels, embeds=method.embeds(tokens), z_loss=method.config.z_loss)
        totals.append(found.total.detach())
        zs.append(found.z)
        terms = method.train_step(Batch(texts(case), labels))
        assert torch.equal(torch.as_tensor(terms["loss"]), totals[-1])
        if step == 0:
            case.compare("grad.prompt", method.vectors.grad)
        case.compare(f"after{step + 1}.prompt", method.vectors, limit=1e-9 if step == 0 else 1e-6)
    case.compare("steps.loss_total", torch.stack(totals), limit=1e-6)
    case.compare("steps.z_loss", torch.stack(zs), limit=1e-6)
    case.compare("logits_after", method._targets.logits(tokens, labels, method.embeds(tokens), None), limit=1e-6)
    case.report()


def test_names_are_ranked_by_what_the_decoder_gives_them(case: Recorded, method: PromptTuning) -> None:
    """Scores are minus the summed cross-entropy of the recorded logits, where the target is that of the class."""
    method.eval()
    with torch.no_grad():
        scores = method.predict(texts(case))
    log = case.tensor("f64.logits").log_softmax(dim=2)
    target = case.tensor("input.target")
    wanted = (log.gather(2, target.unsqueeze(2)).squeeze(2) * (target != 0)).sum(dim=1)
    torch.testing.assert_close(scores.diagonal(), wanted, rtol=0, atol=1e-9)
    assert scores.shape == (3, 3)


class TestAdafactor:
    @staticmethod
    def steps(first_step: int, gradients: Tensor, **options: float) -> list[Tensor]:
        parameter = nn.Parameter(torch.zeros_like(gradients[0]))
        optimizer = Adafactor([parameter], lr=0.3, first_step=first_step, **options)
        found = []
        for gradient in gradients:
            parameter.grad = gradient.clone()
            before = parameter.detach().clone()
            optimizer.step()
            found.append(parameter.detach() - before)
        return found

    def test_every_update_of_a_run_from_a_checkpoint_has_the_size_of_the_learning_rate(self) -> None:
        """β is 0.999985 there and v, which starts at 0, close to a plain sum of squares times 1.5e-5."""
        gradients = torch.randn(20, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        updates = self.steps(1_100_000, gradients)
        sizes = torch.stack([update.square().mean().sqrt() for update in updates])
        torch.testing.assert_close(sizes, torch.full_like(sizes, 0.3), rtol=0, atol=1e-12)
        sums = gradients.square().cumsum(0)
        last = gradients[-1] / sums[-1].sqrt()
        torch.testing.assert_close(updates[-1], -0.3 * last / last.square().mean().sqrt(), rtol=2e-4, atol=1e-6)

    def test_both_conventions_begin_with_the_sign_of_the_gradient(self) -> None:
        gradients = torch.randn(3, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        own, checkpoint = (self.steps(first, gradients) for first in (0, 1_100_000))
        for updates in (own, checkpoint):
            torch.testing.assert_close(updates[0], -0.3 * gradients[0].sign())
        assert (own[2] - checkpoint[2]).abs().max() > 1e-3

    def test_decay_is_not_multiplied_by_the_learning_rate(self) -> None:
        parameter = nn.Parameter(torch.ones(3, 4))
        optimizer = Adafactor([parameter], lr=0.3, weight_decay=0.01)
        parameter.grad = torch.zeros(3, 4)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.full((3, 4), 0.99))
