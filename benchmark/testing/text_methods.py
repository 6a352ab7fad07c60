"""Drives a method on texts by hand, on given texts and a given model, e.g. to compare it with recorded numbers.

::

    tokenizer = word_tokenizer(["[PAD]", "[UNK]", ...], single="[CLS] $A [SEP]", pad_token="[PAD]", ...)
    scenario = text_scenario(texts, labels, names=("bad", "good"))
    method = begun(SPEC, language_of(model, tokenizer, "masked"), scenario, lr=0.1)
    method.train_step(Batch(texts, labels))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmark.api import Context, Experience, ExperienceView, Manifest, Method, Samples, Scenario, Text
from benchmark.backbones.language import LanguageModel
from benchmark.backbones.language.model import Architecture
from benchmark.inputs.texts import TextPipeline
from benchmark.samples import Kind, digest_of
from benchmark.scenario import Wording
from benchmark.specs import MethodSpec


class Given:
    """Texts as a source of samples."""

    kind: Kind = "text"

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = tuple(texts)
        self.digest = digest_of(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, rows: torch.Tensor, /) -> Sequence[Text]:
        return tuple(self._texts[row] for row in rows.tolist())


def samples_of(texts: Sequence[Text], labels: Sequence[int], *, first_id: int = 0) -> Samples:
    """Texts and their labels as a set."""
    rows = torch.arange(len(texts))
    return Samples(Given(texts), rows, torch.tensor(labels), first_id + rows)


def text_scenario(
    texts: Sequence[Text],
    labels: Sequence[int],
    *,
    names: Sequence[str],
    wording: Wording | None = None,
    validation: Samples | None = None,
    family: str = "domain-il",
) -> Scenario:
    """One experience of given texts, which are its test set as well."""
    known = tuple(range(len(names)))
    experience = Experience(
        train=samples_of(texts, labels),
        test=samples_of(texts, labels, first_id=len(texts)),
        classes=known,
        validation=validation,
        domain=None,
    )
    return Scenario(
        name="given",
        version=1,
        family=family,
        experiences=(experience,),
        class_names=tuple(names),
        wording=wording,
    )


def language_of(model: Any, tokenizer: Any, architecture: Architecture) -> LanguageModel:
    """A model of transformers with its tokenizer, frozen, in eval mode."""
    from benchmark.backbones.language.attention import install

    install(model)
    return LanguageModel(
        name="given",
        sha256="0" * 64,
        model=model.requires_grad_(False).eval(),
        tokenizer=tokenizer,
        architecture=architecture,
    )


def word_tokenizer(words: Sequence[str], *, single: str, pair: str = "", **names: str) -> Any:
    """A tokenizer of whole words, its ids the positions in ``words``.

    Args:
        words: The vocabulary, special tokens included.
        single: What stands around a text, e.g. ``[CLS] $A [SEP]``.
        pair: What stands around two; default: that of one, twice.
        **names: Which word is ``pad_token``, ``unk_token``, ``mask_token``, ...
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(ids, unk_token=names["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pair = pair or f"{single} {single.replace('$A', '$B')}"
    ends = [(word, ids[word]) for word in words if word in {*single.split(), *pair.split()}]
    made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)


def method_of(spec: MethodSpec, language: LanguageModel, scenario: Scenario, **options: object) -> Method:
    """A method on a given model.

    Args:
        spec: Of the method.
        language: The model.
        scenario: Its stream.
        **options: Of the method.
    """
    config = spec.config(**options)
    context = Context(
        pretrained=language,
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=TextPipeline(),
        manifest=Manifest(spec.name, spec.uses_of(config)),
    )
    return spec.build(config, context)


def begin(method: Method, scenario: Scenario, index: int = 0) -> ExperienceView:
    """Starts an experience, in training mode."""
    view = ExperienceView(scenario, index, method.context.manifest)
    method.begin_experience(view)
    method.train()
    return view


def begun(spec: MethodSpec, language: LanguageModel, scenario: Scenario, **options: object) -> Method:
    """`method_of`, at the start of the first experience."""
    method = method_of(spec, language, scenario, **options)
    begin(method, scenario)
    return method


def spoken(words: Mapping[int, str] | Sequence[str], ids: Sequence[int]) -> str:
    """The text of some ids of `word_tokenizer`."""
    return " ".join(words[number] for number in ids)
