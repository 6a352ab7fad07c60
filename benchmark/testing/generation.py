"""A toy world of generation: tables of things, texts about them, and a small model that learns to write them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.api import Batch, Context, Experience, ExperienceView, LearnerConfig, Method, Samples, Scenario, Text
from benchmark.scenario import Wording
from benchmark.specs import MethodSpec

COLOURS = ("red", "green", "blue", "black", "white", "brown")
SIZES = ("small", "large", "tiny", "huge")
PLACES = ("the river", "the old mill", "the station", "the market")
FRAMES = (
    ("{name} is a {size} {colour} house near {place}", "near {place} stands {name} , a {size} {colour} house"),
    ("go to {place} and see {name} , which is {colour} and {size}", "the {colour} {name} is {size} , see {place}"),
    ("a {size} thing called {name} : {colour} , {place}", "{name} : {size} and {colour} , at {place}"),
)
"""Ways to put a table, two for each experience; the experiences differ in nothing else."""
LONGEST = 16  # words of a text


def toy_texts(count: int, experience: int, first: int, generator: torch.Generator) -> Samples:
    """A set of tables, each with two texts that say it.

    Args:
        count: N.
        experience: Whose wording the texts have.
        first: The first id.
        generator: Of the tables.
    """
    drawn = torch.randint(0, 10**6, (count, 4), generator=generator).tolist()
    tables = [
        {
            "name": f"place{numbers[0] % 50}",
            "size": SIZES[numbers[1] % len(SIZES)],
            "colour": COLOURS[numbers[2] % len(COLOURS)],
            "place": PLACES[numbers[3] % len(PLACES)],
        }
        for numbers in drawn
    ]
    texts: list[Text] = [
        {"source": " | ".join(f"{slot} : {value}" for slot, value in table.items())} for table in tables
    ]
    frames = FRAMES[experience % len(FRAMES)]
    references = [tuple(frame.format(**table) for frame in frames) for table in tables]
    rows = torch.arange(count)
    return Samples(texts, rows, torch.zeros(count), rows + first, references=references)


def toy_stream(family: str, experiences: int, train: int, test: int, seed: int) -> Scenario:
    """A stream of tables to write about, in another wording in each experience.

    Args:
        family: One that generates.
        experiences: T.
        train: Training samples of each experience.
        test: Test samples of each.
        seed: Of the tables.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for index in range(experiences):
        first = index * (train + test)
        sets = [toy_texts(train, index, first, generator), toy_texts(test, index, first + train, generator)]
        parts.append(Experience(train=sets[0], test=sets[1], classes=(0,), domain=f"wording{index}"))
    return Scenario(
        name="toy",
        version=1,
        family=family,
        experiences=tuple(parts),
        class_names=("text",),
        wording=Wording(patterns=("{source} = {mask}",)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyWriterConfig(LearnerConfig):
    """Options of the toy method.

    Attributes:
        lr: Learning rate.
        width: Buckets that features are hashed into.
    """

    epochs: int = 4
    batch_size: int = 8
    lr: float = 0.05
    width: int = 512


class ToyWriter(Method):
    """Word after word by a linear model of the last two words and of the slot that they lead to; values are copied.

    The smallest method that learns to write: a text is a sequence of words of the vocabulary and of ``<slot>`` marks,
    for which the value of the slot is put in. It has no pretrained model.
    """

    config: ToyWriterConfig

    def __init__(self, config: ToyWriterConfig, context: Context) -> None:
        super().__init__(config, context)
        self.words: list[str] = ["</s>"]
        self.head = nn.Parameter(torch.zeros(1, config.width))
        self.to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Learns the words of the experience; a fresh optimiser."""
        train = experience.train
        texts = train.texts(torch.arange(len(train)))
        told = [self._marked(text, right[0]) for text, right in zip(texts, train.references or (), strict=True)]
        fresh = dict.fromkeys(word for words in told for word in words if word not in self.words)
        self.words += list(fresh)
        rows = torch.randn(len(fresh), self.config.width, device=self.head.device) * 0.01
        self.head = nn.Parameter(torch.cat([self.head.detach(), rows]))
        self.optimizer = torch.optim.Adam([self.head], lr=self.config.lr)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of cross-entropy on the words of the first reference."""
        features: list[list[int]] = []
        targets: list[int] = []
        for text, right in zip(batch.texts, batch.references or (), strict=True):
            words = self._marked(text, right[0])
            for place, word in enumerate(words):
                features.append(self._features(words[:place]))
                targets.append(self.words.index(word))
        loss = F.cross_entropy(self._logits(features), self._there(targets))
        self.descend(loss)
        return {"loss": loss.detach(), "loss_per_token": loss.detach()}

    def generate(self, texts: Sequence[Text]) -> Sequence[str]:
        """The likeliest word after every word, with the values of the table put in."""
        found = []
        for text in texts:
            words: list[str] = []
            while len(words) < LONGEST:
                word = self.words[int(self._logits([self._features(words)]).argmax())]
                if word == "</s>":
                    break
                words.append(word)
            table = self._table(text)
            found.append(" ".join(table.get(word, word) for word in words))
        return found

    def extra_state(self) -> Mapping[str, Any]:
        """The vocabulary."""
        return {"words": list(self.words)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the vocabulary back."""
        self.words = list(state["words"])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}head")
        if saved is not None and saved.shape != self.head.shape:
            self.head = nn.Parameter(torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _features(self, before: Sequence[str]) -> list[int]:
        """Buckets of what is known in front of a word: its place, and the last two words."""
        known = (f"at {len(before)}", f"last {before[-1:]}", f"two {before[-2:]}")
        return [zlib.crc32(feature.encode()) % self.config.width for feature in known]

    def _logits(self, features: Sequence[Sequence[int]]) -> Tensor:
        """Logits ``(N, words)`` of the word behind each of N places."""
        return F.embedding_bag(self._there(features), self.head.T, mode="sum")

    def _there(self, numbers: Sequence[Any]) -> Tensor:
        """Whole numbers on the device, without waiting for it."""
        return torch.tensor(numbers).to(self.head.device, non_blocking=True)

    @staticmethod
    def _table(text: Text) -> dict[str, str]:
        """The values by their marks; none of an input that is no table."""
        slots = (part.partition(" : ") for part in text["source"].split(" | "))
        return {f"<{slot}>": value for slot, mark, value in slots if mark}

    def _marked(self, text: Text, target: str) -> list[str]:
        """The words of a text, its values as marks, and the end."""
        for mark, value in self._table(text).items():
            target = target.replace(value, mark, 1)
        return [*target.split(), "</s>"]


TOY_WRITER = MethodSpec(
    name="toy-writer",
    build=ToyWriter,
    config=ToyWriterConfig,
    summary="word after word, for tests",
    uses=frozenset({"boundaries"}),
    reads="text",
    classifies=False,
    generates=True,
    pretrained=False,
)
