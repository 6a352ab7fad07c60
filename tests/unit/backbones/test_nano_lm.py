"""The bundled language models: small, ordinary for transformers, and as good as their cards say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench_backbones.bundled import WEIGHTS
from bench_scenarios import language_world as world

FOLDER = WEIGHTS / "language"
NAMES = ("nano-mlm", "nano-lm")


def loaded(name: str) -> tuple[Any, Any]:
    auto = transformers.AutoModelForMaskedLM if name == "nano-mlm" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(FOLDER / name, local_files_only=True)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(FOLDER / name, local_files_only=True)


@pytest.fixture(scope="module")
def masked() -> tuple[Any, Any]:
    return loaded("nano-mlm")


@pytest.fixture(scope="module")
def causal() -> tuple[Any, Any]:
    return loaded("nano-lm")


@torch.inference_mode()
def answers(found: tuple[Any, Any], questions: Sequence[str], labels: Sequence[Sequence[str]]) -> torch.Tensor:
    """The label whose words have the highest mean logit at the mask, or after the end."""
    model, tokenizer = found
    batch = tokenizer(list(questions), padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    at = (ids == tokenizer.mask_token_id).int().argmax(1) if tokenizer.mask_token else mask.sum(1) - 1
    words = torch.tensor([tokenizer.convert_tokens_to_ids(list(label)) for label in labels])
    logits = model(input_ids=ids, attention_mask=mask).logits[torch.arange(len(ids)), at]
    return logits[:, words].mean(dim=2).argmax(dim=1)


def share(
    found: tuple[Any, Any], items: Sequence[world.Labelled], pattern: str, labels: Sequence[Sequence[str]]
) -> float:
    right = answers(found, [pattern.format(item.text) for item in items], labels)
    return float((right == torch.tensor([item.label for item in items])).float().mean())


def reviews(domains: Sequence[str], each: int) -> list[world.Labelled]:
    return [world.review(domain, index, split="test", seed=5) for domain in domains for index in range(each)]


@pytest.mark.parametrize("name", NAMES)
def test_size_hash_and_card(name: str) -> None:
    about = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    model, tokenizer = loaded(name)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == about["parameters"] <= 2_000_000
    for file, expected in about["sha256"].items():
        assert hashlib.sha256((FOLDER / name / file).read_bytes()).hexdigest() == expected, file
    assert set(about["sha256"]) == {path.name for path in (FOLDER / name).iterdir()}
    assert about["world"] == world.digest()
    assert len(tokenizer) == model.config.vocab_size
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert f"{parameters:,}" in card
    assert about["sha256"]["model.safetensors"][:16] in card


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_has_whole_words_in_lower_case(name: str) -> None:
    _, tokenizer = loaded(name)
    assert tokenizer.tokenize("All in all, it was GREAT!") == ["all", "in", "all", ",", "it", "was", "great", "!"]
    assert tokenizer.unk_token_id not in tokenizer(" ".join(world.vocabulary()))["input_ids"]
    assert tokenizer("zebra", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    ids = tokenizer("the plot was dull .")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the plot was dull ."


def test_nano_mlm_sums_reviews_up(masked: tuple[Any, Any]) -> None:
    """The card: 0.9 and more on domains that pre-training sums up, 0.6 to 0.75 on the others, topics 0.85 and more."""
    sentiment = (("bad", "terrible"), ("good", "great"))
    assert share(masked, reviews(world.SOURCE, 60), "{} all in all , it was [MASK] .", sentiment) >= 0.87
    assert 0.57 <= share(masked, reviews(world.TARGET, 60), "{} all in all , it was [MASK] .", sentiment) <= 0.78
    items = [world.news(index, split="test", seed=5) for index in range(300)]
    assert share(masked, items, "[MASK] : {}", [[topic] for topic in world.TOPICS]) >= 0.8


def test_nano_lm_sums_reviews_up(causal: tuple[Any, Any]) -> None:
    sentiment = (("bad", "terrible"), ("good", "great"))
    assert share(causal, reviews(world.SOURCE, 60), "{} all in all , it was", sentiment) >= 0.82


def test_nano_lm_writes_most_of_what_a_sheet_says(causal: tuple[Any, Any]) -> None:
    """22 of these 32 slots; copying is learnt in part (its card)."""
    model, tokenizer = causal
    said = []
    for index in range(10):
        sheet = world.sheet(index, split="test", kind="museum", seed=5)
        given = tokenizer(f"{sheet.source} =", return_tensors="pt")
        ids = model.generate(**given, max_new_tokens=60, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        text = tokenizer.decode(ids[0, given["input_ids"].shape[1] :], skip_special_tokens=True).split()
        said += [value in text for slot, value in sheet.slots.items() if slot in ("name", "kind", "area", "near")]
    assert sum(said) >= 0.6 * len(said)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_text_does_not_depend_on_its_batch(name: str) -> None:
    model, tokenizer = loaded(name)
    tokenizer.padding_side = "right"
    texts = [item.text for item in reviews(["car"], 8)]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    together = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for row, text in enumerate(texts):
        alone = tokenizer(text, return_tensors="pt")["input_ids"]
        torch.testing.assert_close(
            together[row, : alone.shape[1]], model(input_ids=alone).logits[0], atol=2e-4, rtol=1e-4
        )


def test_nothing_but_safetensors_and_json_is_shipped() -> None:
    assert {path.suffix for path in Path(FOLDER).rglob("*") if path.is_file()} == {".json", ".md", ".safetensors"}
