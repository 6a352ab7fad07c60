"""Progressive prompts: each experience trains a prompt of its own, in front of the frozen ones of those before it.

Paper: Razdaibiedina, Mao, Hou, Khabsa, Lewis, Almahairi. Progressive Prompts: Continual Learning for Language Models,
ICLR 2023, arXiv 2301.12314.
Official code: arazd/ProgressivePrompts at a71dc9a1, ``T5_codebase/t5_continual.py``; read, not run (it needs T5 and the
data sets of its time). The concatenation, what is frozen, the reparameterisation, the loss and the optimiser are its;
tests/unit/methods/test_soft_prompts.py holds them to the formulas. Written anew, no code taken.

The input is ``[P_k; P_(k-1); ...; P_1; text]``: the newest prompt in front. Only P_k trains; with a reparameterisation
it is ``P_k + mlp(P_k)``, and what the network gave is kept, not the network. Models other than T5 are asked as in
`bench_methods.prompt_tuning`.

At test time the paper knows the task of every text and uses the prompts up to that of its task. Here the default knows
no task: all prompts learned so far stand in front of every text. With ``task_known`` the method declares ``task_id``
and does as the paper says wherever the task is given at test time (task-incremental streams, or ``engine.task_known``).

Differences from the paper and the official code:
- A prompt starts from different rows of the 5,000 first embeddings; the code draws from all of them, with repetition.
- The last epoch counts; the code keeps the best on validation data (``engine.select`` does that).
- A long text is shortened in its fields; the code cuts the end of [prompts; text], the end token included.
- ``mlp1`` cannot be built at that commit (an undefined name in `ResMLP`); it is here as its lines say.
- The model's own dropout is off (``model_dropout``, on in the recipe).
- Replay of past texts, and the BERT form, which trains word embeddings and heads as well, are not here.

Expected (paper, abstract): with T5, average accuracy more than 20 points above the best method before it. Its tables
were not read for this file, and nothing is reproduced here on the paper track yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from benchmark import MethodSpec, hookimpl
from benchmark.api import Context, ExperienceView, Text
from benchmark.backbones.language.soft_prompts import initial
from benchmark.config import Range
from benchmark.learners.language import chosen_words
from benchmark.learners.soft_prompts import SoftPromptConfig, SoftPromptLearner
from benchmark.learners.targets import Reduction

Network = Literal["none", "mlp1", "mlp2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressivePromptsConfig(SoftPromptConfig):
    """Options of progressive prompts; the defaults are those of the official code but for the sizes.

    Attributes:
        network: What a prompt passes while it trains: nothing, ``mlp1`` (two layers) or ``mlp2`` (three).
        bottleneck: Width of its hidden layer.
        layer_norm: Whether ``mlp1`` ends in a layer norm, with ReLU inside; without, it has tanh inside.
        residual: Whether the prompt is added to what it gives.
        task_known: Whether a text whose task is known at test time gets the prompts up to that of its task.
    """

    epochs: int = 10
    batch_size: int = 8
    lr: float = 0.3
    optimizer: Literal["adamw", "adam", "early-adamw", "adafactor"] = "early-adamw"
    weight_decay: float = 1e-5
    schedule: Literal["constant", "linear"] = "constant"
    clip: float = 0.0
    length: Annotated[int, Range(min=1)] = 10
    target_loss: Reduction = "mean"
    network: Network = "none"
    bottleneck: Annotated[int, Range(min=2)] = 800
    layer_norm: bool = True
    residual: bool = True
    task_known: bool = False


def make_network(config: ProgressivePromptsConfig, width: int) -> nn.Module:
    """The network of a reparameterisation for vectors of a width."""
    hidden = config.bottleneck
    if config.network == "mlp1":
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, width)
        if config.layer_norm:
            return nn.Sequential(first, nn.ReLU(), last, nn.LayerNorm(width))
        return nn.Sequential(first, nn.Tanh(), last)
    if config.network == "mlp2":
        inner = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden // 2), nn.Tanh()]
        return nn.Sequential(*inner, nn.Linear(hidden // 2, width))
    return nn.Identity()


class ProgressivePrompts(SoftPromptLearner):
    """The prompt of this experience trains, and its network."""

    config: ProgressivePromptsConfig

    def __init__(self, config: ProgressivePromptsConfig, context: Context) -> None:
        super().__init__(config, context)
        width = self.language.width
        self.own = nn.Parameter(torch.zeros(config.length, width))
        self.past = nn.Parameter(torch.zeros(0, width), requires_grad=False)
        self.network = make_network(config, width)
        self._learning = False
        self._task: int | None = None
        self.to(context.device)

    def current(self) -> Tensor:
        """The prompt of this experience as it stands in front of a text, ``(P, D)``."""
        if self.config.network == "none":
            return self.own
        found: Tensor = self.network(self.own)
        return found + self.own if self.config.residual else found

    def prompt(self) -> Tensor:
        """All prompts, the newest first; of a known task only those up to it."""
        vectors = torch.cat([self.current(), self.past]) if self._learning else self.past
        if self._task is None:
            return vectors
        return vectors[max(0, len(vectors) - (self._task + 1) * self.config.length) :]

    def begin_experience(self, experience: ExperienceView) -> None:
        """A new prompt, and a new network for it."""
        config = self.config
        labels = [some[0] for some in chosen_words(config.words, experience)]
        start = initial(
            self.language, config.length, config.init, labels=labels, text=config.init_text, file=config.init_file
        )
        with torch.no_grad():
            self.own.copy_(start)
        self.network = make_network(config, self.language.width).to(self.own)
        self._learning = True
        super().begin_experience(experience)

    def end_experience(self, experience: ExperienceView) -> None:
        """Puts the prompt in front of the others, as its network made it; the network is no longer needed."""
        with torch.no_grad():
            self.past = nn.Parameter(torch.cat([self.current(), self.past]), requires_grad=False)
        self.network = nn.Identity()
        self._learning = False

    def predict_task(self, inputs: Sequence[Text], task: int) -> Tensor:
        """Logits with the prompts of the experiences up to the one that the texts belong to."""
        self._task = task
        try:
            return self.predict(inputs)
        finally:
            self._task = None

    def kept_between_experiences(self) -> Iterator[Tensor]:
        """The prompts learned so far."""
        yield self.past


def uses(config: ProgressivePromptsConfig) -> frozenset[str]:
    """What a configuration looks at."""
    return frozenset({"boundaries", "class_names", *(["task_id"] if config.task_known else [])})


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``progressive-prompts``."""
    return [
        MethodSpec(
            name="progressive-prompts",
            build=ProgressivePrompts,
            config=ProgressivePromptsConfig,
            summary="a prompt for each experience in front of the frozen ones of those before it",
            uses=uses,
            recipes={
                "paper": {
                    "length": 10,
                    "lr": 0.3,
                    "optimizer": "early-adamw",
                    "weight_decay": 1e-5,
                    "batch_size": 8,
                    "epochs": 10,
                    "max_length": 512,
                    "model_dropout": True,
                    "task_known": True,
                },
                "paper-mlp": {
                    "length": 10,
                    "lr": 0.3,
                    "optimizer": "early-adamw",
                    "weight_decay": 1e-5,
                    "batch_size": 8,
                    "epochs": 10,
                    "max_length": 512,
                    "model_dropout": True,
                    "task_known": True,
                    "network": "mlp1",
                    "bottleneck": 800,
                },
            },
            tracks={"nano": {"epochs": 2, "batch_size": 8, "length": 5, "lr": 0.1}},
            rule="results/search.py: best on held-out training texts of the first two domains of reviews-domains; "
            "it is the largest of the grid",
            toy={"length": 3, "bottleneck": 8},
            sources={
                "paper": "arazd/ProgressivePrompts at a71dc9a1, README (T5-large) and defaults of train_t5_cl.py",
                "paper-mlp": "the same with --prefix_MLP MLP1",
                "bottleneck": "train_t5_cl.py: 800",
                "task_known": "paper: the task is known at test time; the default here knows none",
            },
            paper="arXiv:2301.12314",
            reference="arazd/ProgressivePrompts@a71dc9a1",
            reads="text",
            cloze=True,
        )
    ]
