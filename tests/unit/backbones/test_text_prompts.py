"""Vectors between words: layouts, ids and ends as published, and one pass that equals the plain one over 77 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.backbones import text
from benchmark.backbones.dual import DualEncoder, dual_of
from benchmark.backbones.text_prompts import (
    ContextVectors,
    Position,
    PromptBank,
    TextPrompts,
    domain_contexts,
    domain_placeholders,
    first_context,
    placeholders,
)
from benchmark.errors import UsageError
from benchmark.testing import toys
from benchmark.testing.clip_methods import full_texts
from benchmark.testing.closed_form import fill, tiny_clip

NAMES = ["dog", "sea_turtle", "aircraft_carrier"]
POSITIONS: tuple[Position, ...] = ("end", "middle", "front")
X, START, END = 343, 49406, 49407


@pytest.fixture(scope="module")
def dual() -> DualEncoder:
    return dual_of(tiny_clip())


def place(dual: DualEncoder, vectors: int, **options: Any) -> TextPrompts:
    lead, _ = first_context(dual, vectors=vectors)
    return TextPrompts(dual, placeholders(NAMES, lead), vectors=vectors, names=NAMES, **options)


def by_hand(dual: DualEncoder, texts: Sequence[str], names: Sequence[str], ctx: Tensor, position: str) -> Tensor:
    """All 77 positions, put together as the official code does it, row by row."""
    vectors, rows = ctx.shape[-2], []
    for place, (words, name) in enumerate(zip(texts, names, strict=True)):
        ids = [START, *dual.tokenizer.encode(words), END]
        e = dual.embed(torch.tensor(ids + [0] * (77 - len(ids))))
        own = ctx[place] if ctx.ndim == 3 else ctx
        suffix, length, half = e[1 + vectors :], len(dual.tokenizer.encode(name.replace("_", " "))), vectors // 2
        parts = {
            "end": [own, suffix],
            "middle": [own[:half], suffix[:length], own[half:], suffix[length:]],
            "front": [suffix[:length], own, suffix[length:]],
        }[position]
        rows.append(torch.cat([e[:1], *parts]))
    return torch.stack(rows)


# --- placeholders, ids, ends ---------------------------------------------------------------------------------------


def test_placeholder_texts_and_ids(dual: DualEncoder) -> None:
    prompts = place(dual, 4)
    assert placeholders(NAMES[:2], "X X X X") == ["X X X X dog.", "X X X X sea turtle."]
    assert prompts.ids.tolist() == [
        [START, X, X, X, X, 1929, 269, END, 0],
        [START, X, X, X, X, 2102, 10912, 269, END],
        [START, X, X, X, X, 7706, 12308, 269, END],
    ]
    assert prompts.ends.tolist() == [7, 8, 8]
    assert prompts.lengths.tolist() == [1, 2, 2]
    assert len(prompts) == 3


def test_domain_texts_are_domain_major_and_end_in_one_token(dual: DualEncoder) -> None:
    texts = domain_placeholders(NAMES, ["art", "real_world"], "X X X X")
    prompts = TextPrompts(dual, texts, vectors=4, groups=2)
    assert texts[1] == "X X X X sea turtle , a art image.."
    assert prompts.ids[0].tolist() == [START, X, X, X, X, 1929, 267, 320, 794, 2867, 852, END, 0, 0, 0]
    assert prompts.ids[3].tolist() == [START, X, X, X, X, 1929, 267, 320, 1532, 318, 1002, 2867, 852, END, 0]
    single = domain_placeholders(["dog"], ["art"], "X", stop=".")
    assert dual.tokenize(single).ids[0, -2:].tolist() == [269, END]


def test_contexts_of_domains() -> None:
    shared, own = fill("ctx", (3, 5)), fill("own", (2, 4, 5))
    both = domain_contexts(shared, own)
    assert both.shape == (2, 7, 5)
    assert torch.equal(both[1], torch.cat([shared, own[1]]))
    per_class = fill("ctx", (6, 3, 5))
    both = domain_contexts(per_class, own)
    assert both.shape == (12, 7, 5)
    assert torch.equal(both[6 + 2], torch.cat([per_class[2], own[1]]))


def test_random_and_word_starts(dual: DualEncoder) -> None:
    torch.manual_seed(3)
    lead, ctx = first_context(dual, vectors=16, classes=40)
    assert lead == " ".join(["X"] * 16)
    assert ctx.shape == (40, 16, 48)
    assert float(ctx.std()) == pytest.approx(0.02, rel=0.02)
    torch.manual_seed(3)
    assert torch.equal(ctx.flatten()[:32], nn.init.normal_(torch.empty(40, 16, 48), std=0.02).flatten()[:32])
    lead, ctx = first_context(dual, words="a_photo of a")
    assert lead == "a photo of a"
    assert torch.equal(ctx, dual.embed(torch.tensor([320, 1125, 539, 320])))
    assert not ctx.requires_grad
    ctx.zero_()
    assert float(dual.embed(torch.tensor(320)).abs().sum()) > 0  # a copy
    with pytest.raises(ValueError, match="random numbers"):
        first_context(dual, words="a photo", classes=3)
    with pytest.raises(UsageError, match="no context can start from the words '_'"):
        first_context(dual, words="_")


def test_word_tokenizers_serve_too() -> None:
    small = dual_of(toys.tiny_backbone(text=True))
    lead, ctx = first_context(small, words="a photo of a")
    prompts = TextPrompts(small, placeholders(["thing 1", "thing 1 2"], lead), vectors=4)
    expected = small.text_features(["a photo of a thing 1.", "a photo of a thing 1 2."])
    torch.testing.assert_close(prompts.features(ctx), expected, rtol=1e-5, atol=1e-5)


# --- layouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", [4, 5])  # of an odd number the second part is longer
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("per_class", [False, True])
def test_rows_are_those_of_the_official_layouts(
    dual: DualEncoder, vectors: int, position: Position, per_class: bool
) -> None:
    prompts = place(dual, vectors, position=position)
    ctx = fill("ctx", (3, vectors, 48) if per_class else (vectors, 48)).float()
    expected = by_hand(dual, placeholders(NAMES, "X " * (vectors - 1) + "X"), NAMES, ctx, position)
    assert torch.equal(prompts.rows(ctx), expected[:, : prompts.ids.shape[1]])


@pytest.mark.parametrize("position", POSITIONS)
def test_words_of_several_tokens_leave_a_frozen_surplus(dual: DualEncoder, position: Position) -> None:
    """The official quirk: M counts words, and the layouts cut behind M tokens, wherever the name is."""
    words = "a photogrammetric view of"
    ids = dual.tokenizer.encode(words)
    assert len(ids) > 4
    lead, ctx = first_context(dual, words=words)
    assert torch.equal(ctx, dual.embed(torch.tensor(ids[:4])))
    texts = placeholders(NAMES, lead)
    prompts = TextPrompts(dual, texts, vectors=4, names=NAMES, position=position)
    rows = prompts.rows(ctx)
    assert torch.equal(rows, by_hand(dual, texts, NAMES, ctx, position)[:, : rows.shape[1]])
    whole = dual.embed(dual.tokenize(texts).ids)
    assert torch.equal(rows, whole) is (position == "end")


def test_what_does_not_fit_is_refused(dual: DualEncoder) -> None:
    prompts = place(dual, 4)
    for shape in ((5, 48), (2, 4, 48), (4, 47)):
        with pytest.raises(ValueError, match="does not fit 3 texts in 1 groups with 4 vectors of width 48"):
            prompts.rows(torch.zeros(shape))
    with pytest.raises(ValueError, match="need as many names, not 0"):
        TextPrompts(dual, ["X dog."], vectors=1, position="front")
    with pytest.raises(ValueError, match="do not make 2 groups"):
        TextPrompts(dual, ["X dog."] * 3, vectors=1, groups=2)
    with pytest.raises(UsageError, match="longer than the 77 of this text tower"):
        place(dual, 80)


# --- one short pass instead of 77 tokens for every class ------------------------------------------------------------


def compare(found: Tensor, expected: Tensor, ctx: list[Tensor], tolerance: float, slack: float = 1.0) -> None:
    """Outputs and gradients, relative to the largest; gradients may deviate by ``slack`` times more."""
    weight = fill("weight", tuple(found.shape)).to(found.dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))
    for one, two in zip(
        torch.autograd.grad((found * weight).sum(), ctx),
        torch.autograd.grad((expected * weight).sum(), ctx),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=slack * tolerance * float(two.abs().max()))


# In float32 either way is up to 1e-6 from the outputs and 1e-5 from the gradients in float64: the vectors are short,
# and the first LayerNorm divides by their deviation.
@pytest.mark.parametrize(
    ("dtype", "tolerance", "slack"), [(torch.float32, 2e-6, 10.0), (torch.float64, 1e-12, 1.0)], ids=str
)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("per_class", [False, True])
def test_features_and_gradients_equal_the_plain_pass(
    dtype: torch.dtype, tolerance: float, slack: float, position: Position, per_class: bool
) -> None:
    dual = dual_of(tiny_clip()).to(dtype)
    prompts = place(dual, 4, position=position)
    ctx = fill("ctx", (3, 4, 48) if per_class else (4, 48), scale=0.3).to(dtype).requires_grad_()
    plain = full_texts(by_hand(dual, placeholders(NAMES, "X X X X"), NAMES, ctx, position), prompts.ends)
    compare(prompts.features(ctx), plain, [ctx], tolerance, slack)


@pytest.mark.parametrize("position", POSITIONS)
def test_names_of_very_different_lengths_equal_the_plain_pass(position: Position) -> None:
    dual, names = dual_of(tiny_clip()).double(), ["dog", "a_very_large_aircraft_carrier_at_sea", "cat"]
    texts = placeholders(names, "X X X X")
    prompts = TextPrompts(dual, texts, vectors=4, names=names, position=position)
    ctx = fill("ctx", (2, 4, 48), scale=0.3).requires_grad_()
    plain = [full_texts(by_hand(dual, texts, names, one, position), prompts.ends) for one in ctx]
    compare(prompts.features(ctx.unsqueeze(1)), torch.stack(plain), [ctx], 1e-12)


@pytest.mark.parametrize("per_class", [False, True])
def test_groups_equal_the_plain_pass(per_class: bool) -> None:
    dual = dual_of(tiny_clip()).double()
    texts = domain_placeholders(NAMES, ["art", "real_world"], "X X X X X")
    prompts = TextPrompts(dual, texts, vectors=5, groups=2)
    shared = fill("ctx", (3, 2, 48) if per_class else (2, 48), scale=0.3).requires_grad_()
    own = fill("domain_vectors", (2, 3, 48), scale=0.3).requires_grad_()
    contexts = domain_contexts(shared, own)
    every = contexts if per_class else contexts.repeat_interleave(3, dim=0)
    plain = full_texts(by_hand(dual, texts, NAMES * 2, every, "end"), prompts.ends)
    compare(prompts.features(contexts), plain, [shared, own], 1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_contexts_per_image_equal_a_loop_over_images(chunk: int) -> None:
    dual = dual_of(tiny_clip()).double()
    prompts = place(dual, 4)
    ctx = fill("ctx", (5, 4, 48), scale=0.3).requires_grad_()
    found = prompts.features(ctx.unsqueeze(1), chunk=chunk)
    assert found.shape == (5, 3, 32)
    compare(found, torch.stack([prompts.features(one) for one in ctx]), [ctx], 1e-12)
    assert torch.equal(prompts.rows(ctx.unsqueeze(1))[3], prompts.rows(ctx[3]))
    both = prompts.features(ctx.view(5, 1, 1, 4, 48), chunk=chunk)
    torch.testing.assert_close(both, found.unsqueeze(1), rtol=0, atol=1e-12)


def test_vectors_in_front_of_names_pass_once(dual: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    run = text.run_block

    def spy(block: nn.Module, tokens: Tensor, **options: Any) -> Tensor:
        seen.append(tuple(tokens.shape[:2]))
        return run(block, tokens, **options)

    monkeypatch.setattr(text, "run_block", spy)
    ctx = fill("ctx", (4, 48)).float()
    place(dual, 4).features(ctx)
    assert seen == [(1, 5), (3, 4), (3, 4)]  # start and vectors; names, full stops and ends; the last block's
    seen.clear()
    place(dual, 4, position="front").features(ctx)
    assert seen == [(1, 1), (3, 8), (3, 8)]
    seen.clear()
    place(dual, 4).features(ctx.expand(7, 1, 4, 48))
    assert seen == [(7, 5), (21, 4), (21, 4)]
    seen.clear()
    texts = placeholders(["dog", "a very large aircraft carrier at sea", "cat"], "X X X X")
    TextPrompts(dual, texts, vectors=4).features(ctx)
    assert seen == [(1, 5), (1, 3 + 9 + 3), (3, 9)]  # the padding behind short names is left out


# --- what is kept for prediction -----------------------------------------------------------------------------------


def test_features_are_computed_once_as_long_as_vectors_stay(dual: DualEncoder) -> None:
    calls: list[Sequence[str]] = []

    def make(names: Sequence[str]) -> TextPrompts:
        calls.append(names)
        return TextPrompts(dual, placeholders(names, "X X"), vectors=2)

    bank, ctx = PromptBank(make), fill("ctx", (2, 48)).float().requires_grad_()
    first = bank.features(NAMES, ctx)
    assert not first.requires_grad
    assert bank.features(tuple(NAMES), ctx) is first
    torch.testing.assert_close(first, bank.prompts(NAMES).features(ctx).detach())
    with torch.no_grad():
        ctx[1, 47] += 1.0
    second = bank.features(NAMES, ctx)
    assert not torch.equal(second, first)
    assert bank.features(NAMES[::-1], ctx)[0].tolist() == pytest.approx(second[2].tolist(), abs=1e-5)
    assert calls == [tuple(NAMES), tuple(NAMES[::-1])]
    for number in range(3):
        bank.features([f"dog {number}"], ctx)
    assert bank.features(NAMES, ctx) is second  # texts of the last lists are kept, features of more
    assert len(calls) == 5
    with torch.no_grad():
        ctx.zero_()
    bank.features(NAMES, ctx)
    assert calls[5:] == [tuple(NAMES)]
    for number in range(16):
        bank.features([f"cat {number}"], ctx)
    bank.features(NAMES, ctx)
    assert calls[-1] == tuple(NAMES)


# --- vectors that grow with the classes ----------------------------------------------------------------------------


def test_vectors_per_class_grow_and_are_loaded_in_any_number() -> None:
    ctx = ContextVectors(torch.empty(0, 4, 8))
    torch.manual_seed(0)
    assert ctx.grow(300)
    assert float(ctx.vectors.detach().std()) == pytest.approx(0.02, rel=0.02)
    first = ctx.vectors.detach().clone()
    assert not ctx.grow(300)
    assert ctx.grow(302)
    assert torch.equal(ctx.vectors[:300], first)
    assert torch.equal(ctx.of([301, 2]), ctx.vectors[[301, 2]])
    other = ContextVectors(torch.empty(0, 4, 8))
    other.load_state_dict(ctx.state_dict())
    assert torch.equal(other.vectors, ctx.vectors)


def test_shared_vectors_do_not_grow() -> None:
    start = fill("ctx", (4, 8))
    ctx = ContextVectors(start)
    assert not ctx.grow(300)
    assert ctx.of([7, 3]) is ctx.vectors
    ctx.vectors.data.zero_()
    assert float(start.abs().sum()) > 0  # a copy
    with pytest.raises(RuntimeError, match="size mismatch"):
        ctx.load_state_dict({"vectors": torch.zeros(3, 8)})
