"""P-tuning: learned positions inside the pattern, filled by a small LSTM; the language model frozen or trained too.

Paper: Liu, Zheng, Du, Ding, Qian, Yang, Tang. GPT Understands, Too, 2021, arXiv 2103.10385.
Official code: THUDM/P-tuning at f4225d4d, ``PT-Fewshot`` and ``LAMA``. Outputs of the encoder, embeddings, logits,
losses, gradients and parameters after three steps equal those recorded from both, in float64
(tests/unit/methods/test_p_tuning_golden.py). Written anew, no code taken.

Two forms in one method. **Few-shot** (the default): patterns as in PET, with ``{soft}`` where a position is learned;
the language model trains too, at a rate of its own (``model_lr``), and the loss is among the words of the classes. A
pattern without ``{soft}`` gets ``length`` positions in front of the words that lead to the mask. **Facts** (recipe
``lama``): no words, only groups of learned positions (``template``): ``[t0] mask [t1] subject [t2]``, or, with a causal
model, ``[t0] subject [t1]``; the model stays as it is and the loss is over its whole vocabulary.

Differences from the paper and the official code:
- Facts: the answer is the likeliest of the words of the classes; the code has a list of words that LAMA's models share.
  A class with several words is trained towards its first one. Models are float32; the code casts frozen ones to half.
- A causal model with ``template`` is asked one position before the last, as the code does (it sets the label there
  and the library shifts it): the last learned vector is read only by the encoder.
- ``drop_last``: the last batch of a pass takes no step if it is not full, unless it is the only one; the engine draws
  the order of every pass anew, so other examples are left out each time, as by torch's loader. The rate falls by
  ``epoch_decay`` after each pass.
- ``mlp`` with several positions, which the few-shot code cannot run, treats each by itself.
- The last step counts; the code keeps the best on development data and stops early (``engine.select`` does that). It
  makes one step more than it says, at rate 0.
- A text that is too long loses as many tokens as needed; the code removes the special tokens twice.
- With Adam and a trained model, biases and norms of the model do not decay; the code decays them.
- Recipes are for the tasks that are scenarios here. MultiRC from a file is ``p-tuning@boolq`` with ``max_length=512``
  and ``pattern="{passage} . Question: {question} ? Is it {answer} ? {soft} {mask} ."``, WiC is ``p-tuning@rte`` with
  ``lr=1e-5``, ``warmup=0`` and ``pattern="{sentence1} | {sentence2} {soft} * {word} * ? {mask}"``. COPA and WSC have
  answers of their own for each example, which are no classes.
- Streams are not in the paper: encoder and model go on from experience to experience, the optimiser starts anew.

Expected (paper's few-shot code, albert-xxlarge-v2, 32 examples): CB accuracy 0.8929, macro-F1 0.8679 (comment of its
script). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import MethodSpec, hookimpl
from benchmark.api import Batch, Context, Place, Text
from benchmark.backbones.language import Tokens, ids_on
from benchmark.backbones.language.prompt_encoders import EncoderKind, PromptEncoder
from benchmark.backbones.language.soft_prompts import placed
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.learners.language import NO_DECAY, ClozeConfig, ClozeLearner, asked, rate_at

_SOFT = re.compile(r"\{soft(?::(\d+))?\}")
_MASK = re.compile(r"\{mask(?::\d+)?\}")
_ORDER = re.compile(r"\{(?:first|second)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PTuningConfig(ClozeConfig):
    """Options of P-tuning; the defaults are those of the few-shot code but for the sizes.

    In a ``pattern``, ``{first}`` and ``{second}`` are the first two fields of the scenario's examples.

    Attributes:
        length: Learned positions of a pattern that says none; those of a pattern with ``{soft:3}`` are counted there.
            With one, as in the recipes, the recurrent weights of the LSTM take no part.
        template: Instead of a pattern, sizes of the groups of learned positions ``t0,t1,t2``; of a causal model the
            first two count. Where ``t2`` is 0, a full stop stands there.
        encoder: ``lstm``, ``half-lstm`` (half as many units) or ``mlp``.
        lr: Of the encoder.
        weight_decay: Of the encoder, all of it.
        model_lr: Of the language model; 0: it stays as it is.
        model_decay: Of the language model, not of its biases and norms.
        epoch_decay: Factor of all rates after each pass.
        loss: Cross-entropy among the ``words`` of the classes, or over the whole ``vocabulary``.
        drop_last: Whether a last batch of a pass that is not full takes no step.
        dropout: Whether the model's own dropout, as its configuration says, acts in training: ``model``, or ``off``.
    """

    epochs: int = 10
    batch_size: int = 16
    lr: float = 1e-4
    optimizer: Literal["adamw", "adam", "early-adamw", "adafactor"] = "early-adamw"
    length: Annotated[int, Range(min=1)] = 3
    template: Annotated[tuple[int, ...], Range(min=0)] = ()
    encoder: EncoderKind = "lstm"
    model_lr: Annotated[float, Range(min=0, log=True, search=(1e-5, 0.01))] = 1e-5
    model_decay: Annotated[float, Range(min=0)] = 0.1
    epoch_decay: Annotated[float, Range(above=0, max=1)] = 1.0
    loss: Literal["words", "vocabulary"] = "words"
    drop_last: bool = False
    dropout: Literal["model", "off"] = "model"

    def __post_init__(self) -> None:
        ClozeConfig.__post_init__(self)
        if self.template and (len(self.template) != 3 or not self.template[1]):
            said = ",".join(map(str, self.template))
            raise ValueError(f"template: {said} is no template; use three sizes, the second at least 1, e.g. 3,3,3")
        if self.template and self.pattern != "auto":
            raise ValueError(f"pattern: {self.pattern!r} has no effect with a template; use one of them")
        if self.loss == "vocabulary" and self.mask == "current":
            raise ValueError("mask: current has no effect with loss `vocabulary`; use `loss=words`")


class PTuning(ClozeLearner):
    """The encoder trains, and the language model if it has a learning rate.

    Raises:
        UsageError: The model is an encoder-decoder, or reads none of the learned positions.
    """

    config: PTuningConfig

    def __init__(self, config: PTuningConfig, context: Context) -> None:
        super().__init__(config, context)
        if self.language.architecture == "encoder-decoder":
            raise UsageError(
                f"p-tuning: `{self.language.name}` is an encoder-decoder, whose words are not asked for at a mask",
                hint="use prompt-tuning, or a masked or causal model",
            )
        self.encoder = PromptEncoder(self._positions(), self.language.width, config.encoder).to(context.device)
        if config.model_lr:
            self.model.requires_grad_(True)

    def choose_pattern(self) -> str:
        """The pattern of all examples, learned positions in it; with a template that follows from the fields."""
        if self.config.template:
            return ""
        chosen = super().choose_pattern()
        return chosen if _SOFT.search(chosen) else with_soft(chosen, self.config.length)

    def pattern(self, text: Text) -> str:
        """The chosen one, or the template around the fields of an example."""
        names = self.context.segments or tuple(text)
        if not self.config.template:
            known = dict(zip(("{first}", "{second}"), (f"{{{name}}}" for name in names), strict=False))
            return _ORDER.sub(lambda found: known.get(found[0], found[0]), self._pattern)
        first, second, third = (f"{{soft:{size}}}" if size else "" for size in self.config.template)
        fields = " ".join(f"{{{name}}}" for name in names)
        if self._causal:
            return f"{first} {fields} {second} {{mask}}"
        return f"{first} {{mask}} {second} {fields} {third or '.'}"

    def _positions(self) -> int:
        """How many learned positions an example has, as the model reads it."""
        pattern = self.pattern({"text": ""})
        read = _MASK.split(pattern)[0] if self._causal else pattern
        found = sum(int(size or 1) for size in _SOFT.findall(read))
        if not found:
            raise UsageError(
                f"pattern {pattern!r} has no learned position that {self.language.name} reads",
                hint="write {soft}, with a causal model in front of {mask}, or leave it out: it is then put there",
            )
        return found

    @property
    def _causal(self) -> bool:
        return self.language.architecture == "causal"

    @property
    def frozen(self) -> bool:
        """Whether the model stays in eval mode in training: where its dropout is switched off."""
        return self.config.dropout == "off"

    def embeds(self, tokens: Tokens) -> Tensor:
        """Embeddings of the tokens, outputs of the encoder at the learned positions."""
        return placed(self.language, tokens, self.encoder())

    def word_logits(self, tokens: Tokens) -> Tensor:
        """Logits of all words where the model is asked, ``(B, V)``."""
        at = tokens.last - 1 if self._causal and self.config.template else asked(tokens)
        return self.language.logits(tokens, at, embeds=self.embeds(tokens))[:, 0]

    def scores(self, tokens: Tokens) -> Tensor:
        """Mean logits of the words of each class."""
        return self._words.scores(self.word_logits(tokens))

    def loss(self, tokens: Tokens, labels: Tensor) -> Tensor:
        """Cross-entropy among the classes that compete, or over all words."""
        if self.config.loss == "words":
            return super().loss(tokens, labels)
        words = ids_on(tuple(some[0] for some in self._words.ids), labels.device)
        return F.cross_entropy(self.word_logits(tokens), words[labels])

    def groups(self) -> list[dict[str, Any]]:
        """The encoder, and the model's weights that decay and those that do not, each with its rate."""
        config = self.config
        groups = [_group(self.encoder.parameters(), config.lr, config.weight_decay)]
        if config.model_lr:
            named = list(self.model.named_parameters())
            still = {name for name, _ in named if any(part in name.lower() for part in NO_DECAY)}
            decayed = (parameter for name, parameter in named if name not in still)
            groups.append(_group(decayed, config.model_lr, config.model_decay))
            groups.append(_group((parameter for name, parameter in named if name in still), config.model_lr, 0.0))
        return [group for group in groups if group["params"]]

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step on the encoder and the model; none where the batch is dropped, whose loss is only told."""
        place = batch.place
        last = place.epoch_steps > 1 and place.epoch_step == place.epoch_steps - 1
        if self.config.drop_last and last and len(batch.labels) < self.config.batch_size:
            with torch.no_grad():
                return {"loss": self.loss(self.language.batch(self.rows(batch.texts)), batch.labels)}
        return super().train_step(batch)

    def follow(self, loss: Tensor, place: Place) -> Mapping[str, Tensor | float]:
        """One step of the optimiser, at the rate of the place; the gradient's norm is that of encoder and model."""
        config = self.config
        factor = rate_at(place, schedule=config.schedule, warmup=config.warmup) * config.epoch_decay**place.epoch
        self.descend(loss, factor=factor, clip=config.clip)
        return {"loss": loss.detach()}


