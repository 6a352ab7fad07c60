"""How the samples of a stream whose classes grow arrive: one experience after the other, only once, or mixed.

Options of every such scenario (``--set stream=online``), so that no scenario has to care. ``sequential`` is the stream
as the scenario has it. ``online`` gives a method one pass over every experience, in small batches: `demands` says so to
its options. ``blurry`` is a stream without boundaries: many short experiences whose classes come and go (`mixed`).

Source of ``blurry``: Gaussian scheduled CIFAR-100 of L2P (Wang et al., CVPR 2022, table 4; google-research/l2p
``libml/input_pipeline.py``, ``configs/cifar100_gaussian_l2p.py``): time is counted in batches; class c is most common
at batch ``c p + p // 2``, where ``p = tasks batches // C``; task e has class c with probability
``exp(-(e batches - peak)^2 / (2 50^2))``, a coin for each class, tossed again until there is a class. A task has all
training images of its classes; one test set has all classes. Here the coins are ``RandomState(S).random_sample``,
S the class-order seed of the run, and labels are numbered in the order in which classes first come, since the head of a
method has no column for a class that it never saw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from benchmark import families
from benchmark.config import Range, check_ranges
from benchmark.errors import UsageError
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario

WIDTH = 50
"""Standard deviation of a class in time, in batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrivalConfig:
    """Options of every scenario whose classes grow, beside its own.

    Attributes:
        stream: ``sequential``, ``online`` or ``blurry``.
        online_batch: Samples per step of an online stream.
        blurry_tasks: Experiences of a blurry stream.
        blurry_batches: Batches that one of them stands for in the schedule; 5 as in the paper's code, 1 as in its
            configuration file, which mixes classes much more.
    """

    stream: Literal["sequential", "online", "blurry"] = "sequential"
    online_batch: Annotated[int, Range(min=1)] = 10
    blurry_tasks: Annotated[int, Range(min=2, max=10_000)] = 200
    blurry_batches: Annotated[int, Range(min=1, max=10_000)] = 5

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_ranges(self)

    @property
    def chosen(self) -> dict[str, Any]:
        """What a record keeps: nothing of a stream as the scenario has it, else what the stream depends on."""
        if self.stream == "sequential":
            return {}
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name == "stream" or name.startswith(f"{self.stream}_")}


def demands(config: ArrivalConfig, epochs: int) -> Mapping[str, Any]:
    """Values of a method's options that the stream demands.

    Args:
        config: How samples arrive.
        epochs: Passes that the method would make.
    """
    if config.stream != "online":
        return {}
    return {"epochs": min(epochs, 1), "batch_size": config.online_batch}


def arranged(scenario: Scenario, config: ArrivalConfig, seed: int) -> Scenario:
    """The scenario as its samples arrive.

    Raises:
        UsageError: A blurry stream of so few tasks that a class has no place in it.
    """
    if config.stream != "blurry":
        return scenario
    return mixed(scenario, config.blurry_tasks, config.blurry_batches, seed)


def schedule(classes: int, tasks: int, batches: int, seed: int) -> list[tuple[int, ...]]:
    """The classes of each task of a blurry stream, ascending.

    Args:
        classes: C.
        tasks: T.
        batches: Batches per task.
        seed: Of the coins.

    Raises:
        UsageError: There are so few batches that a class has no place, or a class never comes.
    """
    step = tasks * batches // classes
    if step < 1:
        raise UsageError(
            f"scenario.stream=blurry: {tasks} tasks of {batches} batches are too few for {classes} classes",
            hint="raise scenario.blurry_tasks or scenario.blurry_batches",
        )
    peaks = np.arange(classes) * step + step // 2
    generator = np.random.RandomState(seed)
    found = []
    for task in range(tasks):
        chance = np.exp(-((task * batches - peaks) ** 2) / (2 * WIDTH**2))
        if chance.max() < 1e-9:
            raise UsageError(
                f"scenario.stream=blurry: no class comes in task {task} of {tasks}",
                hint="lower scenario.blurry_tasks or scenario.blurry_batches",
            )
        here = np.zeros(classes, bool)
        while not here.any():
            here = generator.random_sample(classes) < chance
        found.append(tuple(int(label) for label in np.flatnonzero(here)))
    absent = sorted(set(range(classes)) - {label for task_classes in found for label in task_classes})
    if absent:
        raise UsageError(
            f"scenario.stream=blurry: {len(absent)} of {classes} classes never come, for example class {absent[0]}",
            hint="raise scenario.blurry_tasks, or take another --class-order-seed",
        )
    return found


def mixed(scenario: Scenario, tasks: int, batches: int, seed: int) -> Scenario:
    """A blurry stream of the samples of another one.

    Args:
        scenario: A stream whose classes grow.
        tasks: Number of experiences.
        batches: Batches per task in the schedule.
        seed: Of the schedule.

    Raises:
        UsageError: See `schedule`.
    """
    import torch

    plan = schedule(scenario.num_classes, tasks, batches, seed)
    order = list(dict.fromkeys(label for classes in plan for label in classes))
    renamed = torch.empty(len(order), dtype=torch.int64)
    renamed[torch.tensor(order)] = torch.arange(len(order))
    train, test = (
        Samples(whole.source, whole.rows, renamed[whole.labels], whole.ids)
        for whole in (
            Samples.concat([part.train for part in scenario.experiences]),
            Samples.concat([part.test for part in scenario.experiences]),
        )
    )
    places = [(train.labels == label).nonzero().flatten() for label in range(len(order))]
    experiences = []
    for classes in plan:
        own = sorted(int(renamed[label]) for label in classes)
        rows = torch.cat([places[label] for label in own]).sort().values
        experiences.append(Experience(train=train.subset(rows), test=test, classes=tuple(own)))
    (family,) = [one.name for one in families.FAMILIES.values() if one.mixed]
    return dataclasses.replace(
        scenario,
        family=family,
        experiences=tuple(experiences),
        class_names=tuple(scenario.class_names[label] for label in order),
        class_order=tuple(scenario.class_order[label] for label in order),
        fingerprint="",  # follows from the rest
        notes={**scenario.notes, "blurry": f"{tasks} tasks of {batches} batches, width {WIDTH}"},
    )
