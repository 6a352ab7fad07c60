"""Experience replay on a language model: each step also reads texts of earlier experiences from a small memory.

Paper: Chaudhry et al., On Tiny Episodic Memories in Continual Learning, arXiv 1902.10486 (ER with a reservoir); for
texts de Masson d'Autume et al., Episodic Memory in Lifelong Language Learning, NeurIPS 2019, arXiv 1906.01076 (the row
Replay).
Official code: none with language models was compared with; the reservoir is Vitter's algorithm R, under test.

Differences:
- A step's loss is the mean over its new texts and as many from the memory, as in the first paper; the second replays
  sparsely, 100 texts after every 10,000.
- The memory is filled when an experience ends: every text of the stream so far is in it with the same probability, and
  during an experience only texts of earlier ones are replayed.
- Every weight of the model trains, as in `lm-finetune`.

Expected: no figure is reproduced here; it is compared with `lm-finetune` and `lm-joint` in its table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from benchmark import MethodSpec, hookimpl
from benchmark.api import Batch, Context, ExperienceView
from benchmark.config import Range
from benchmark.learners import tuning
from benchmark.learners.tuning import FullTuner, TuningConfig
from benchmark.samples import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class LmReplayConfig(TuningConfig):
    """Options of replay.

    Attributes:
        memory: Texts that are kept, at most.
        replayed: Texts from the memory in each step; 0: as many as `batch_size`.
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    memory: Annotated[int, Range(min=1)] = 100
    replayed: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        if self.mask != "none":
            raise ValueError(f"mask: {self.mask} leaves out the classes of the memory; use none")


class LmReplay(FullTuner):
    """Every weight trains on new texts and on some of the memory."""

    config: LmReplayConfig

    def __init__(self, config: LmReplayConfig, context: Context) -> None:
        super().__init__(config, context)
        self.texts: list[Text] = []
        self.labels = torch.empty(0, dtype=torch.int64)
        self.passed = 0  # texts of all experiences that are over

    @property
    def coupled(self) -> str | None:
        """See `Method.coupled`."""
        return "every step draws texts that it remembers"

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of gradient descent on the batch and as many texts of the memory."""
        texts, labels = list(batch.texts), batch.labels
        if self.texts:
            drawn = torch.randint(len(self.texts), (self.config.replayed or self.config.batch_size,))
            texts += [self.texts[place] for place in drawn.tolist()]
            labels = torch.cat([labels, self.labels[drawn].to(labels.device, non_blocking=True)])
        return self.follow(self.loss(self.language.batch(self.rows(texts)), labels), batch.place)

    def end_experience(self, experience: ExperienceView) -> None:
        """Every text of the stream so far gets the same chance to be in the memory."""
        train = experience.train
        labels = self.labels.tolist()
        for row, label in enumerate(train.labels.tolist()):
            place = len(self.texts)
            if place < self.config.memory:
                self.texts.append({})
                labels.append(label)
            else:
                place = int(torch.randint(self.passed + 1, ()))
            self.passed += 1
            if place < self.config.memory:
                (text,) = train.texts(slice(row, row + 1))
                self.texts[place], labels[place] = dict(text), label
        self.labels = torch.tensor(labels, dtype=torch.int64)

    def extra_state(self) -> Mapping[str, Any]:
        """The memory, and what every tuner keeps."""
        return {**super().extra_state(), "texts": self.texts, "labels": self.labels, "passed": self.passed}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        super().load_extra_state(state)
        self.texts, self.labels, self.passed = list(state["texts"]), state["labels"], int(state["passed"])

    def kept_between_experiences(self) -> Iterator[Tensor]:
        """What every method keeps, and the bytes of the texts."""
        yield from super().kept_between_experiences()
        written = sum(len(value.encode()) for text in self.texts for value in text.values())
        yield torch.empty(written, dtype=torch.uint8)


def uses(config: LmReplayConfig) -> frozenset[str]:
    """It keeps texts; words of classes only where it asks for them."""
    return tuning.uses(config) | {"memory"}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lm-replay``."""
    return [
        MethodSpec(
            name="lm-replay",
            build=LmReplay,
            config=LmReplayConfig,
            summary="full fine-tuning of a language model with a small memory of earlier texts",
            uses=uses,
            recipes={"cloze": {"readout": "cloze"}},
            toy={"memory": 10},
            tracks={"nano": {"epochs": 3, "batch_size": 16, "lr": 0.003}},
            rule="as lm-finetune, whose weights train",
            sources={
                "cloze": "adaptbench: as lm-finetune@cloze",
                "replayed": "Chaudhry et al., section 4: as many as the batch has",
            },
            paper="arXiv:1902.10486",
            reads="text",
            control=True,
        )
    ]
