"""CIFAR-10 and CIFAR-100 under one corruption after the other: domain-incremental.

Sources: `bench_scenarios._cifar` and the common corruptions of Hendrycks and Dietterich, ICLR 2019
(`bench_scenarios._corruptions`). A variant chooses the corruptions, one experience each, in the order of the benchmark:

* ``5`` (default): gaussian_noise, gaussian_blur, contrast, jpeg_compression, pixelate; ``11``: these and six more.
  Training images are corrupted as they are read, from a generator of (seed, corruption, index) for each image; test
  images are those of the official arrays where ``cifar10-c/`` or ``cifar100-c/`` is there, otherwise made likewise.
  ``13``: the eleven, glass_blur and fog, all that are made here, likewise.
* ``15`` (the benchmark) and ``19`` have corruptions of which only official arrays of test images exist. Then all images
  are from these arrays: 80 % of the test images of CIFAR, per class, are trained under every corruption, the same 20 %
  are tested (`benchmark.splits.train_test`, seed 0).
* names joined by ``+``, e.g. ``corrupted-cifar10/contrast+frost``, go by the same rules; with glass_blur or fog among
  them they are made here where there are no official arrays.

No published figure is comparable: papers corrupt test images only. Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from bench_scenarios import _cifar, _corruptions
from benchmark import ScenarioSpec, builders, data, hookimpl, readers, splits
from benchmark.config import Range
from benchmark.data import DataSet
from benchmark.derived import Derived
from benchmark.errors import DataMissing
from benchmark.samples import Pixels, Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

FIVE = ("gaussian_noise", "gaussian_blur", "contrast", "jpeg_compression", "pixelate")
SETS = {
    "5": FIVE,
    "11": _corruptions.ELEVEN,
    "13": tuple(name for name in _corruptions.ORDER if name in _corruptions.GENERATED),
    "15": _corruptions.ORDER[:15],
    "19": _corruptions.ORDER,
}
SEVERITIES = 5
_IDS = 100_000  # of one experience: training images, then test images

ARRAYS = {
    "split-cifar10": DataSet(
        title="CIFAR-10-C",
        folders=("cifar10-c", "CIFAR-10-C"),
        layouts=("<corruption>.npy (50000, 32, 32, 3) and labels.npy, https://zenodo.org/records/2535967",),
    ),
    "split-cifar100": DataSet(
        title="CIFAR-100-C",
        folders=("cifar100-c", "CIFAR-100-C"),
        layouts=("<corruption>.npy (50000, 32, 32, 3) and labels.npy, https://zenodo.org/records/3555552",),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptedCifarConfig(builders.BudgetConfig):
    """Options of ``corrupted-cifar10`` and ``corrupted-cifar100``.

    Attributes:
        corruptions: ``5``, ``11``, ``13``, ``15``, ``19``, or names joined by ``+``.
        severity: 1..5.
        order: ``natural``, or a rule of `benchmark.splits.class_order` for the order of the corruptions.
        train: Training images per class and experience, the first of the data set; 0 for all.
        test: Test images per class and experience, likewise.
    """

    corruptions: str = "5"
    severity: Annotated[int, Range(min=1, max=5)] = 5
    order: str = "natural"

    def __post_init__(self) -> None:
        """Checks that the corruptions exist."""
        builders.BudgetConfig.__post_init__(self)
        unknown = [name for name in self.names if name not in _corruptions.ORDER]
        if unknown or len(set(self.names)) < len(self.names):
            raise ValueError(
                f"corruptions: {self.corruptions!r} is not possible; use {', '.join(SETS)} or names joined by +, each "
                f"once: {', '.join(_corruptions.ORDER)}"
            )
        try:
            splits.class_order(self.order, len(self.names))
        except ValueError as error:
            raise ValueError(f"order: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions in natural order."""
        return SETS.get(self.corruptions) or tuple(self.corruptions.split("+"))


