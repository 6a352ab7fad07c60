"""Any scenario as a real Avalanche benchmark, equal to ours sample for sample.

Avalanche takes 7-10 s to import; it is imported inside the functions here and nowhere earlier.
Built with ``benchmark_from_datasets`` and ``with_classes_timeline`` only: the older helpers relabel,
drop remainders or reseed the global generator.
"""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from benchmark.api import ImageSet, Scenario


class FloatImages(Dataset[Any]):
    """An `ImageSet` as a torch data set.

    Items are ``(image, label)``: float32 ``(3, H, W)`` in [0, 1] and an int. Neither resized nor
    normalised nor augmented: that is the learner's part.

    Attributes:
        targets: All labels, a list of ints.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self.targets: list[int] = images.labels.tolist()

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Tensor:
        """The image at a position, float32 ``(3, H, W)`` in [0, 1]."""
        # One row at a time by a one-element index: sources need not support plain integers.
        return self._images.images(torch.tensor([index]))[0].to(torch.float32) / 255.0

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.image(index), self.targets[index]


class UnlabelledImages(Dataset[Any]):
    """The images of an `ImageSet`, without labels. Items are float32 ``(3, H, W)`` in [0, 1]."""

    def __init__(self, images: ImageSet) -> None:
        self._images = FloatImages(images)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images.image(index)


def to_benchmark(scenario: Scenario, *, task_labels: bool = False) -> Any:
    """Builds the Avalanche benchmark of a scenario.

    ``train_stream[i].dataset`` and ``test_stream[i].dataset`` hold the samples of experience i in our
    order, with the attributes ``targets`` and ``sample_ids``. Experiences have the classes timeline
    (``classes_in_this_experience``, ``previous_classes``, ...), ``domain``, and, on the training
    stream where there are unlabelled target images, ``target_dataset`` (items are images only). Test
    sets that belong to no experience (source images, new classes, other data sets) are the
    ``further_stream``, each with its ``test_name``; it is absent where there are none. Where training
    images have domains, the data set of the training stream has the attribute ``domains``.

    Args:
        scenario: Any scenario.
        task_labels: Adds the task label 0 to every sample, which some strategies insist on (LwF,
            DER); it tells them nothing.

    Returns:
        An Avalanche ``CLScenario``.
    """
    generic = import_quietly("avalanche.benchmarks.scenarios.generic_scenario")
    datasets = import_quietly("avalanche.benchmarks.scenarios.dataset_scenario")
    supervised = import_quietly("avalanche.benchmarks.scenarios.supervised")
    streams = {
        "train": [to_dataset(part.train, task_labels=task_labels) for part in scenario.experiences],
        "test": [to_dataset(part.test, task_labels=task_labels) for part in scenario.experiences],
    }
    if scenario.tests:
        streams["further"] = [to_dataset(test.images, task_labels=task_labels) for test in scenario.tests]
    plain = datasets.benchmark_from_datasets(**streams)
    benchmark = supervised.with_classes_timeline(plain)
    if scenario.tests:
        for experience, test in zip(benchmark.further_stream, scenario.tests, strict=True):
            experience.test_name = test.name
    for stream in (benchmark.train_stream, benchmark.test_stream):
        for experience, part in zip(stream, scenario.experiences, strict=True):
            experience.domain = part.domain
            experience.source_domains = part.source_domains
    for experience, part in zip(benchmark.train_stream, scenario.experiences, strict=True):
        if part.target is not None:
            experience.target_dataset = generic.ExperienceAttribute(UnlabelledImages(part.target), use_in_train=True)
    return benchmark


def to_dataset(images: ImageSet, *, task_labels: bool = False, **attributes: list[Tensor]) -> Any:
    """One set of images as an Avalanche data set with ``targets`` and ``sample_ids``.

    Args:
        images: The images.
        task_labels: Appends the task label 0 to every item.
        attributes: Further tensors, one per sample, by name; appended to every item.
    """
    kinds = import_quietly("avalanche.benchmarks.utils.classification_dataset")
    made_of = import_quietly("avalanche.benchmarks.utils.data_attribute")
    flat = import_quietly("avalanche.benchmarks.utils.flat_data")
    data = FloatImages(images)
    columns = [
        made_of.DataAttribute(data.targets, "targets"),
        made_of.DataAttribute(images.ids.tolist(), "sample_ids"),
    ]
    if images.domains is not None:
        columns.append(made_of.DataAttribute(images.domains.tolist(), "domains"))
    if task_labels:
        zeros = flat.ConstantSequence(0, len(data))
        columns.append(made_of.DataAttribute(zeros, "targets_task_labels", use_in_getitem=True))
    for name, values in attributes.items():
        kept = flat.FlatData([values], discard_elements_not_in_indices=True)
        columns.append(made_of.TensorDataAttribute(kept, name, use_in_getitem=True))
    kind = kinds.TaskAwareSupervisedClassificationDataset if task_labels else kinds.ClassificationDataset
    return kind([data], data_attributes=columns)


def import_quietly(name: str) -> ModuleType:
    """Imports a module of Avalanche without the warnings that its own imports raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
