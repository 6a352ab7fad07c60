"""Measures a bundled language model on texts of `language_world` that pre-training never saw.

    python pretraining/measure_lm.py nano-mlm
    python pretraining/measure_lm.py nano-lm

- *cloze*: accuracy of the better of the words "bad, terrible" and "good, great" (means of their logits) in the place
  of `_`, for each pattern; of the names of the topics in theirs. `--texts` reviews of all source and of all target
  domains, and as many pieces of news, for each of `--seeds` seeds of the world, split "test";
- *stream* (`--stream`): all weights learn restaurant, book, car, course, kettle in turn by the first pattern (AdamW,
  1e-3, 60 steps of 16 of 300 labels); accuracy on each domain, 400 texts, after each;
- *sheets* (causal models): nats a token of the texts of held-out museums, inns and shops given their slots, and of
  places, whose slots pre-training never showed;
- *overlap*: how many of these texts, or combinations of slots, occur in the first `--documents` of pre-training, in any
  of its styles.

Accuracies are in [0, 1]; 1,000 texts give a standard error of 0.015 or less.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scenarios")]

from bench_scenarios import language_world as world  # noqa: E402

FOLDER = ROOT / "plugins" / "bench_backbones" / "weights" / "language"
# {} the text, # the domain, _ the word asked for, which ends the pattern of a causal model
PATTERNS = {
    "masked": (
        "it was _ . {}",
        "{} it was _ .",
        "just _ ! {}",
        "{} all in all , it was _ .",
        "{} in summary , the # is _ .",
    ),
    "causal": ("{} it was _", "{} all in all , it was _", "{} in summary , the # is _"),
}
TOPIC_PATTERNS = {
    "masked": ("_ : {}", "_ news : {}", "from the pages on _ : {}", "[ category : _ ] {}"),
    "causal": ("{} more about _", "{} the _"),
}
VERBALIZER = (("bad", "terrible"), ("good", "great"))


class Cloze:
    """A language model of words that is asked for one word.

    Args:
        model: A masked or causal model of transformers.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.kind = "causal" if tokenizer.mask_token_id is None else "masked"
        tokenizer.padding_side = "right"

    def fill(self, pattern: str, text: str, domain: str) -> str:
        """The question; that of a causal model ends where the answer begins."""
        blank = self.tokenizer.mask_token or ""
        return pattern.replace("#", domain).replace("_", blank).replace("{}", text).strip()

    def scores(self, questions: Sequence[str], labels: Sequence[Sequence[str]]) -> Tensor:
        """Mean logit of the words of each label, `(B, labels)`."""
        batch = self.tokenizer(list(questions), padding=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        ends = mask.sum(dim=1) - 1
        at = (ids == self.tokenizer.mask_token_id).int().argmax(dim=1) if self.kind == "masked" else ends
        words = torch.tensor([self.tokenizer.convert_tokens_to_ids(list(label)) for label in labels])
        return logits[torch.arange(len(ids)), at][:, words].mean(dim=2)

    @torch.inference_mode()
    def accuracy(
        self, pattern: str, texts: Sequence[tuple[world.Labelled, str]], labels: Sequence[Sequence[str]] = VERBALIZER
    ) -> float:
        """Share of right answers; the texts come with their domains."""
        right = 0
        for first in range(0, len(texts), 200):
            part = texts[first : first + 200]
            found = self.scores([self.fill(pattern, item.text, domain) for item, domain in part], labels).argmax(dim=1)
            right += int((found == torch.tensor([item.label for item, _ in part])).sum())
        return right / len(texts)


def reviews(domains: Sequence[str], count: int, *, split: str, seed: int = 0) -> list[tuple[world.Labelled, str]]:
    """The first reviews of each domain, `count` together."""
    each = count // len(domains)
    return [(world.review(domain, i, split=split, seed=seed), domain) for i in range(each) for domain in domains]


def news(count: int, *, split: str, seed: int = 0) -> list[tuple[world.Labelled, str]]:
    """The first pieces of news."""
    return [(world.news(i, split=split, seed=seed), "") for i in range(count)]


def stream(cloze: Cloze) -> list[list[float]]:
    """Accuracy on each target domain after learning each of them in turn; changes the model."""
    pattern, model = PATTERNS[cloze.kind][0 if cloze.kind == "causal" else 1], cloze.model
    tests = [reviews([domain], 400, split="test") for domain in world.TARGET]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    draw = torch.Generator().manual_seed(0)
    rows = []
    for domain in world.TARGET:
        labelled = reviews([domain], 300, split="train")
        for _ in range(60):
            batch = [labelled[i] for i in torch.randint(len(labelled), (16,), generator=draw).tolist()]
            scores = cloze.scores([cloze.fill(pattern, item.text, domain) for item, _ in batch], VERBALIZER)
            loss = F.cross_entropy(scores, torch.tensor([item.label for item, _ in batch]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        rows.append([cloze.accuracy(pattern, test) for test in tests])
    return rows


@torch.inference_mode()
def nats(cloze: Cloze, sheets: Sequence[world.Sheet]) -> float:
    """Nats a token, the end included, of the first text of each sheet given its slots."""
    total, tokens = 0.0, 0
    for sheet in sheets:
        given = cloze.tokenizer(f"{sheet.source} =")["input_ids"]
        text = cloze.tokenizer(sheet.references[0], add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*given, *text, cloze.tokenizer.eos_token_id]])
        logits = cloze.model(input_ids=ids).logits[0, len(given) - 1 : -1]
        total += float(F.cross_entropy(logits, ids[0, len(given) :], reduction="sum"))
        tokens += len(text) + 1
    return total / tokens


def load(folder: Path) -> Cloze:
    """The model of a folder, masked if its tokenizer has a mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto = AutoModelForCausalLM if tokenizer.mask_token_id is None else AutoModelForMaskedLM
    return Cloze(auto.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure a bundled language model on texts it never saw.")
    parser.add_argument("model", help="nano-mlm, nano-lm, or a folder")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the world (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=1000, help="texts per figure (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=0, help="pre-training documents to search for the texts")
    parser.add_argument("--stream", action="store_true", help="learn the target domains in turn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(given.model)
    folder = folder if folder.is_dir() else FOLDER / given.model
    cloze = load(folder)
    print(f"{given.model}: {sum(p.numel() for p in cloze.model.parameters())} parameters, world {world.digest()[:12]}")
    used: set[str] = set()
    for seed in range(given.seeds):
        for name, domains in (("source", world.SOURCE), ("target", world.TARGET)):
            texts = reviews(domains, given.texts, split="test", seed=seed)
            used |= {item.text for item, _ in texts}
            figures = [f"{cloze.accuracy(pattern, texts):.3f}" for pattern in PATTERNS[cloze.kind]]
            print(f"seed {seed}: cloze {name} {' '.join(figures)}", flush=True)
            if name == "target":
                each = [[pair for pair in texts if pair[1] == domain] for domain in domains]
                figures = [f"{cloze.accuracy(PATTERNS[cloze.kind][1], part):.3f}" for part in each]
                print(f"seed {seed}: cloze by domain {' '.join(figures)}", flush=True)
        texts = news(given.texts, split="test", seed=seed)
        used |= {item.text for item, _ in texts}
        figures = [f"{cloze.accuracy(p, texts, [[t] for t in world.TOPICS]):.3f}" for p in TOPIC_PATTERNS[cloze.kind]]
        print(f"seed {seed}: cloze topics {' '.join(figures)}", flush=True)
        for kind in world.SHEETS if cloze.kind == "causal" else ():
            sheets = [world.sheet(index, kind=kind, split="test", seed=seed) for index in range(given.texts // 5)]
            used |= {sheet.combination for sheet in sheets}
            print(f"seed {seed}: {kind} {nats(cloze, sheets):.3f} nats a token", flush=True)
    if given.documents:
        found: set[str] = set()
        for index, style in itertools.product(range(given.documents), ("plain", "usual", "dense")):
            found |= used & set(world.document(index, style=style).parts)
        print(f"{len(found)} of {len(used)} texts and combinations occur in {given.documents} documents", flush=True)
    if given.stream:
        for domain, row in zip(world.TARGET, stream(cloze), strict=True):
            print(f"after {domain}: {' '.join(f'{value:.3f}' for value in row)}", flush=True)


if __name__ == "__main__":
    main()