def with_soft(pattern: str, length: int) -> str:
    """A pattern with learned positions behind the last field, or segment, in front of its mask.

    ``"{text} it is {mask} ."`` becomes ``"{text} {soft:2} it is {mask} ."``.
    """
    found = _MASK.search(pattern)
    front = pattern[: found.start()] if found else pattern
    at = max(front.rfind("}"), front.rfind("|")) + 1
    return f"{pattern[:at]} {{soft:{length}}} {pattern[at:].lstrip()}".strip()


def _group(parameters: Iterator[nn.Parameter], lr: float, decay: float) -> dict[str, Any]:
    return {"params": list(parameters), "lr": lr, "base_lr": lr, "weight_decay": decay}


# 250 or 3,500 steps of 16 (2 on each of 8 devices) over the 32 examples of a task.
_TASKS: dict[str, dict[str, object]] = {
    "boolq": {"pattern": "{first} . {soft} Question: {second} ? Answer: {mask} .", "epochs": 125, "lr": 1e-4},
    "cb": {"pattern": "{first} | {second} ? {soft} answer: {mask}", "epochs": 125, "lr": 1e-5},
    "rte": {
        "pattern": "{first} Question: {second} ? {soft} Answer: {mask} .",
        "epochs": 1750,
        "lr": 1e-4,
        "warmup": 0.0429,  # 150 steps
    },
}
_LAMA: dict[str, object] = {
    "template": (3, 3, 3),
    "encoder": "half-lstm",
    "loss": "vocabulary",
    "optimizer": "adam",
    "lr": 1e-5,
    "weight_decay": 5e-4,
    "model_lr": 0.0,
    "schedule": "constant",
    "epoch_decay": 0.98,
    "clip": 0.0,
    "batch_size": 8,
    "epochs": 100,
    "drop_last": True,
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``p-tuning``."""
    return [
        MethodSpec(
            name="p-tuning",
            build=PTuning,
            config=PTuningConfig,
            summary="learned positions inside the pattern, filled by an LSTM; the language model trained or frozen",
            uses=frozenset({"boundaries", "class_names"}),
            recipes={
                "lama": _LAMA,
                "masked": {"mask": "current"},
                **{name: {"batch_size": 16, "max_length": 256, **values} for name, values in _TASKS.items()},
            },
            tracks={"nano": {"epochs": 3, "batch_size": 16, "lr": 1e-3, "model_lr": 1e-3}},
            rule="results/search.py: best on held-out training texts of the first domain of reviews-domains",
            toy={"epochs": 1},
            sources={
                "lama": "THUDM/P-tuning at f4225d4d, LAMA/cli.py: template (3,3,3), Adam with L2, rate times 0.98",
                "masked": "adaptbench: only the current classes compete",
                **dict.fromkeys(_TASKS, "THUDM/P-tuning at f4225d4d, PT-Fewshot/scripts: albert-xxlarge-v2, 32 labels"),
                "optimizer": "transformers 3.0.2, AdamW; eps before the bias correction",
            },
            paper="arXiv:2103.10385",
            reference="THUDM/P-tuning@f4225d4d",
            reads="text",
            cloze=True,
        )
    ]