def build(cifar: _cifar.Cifar, config: CorruptedCifarConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream.

    Raises:
        DataMissing: CIFAR or, where they are needed, the official arrays are absent or damaged.
    """
    order = splits.class_order(config.order, len(config.names), seed=request.seed)
    names = [config.names[place] for place in order]
    arrays = folder_of(cifar, request)
    makeable = _corruptions.GENERATED if arrays is None or config.corruptions == "13" else _corruptions.ELEVEN
    made = all(name in makeable for name in names)
    if not made and arrays is None:
        root, dataset = data.data_root(request.data_root), ARRAYS[cifar.name]
        strange = next(name for name in names if name not in _corruptions.GENERATED)
        raise dataset.missing(
            root, f"not found below {root}; {strange} is not made here, only its official array has it"
        )
    whole, notes = _cifar.image_sets(cifar, request, {"train": 0, "test": 0}) if made else ({}, {"layout": "npy"})
    experiences = []
    for name in names:
        tested = None if arrays is None else official(cifar, arrays, name, config.severity, request)
        if made:
            train = corrupted(whole["train"], name, config.severity, request.seed, 0)
            offset = len(whole["train"])
            test = tested or corrupted(whole["test"], name, config.severity, request.seed, offset)
        elif tested is not None:
            train, test = _halves(tested)
        experiences.append(_experience(builders.first(train, config.train), builders.first(test, config.test), name))
    origin = "official arrays" if arrays is not None else "made here"
    return Scenario.of(
        SPECS[cifar.name],
        config,
        version=1,
        experiences=tuple(experiences),
        class_names=cifar.class_names,
        partition="" if made else "80/20 cut of the official arrays",
        notes={**notes, "test images": origin if made else "official arrays, training images too"},
    )


def _experience(train: Samples, test: Samples, name: str) -> Experience:
    """With ids that no other experience has."""
    start = _corruptions.ORDER.index(name) * _IDS
    train, test = (Samples(part.source, part.rows, part.labels, part.ids + start) for part in (train, test))
    return Experience(train=train, test=test, classes=tuple(sorted(set(test.labels.tolist()))), domain=name)


def corrupted(samples: Samples, name: str, severity: int, seed: int, offset: int) -> Samples:
    """Samples that are corrupted as they are read.

    Args:
        samples: Images ``(3, 32, 32)``.
        name: One of `bench_scenarios._corruptions.GENERATED`.
        severity: 1..5.
        seed: Of the stream.
        offset: Added to the row of an image, so that training and test images have different generators.
    """
    import torch

    def change(images: Any, rows: Any) -> Any:
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        found = [
            _corruptions.corrupt(image, name, severity, seed, offset + row)
            for image, row in zip(pixels, rows.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous() if found else images

    source = Derived(samples.source, change, f"{name} {severity}, seed {seed}, from {offset}")
    return Samples(source, samples.rows, samples.labels, samples.ids + offset)


def folder_of(cifar: _cifar.Cifar, request: ScenarioRequest) -> Path | None:
    """Where the official arrays are, or None."""
    return data.find(ARRAYS[cifar.name].folders, data.data_root(request.data_root))


def official(cifar: _cifar.Cifar, folder: Path, name: str, severity: int, request: ScenarioRequest) -> Samples:
    """The test images of a corruption and severity in the official arrays."""
    import torch

    with ARRAYS[cifar.name].reading(data.data_root(request.data_root)):
        images, labels = (_array(folder / f"{file}.npy") for file in (name, "labels"))
        count, left = divmod(len(labels), SEVERITIES)
        builders.check_counts({name: len(images), "labels": len(labels)}, {name: 50_000, "labels": 50_000}, request)
        if left or images.shape != (len(labels), 32, 32, 3) or images.dtype != np.uint8:
            raise DataMissing(
                f"{readers.shown(folder)}: {name}.npy holds {images.dtype} {images.shape} for {len(labels):,} labels"
            )
        rows = slice((severity - 1) * count, severity * count)
        chosen = labels[rows].astype(np.int64)
        if sorted(set(chosen.tolist())) != list(range(len(cifar.class_names))):
            raise DataMissing(f"{readers.shown(folder)}: labels.npy does not have the labels of {cifar.dataset.title}")
        pixels = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))
    return builders.as_samples(Pixels(pixels), chosen, first_id=cifar.counts[0])


def _array(path: Path) -> Any:
    readers.opened(path).close()
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataMissing(f"{readers.shown(path)} cannot be read: {error}") from error


def _halves(samples: Samples) -> tuple[Samples, Samples]:
    """Training and test images among the official ones: the same images under every corruption."""
    import torch

    train, test = (samples.subset(torch.from_numpy(rows)) for rows in splits.train_test(samples.labels))
    # Each on a source of its own, as no training set may share its source with a test set's rows.
    return train.alone(), test.alone()


def _spec(cifar: _cifar.Cifar, name: str, size_mb: float) -> ScenarioSpec:
    return ScenarioSpec(
        name=name,
        build=functools.partial(build, cifar),
        config=CorruptedCifarConfig,
        summary=f"{cifar.dataset.title} under noise, blur, contrast, JPEG and large pixels; domain-incremental",
        family="domain-il",
        tracks={"mini": "cifar32", "paper": "unit224"},
        variant="corruptions",
        source=f"{_cifar.SOURCE}; corruptions of hendrycks/robustness",
        licence=f"{_cifar.LICENCE}; official arrays: CC BY 4.0",
        size_mb=size_mb,
        data=(cifar.dataset,),
        miniature=functools.partial(_cifar.miniature, cifar),
    )


SPECS = {
    "split-cifar10": _spec(_cifar.CIFAR10, "corrupted-cifar10", 170.5),
    "split-cifar100": _spec(_cifar.CIFAR100, "corrupted-cifar100", 169.0),
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``corrupted-cifar10`` and ``corrupted-cifar100``."""
    return list(SPECS.values())
