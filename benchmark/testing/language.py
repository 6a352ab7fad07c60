"""Tiny language models with random weights for the toy texts (`benchmark.testing.raw`): of each kind, in a second."""

from __future__ import annotations

import copy
import hashlib
from functools import cache
from typing import Any

import torch

from benchmark.backbones.language import LanguageModel
from benchmark.backbones.language.model import Architecture
from benchmark.scenario import Wording

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *("a", "in", "it", "is", ".", "some", "other", "words", "that", "no", "stream", "has"),
    *(f"thing{number}" for number in range(12)),
    *(f"place{number}" for number in range(50)),
    *(f"light{number}" for number in range(256)),
    *("=", "|", ":", ",", "and", "near", "house", "stands", "go", "to", "see", "which", "the", "thing", "called", "at"),
    *("name", "size", "colour", "place", "small", "large", "tiny", "huge", "red", "green", "blue", "black", "white"),
    *("brown", "river", "old", "mill", "station", "market"),
)
LONGEST = 64


def toy_wording(classes: int) -> Wording:
    """Patterns and words of the toy texts; a class is called by what its texts call it."""
    return Wording(
        patterns=("it is {mask} . {text}", "{text} it is {mask} .", "{text} {place} it is {mask} ."),
        words={f"thing {label}": (f"thing{label}",) for label in range(classes)},
    )


def tiny_language(architecture: Architecture = "masked", seed: int = 0, *, biases: bool = True) -> LanguageModel:
    """A random ModernBERT, Llama or T5 of width 24 with 2 layers and 2 heads, frozen, in eval mode.

    Args:
        architecture: Its kind.
        seed: Of its weights; drawn from a generator of its own.
        biases: Whether a causal one has biases; masked ones do, T5 does not.
    """
    return copy.deepcopy(_made(architecture, seed, biases))


@cache
def _made(architecture: Architecture, seed: int, biases: bool) -> LanguageModel:
    import transformers

    from benchmark.backbones.language.attention import install

    shared: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    build: dict[str, Any] = {
        "masked": lambda: transformers.ModernBertForMaskedLM(
            transformers.ModernBertConfig(
                **shared,
                **sizes,
                cls_token_id=2,
                sep_token_id=3,
                max_position_embeddings=LONGEST,
                layer_types=["full_attention"] * 2,
                attention_bias=True,
                mlp_bias=True,
                norm_bias=True,
                mlp_dropout=0.1,
            )
        ),
        "causal": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                **shared,
                **sizes,
                max_position_embeddings=LONGEST,
                tie_word_embeddings=True,
                attention_bias=biases,
                mlp_bias=biases,
            )
        ),
        "encoder-decoder": lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                **shared,
                d_model=24,
                d_kv=12,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                dropout_rate=0.0,
                decoder_start_token_id=0,
                feed_forward_proj="gated-gelu",
            )
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build[architecture]()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    install(model)
    tokenizer = _tokenizer(architecture)
    return LanguageModel(
        name=f"tiny-{architecture}",
        sha256=hashlib.sha256(f"{architecture} {seed}".encode()).hexdigest(),
        model=model.requires_grad_(False).eval(),
        tokenizer=tokenizer,
        architecture=architecture,
        tokenizer_sha256=hashlib.sha256(" ".join(WORDS).encode()).hexdigest(),
    )


def _tokenizer(architecture: Architecture) -> Any:
    """Whole words; at the ends, what each kind of model is used to."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    one, two = {
        "masked": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
        "causal": ("[CLS] $A", "[CLS] $A $B"),
        "encoder-decoder": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    }[architecture]
    ends = [(name, ids[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    if architecture == "masked":
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=LONGEST, clean_up_tokenization_spaces=False, **names
    )


def language_of(model: Any, architecture: Architecture) -> LanguageModel:
    """A given model of transformers, with a tokenizer that calls its tokens by their ids.

    Args:
        model: With a head over words or without; it is put into eval mode, frozen, and uses our attention.
        architecture: Its kind.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from benchmark.backbones.language.attention import install

    install(model)
    ids = {str(number): number for number in range(model.config.vocab_size)}
    made = Tokenizer(models.WordLevel(ids, unk_token="0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return LanguageModel(
        name="given",
        sha256="0" * 64,
        model=model.requires_grad_(False).eval(),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=made, pad_token=str(model.config.pad_token_id or 0), unk_token="0", mask_token="1"
        ),
        architecture=architecture,
        fills=model.get_output_embeddings() is not None,
    )
