"""Trains the bundled language models on texts of `language_world`: `nano-mlm`, which fills gaps, and `nano-lm`.

    L="nice -n 10 python pretraining/nano_lm.py"
    export OMP_NUM_THREADS=1
    $L nano-mlm --work build/nano_lm --out build/nano_lm
    $L nano-mlm --work build/nano_lm --init build/nano_lm/nano-mlm --first 192000 --steps 1300 --plain 0 --style dense \
        --rate 2e-3
    $L nano-lm --work build/nano_lm

One thread, no download. Both are ordinary configurations of transformers with rotary positions, ModernBERT and Llama,
with biases (which some methods train), and a tokenizer of whole words. Each document is seen once, in groups of 40
batches of similar lengths. The first 40 % of the steps see plain documents, without denials and contrasts: from usual
ones alone neither model had left chance on reviews after 150 and 300 s of one core.

- nano-mlm: where a word sums the text up (`Document.key`), it is always masked, and 10 % of the others; in other texts
  15 %, and three quarters of the common words of praise and blame. The keys of a batch count as much as all its other
  masked words. The second run has more denials and contrasts.
- nano-lm: all tokens count the same, and keys that stand behind what they sum up once more.

The weights of the last step are kept, none are selected. The logs of the shipped weights are
`pretraining/logs/nano_mlm.log` and `nano_lm.log`, their cards lie beside them, `pretraining/measure_lm.py` makes the
figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scenarios"), str(ROOT / "pretraining")]

from measure_lm import FOLDER, PATTERNS, TOPIC_PATTERNS, Cloze, news, reviews  # noqa: E402

from bench_scenarios import _language_words as words  # noqa: E402
from bench_scenarios import language_world as world  # noqa: E402

SEED = 20261129
CONTEXT = 256
SHAPE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}
ROPE = {"rope_type": "default", "rope_theta": 1000.0}  # texts are short
GROUP = 40  # batches that are sorted by length together

Say = Callable[[str], None]


def tokenizer_of(masked: bool) -> PreTrainedTokenizerFast:
    """Whole words in lower case, punctuation apart; the names of the special tokens are those of BERT."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if masked else ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
    vocabulary = {word: number for number, word in enumerate(special + world.vocabulary())}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    first = special[2]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if masked else "[BOS] $A",
        pair="[CLS] $A [SEP] $B [SEP]" if masked else "[BOS] $A $B",
        special_tokens=[(name, vocabulary[name]) for name in ([first, "[SEP]"] if masked else [first])],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    names |= (
        {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        if masked
        else {"bos_token": "[BOS]", "eos_token": "[EOS]"}
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=CONTEXT, clean_up_tokenization_spaces=False, **names
    )


def model_of(masked: bool, tokenizer: PreTrainedTokenizerFast, width: int) -> Any:
    """The model with new weights; `width` is that of the inner layer."""
    shared: dict[str, Any] = {
        **SHAPE,
        "vocab_size": len(tokenizer),
        "intermediate_size": width,
        "initializer_range": 0.02 if masked else 0.05,
        "pad_token_id": tokenizer.pad_token_id,
        "attention_bias": True,
        "mlp_bias": True,
    }
    if not masked:
        causal = LlamaForCausalLM(
            LlamaConfig(
                **shared,
                rope_parameters=ROPE,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        return started(causal, ("lm_head", "o_proj", "down_proj"))
    ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    model = ModernBertForMaskedLM(
        ModernBertConfig(
            **shared,
            **ends,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            norm_bias=True,
            layer_types=["full_attention"] * SHAPE["num_hidden_layers"],
            rope_parameters={"full_attention": ROPE, "sliding_attention": ROPE},
        )
    )
    return started(model, ("decoder",))


def started(model: nn.Module, kept: Sequence[str]) -> nn.Module:
    """The model with larger matrices in its layers: with the usual 0.02, at this width, layers would hardly speak."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.split(".")[-1] not in kept:
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


class Reader:
    """Batches of documents as ids `(B, n)` and positions of their keys `(B,)`, -1 for none."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch: int, first: int, plain: int, style: str) -> None:
        self.first, self.plain, self.style = first, first + plain, style
        self.ids = tokenizer.get_vocab()
        self.masked = tokenizer.mask_token is not None
        self.batch = batch

    def encode(self, document: world.Document) -> tuple[list[int], int]:
        """Ids with those at the ends, and where the key is."""
        inner = [self.ids[word] for word in document.text.split()]
        begin, end = ("[CLS]", "[SEP]") if self.masked else ("[BOS]", "[EOS]")
        return [self.ids[begin], *inner, self.ids[end]], document.key + 1 if document.key >= 0 else -1

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Without end."""
        shuffle, first = torch.Generator().manual_seed(SEED), self.first
        while True:
            group = [
                self.encode(world.document(i, style="plain" if i < self.plain else self.style))
                for i in range(first, first + GROUP * self.batch)
            ]
            first += len(group)
            group.sort(key=lambda row: len(row[0]))
            for place in torch.randperm(GROUP, generator=shuffle).tolist():
                rows = group[place * self.batch : (place + 1) * self.batch]
                ids = torch.zeros(self.batch, max(len(row) for row, _ in rows), dtype=torch.long)
                for number, (row, _) in enumerate(rows):
                    ids[number, : len(row)] = torch.tensor(row)
                yield ids, torch.tensor([key for _, key in rows])


class MaskedLoss:
    """Cross-entropy of the masked words: that of the keys, plus that of the rest."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.mask, self.words = tokenizer.mask_token_id, len(tokenizer)
        self.special = self.mask + 1  # ids below are special
        self.common = torch.zeros(self.words, dtype=torch.bool)
        self.common[tokenizer.convert_tokens_to_ids(words.GOOD + words.BAD)] = True
        self.draw = torch.Generator().manual_seed(SEED + 1)

    def __call__(self, model: Any, ids: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of keys and of other words."""
        chance = torch.rand(ids.shape, generator=self.draw)
        keyed = (keys >= 0).unsqueeze(1)
        rate = torch.where(keyed, 0.10, torch.where(self.common[ids], 0.75, 0.15))
        key = torch.zeros_like(ids, dtype=torch.bool)
        key[keyed.squeeze(1)] = F.one_hot(keys[keyed.squeeze(1)], ids.shape[1]).bool()
        chosen = (chance < rate) & (ids >= self.special) | key
        # BERT's rule for the words that are no keys: 80 % masked, 10 % replaced, 10 % kept
        fate = torch.rand(ids.shape, generator=self.draw)
        other = torch.randint(self.special, self.words, ids.shape, generator=self.draw)
        shown = torch.where(chosen & (key | (fate < 0.8)), self.mask, ids)
        shown = torch.where(chosen & ~key & (fate >= 0.8) & (fate < 0.9), other, shown)
        hidden = model.model(input_ids=shown, attention_mask=ids != 0).last_hidden_state[chosen]
        losses = F.cross_entropy(model.decoder(model.head(hidden)), ids[chosen], reduction="none")
        return losses[key[chosen]].mean(), losses[~key[chosen]].mean()


class CausalLoss:
    """Cross-entropy of the next token: that of the keys, plus that of all."""

    def __call__(self, model: Any, ids: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of keys and of all tokens."""
        logits = model(input_ids=ids[:, :-1], attention_mask=ids[:, :-1] != 0).logits
        losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        # A key that stands in front of its text cannot be known: the longest frame puts four words there.
        known = (keys > 5).nonzero().squeeze(1)
        real = ids[:, 1:] != 0
        return losses[known, keys[known] - 1].mean(), losses[real].mean()


def optimiser_for(model: nn.Module) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )


def train(cloze: Cloze, reader: Reader, steps: int, rate: float, weight: float, say: Say) -> None:
    """Trains the model; the rate rises over 100 steps and falls to zero in a line."""
    model, masked = cloze.model, cloze.kind == "masked"
    loss_of = MaskedLoss(cloze.tokenizer) if masked else CausalLoss()
    optimiser, totals, tokens = optimiser_for(model), torch.zeros(2), 0
    model.train()
    for step, (ids, keys) in zip(range(steps), reader.batches(), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * (1 - step / steps)
        losses = torch.stack(loss_of(model, ids, keys)).nan_to_num()  # a batch may have no key
        optimiser.zero_grad()
        (losses * torch.tensor([weight, 1.0])).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        totals += losses.detach()
        tokens += int((ids != 0).sum())
        if (step + 1) % 100 == 0:
            key, rest = (totals / 100).tolist()
            totals.zero_()
            spent = time.process_time()
            say(f"step {step + 1:5d}, keys {key:.3f} words {rest:.3f}, {tokens} tokens, {spent:.0f} s of one core")
        if (step + 1) % 500 == 0 or step + 1 == steps:
            model.eval()
            report(cloze, f"step {step + 1}", say)
            model.train()
    model.eval()


def report(cloze: Cloze, when: str, say: Say) -> None:
    """Progress on texts of the split "train"; nothing is chosen by it."""
    parts = []
    for name, domains in (("source", world.SOURCE), ("target", world.TARGET)):
        texts = reviews(domains, 300, split="train", seed=1000)
        parts += [name, *(f"{cloze.accuracy(pattern, texts):.3f}" for pattern in PATTERNS[cloze.kind])]
    texts = news(300, split="train", seed=1000)
    labels = [[topic] for topic in world.TOPICS]
    parts += ["topics", *(f"{cloze.accuracy(p, texts, labels):.3f}" for p in TOPIC_PATTERNS[cloze.kind])]
    say(f"{when}: cloze {' '.join(parts)}")


def save(cloze: Cloze, folder: Path) -> dict[str, Any]:
    """Writes what `from_pretrained` reads, and beside the folder a description with the hashes of its files."""
    cloze.model.save_pretrained(folder)
    cloze.tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner only
    description = {
        "name": folder.name,
        "description": f"{cloze.kind} language model of the bundled world of reviews, news and places",
        "architecture": type(cloze.model).__name__,
        "parameters": sum(p.numel() for p in cloze.model.parameters()),
        "words": len(cloze.tokenizer),
        "world": world.digest(),
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())},
        "licence": "Apache-2.0",
    }
    folder.with_name(f"{folder.name}.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return description


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train a bundled language model on the world's texts.")
    parser.add_argument("model", choices=("nano-mlm", "nano-lm"))
    parser.add_argument("--work", type=Path, required=True, help="folder for the log")
    parser.add_argument("--out", type=Path, help="folder of the model's folder (default: the bundled ones')")
    parser.add_argument("--init", type=Path, help="folder of a model to go on from")
    parser.add_argument("--first", type=int, default=0, help="index of the first document (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4000, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=48, help="documents per step (default: %(default)s)")
    parser.add_argument(
        "--plain", type=float, default=0.4, help="share of steps on plain documents (default: %(default)s)"
    )
    parser.add_argument("--style", default="usual", help="of the other documents (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--width", type=int, default=256, help="of the inner layers (default: %(default)s)")
    parser.add_argument("--key-weight", type=float, default=1.0, help="of the keys' loss (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    masked = given.model == "nano-mlm"
    given.work.mkdir(parents=True, exist_ok=True)
    log, began = given.work / f"{given.model.replace('-', '_')}.log", time.monotonic()

    def say(line: str) -> None:
        stamped = f"[{time.monotonic() - began:7.1f} s] {line}"
        print(stamped, flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")

    say(f"torch {torch.__version__}, transformers {transformers.__version__}, seed {SEED}, {' '.join(sys.argv[1:])}")
    tokenizer = tokenizer_of(masked)
    cloze = Cloze(model_of(masked, tokenizer, given.width), tokenizer)
    if given.init is not None:
        cloze.model.load_state_dict(type(cloze.model).from_pretrained(given.init).state_dict())
    say(
        f"world {world.digest()}, {len(tokenizer)} words, {sum(p.numel() for p in cloze.model.parameters())} parameters"
    )
    plain = int(given.plain * given.steps) * given.batch
    reader = Reader(tokenizer, given.batch, given.first, plain, given.style)
    train(cloze, reader, given.steps, given.rate, given.key_weight, say)
    say(json.dumps(save(cloze, (given.out or FOLDER) / given.model)))
    say(f"{time.process_time():.0f} s of one core")


if __name__ == "__main__":
    main()
