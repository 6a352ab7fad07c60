"""CIFAR-10-C and CIFAR-100-C as streams of test batches: test-time adaptation.

Sources: `bench_scenarios._cifar` and the common corruptions of Hendrycks and Dietterich, ICLR 2019
(`bench_scenarios._corruptions`). Training images are those of CIFAR, clean; the stream holds its test images under one
corruption after the other, in the order of the benchmark (`bench_scenarios._test_streams` has the settings). What is
left of the source is measured on the clean test images.

``corruptions``: ``made`` (default): eight of the fifteen, ``10``: these, glass_blur and fog, all that are made here,
``15``: all of them, or names joined by ``+``. Where the official arrays are there (``cifar10-c/``), images are theirs;
else they are made as they are read, each from a generator of (0, corruption, index). Five of the fifteen exist as
official arrays only.

Options are chosen on the extra corruptions of the benchmark (``bench tune``), of images of other rows: those of the
stream are the first of the file, those for tuning the last 500 (with all images, as in papers, the same photographs are
in both, under other corruptions). Papers: batches of 200, severity 5, all 10,000 images (``scenario.images=0``).
Version 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from bench_scenarios import _cifar, _corruptions, _test_streams, corrupted_cifar
from benchmark import ScenarioSpec, builders, data, hookimpl
from benchmark.config import Range
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

FIFTEEN = _corruptions.ORDER[:15]
MADE = tuple(name for name in FIFTEEN if name in _corruptions.ELEVEN)
TEN = tuple(name for name in FIFTEEN if name in _corruptions.GENERATED)
TUNING = tuple(name for name in _corruptions.ORDER[15:] if name in _corruptions.GENERATED)
TUNED = 500  # images of each corruption for choosing options
_IDS = 10_000_000  # of one corruption


@dataclass(frozen=True, kw_only=True, slots=True)
class CifarCConfig(_test_streams.StreamConfig):
    """Options of ``cifar10-c`` and ``cifar100-c``.

    Attributes:
        corruptions: ``made``, ``10``, ``15``, or names joined by ``+``.
        batch_size: Images of a batch.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Clean test images per class, likewise.
        images: Images per corruption (and severity), the first of the file; 0 for all, as published.
    """

    batch_size: Annotated[int, Range(min=1, max=10_000)] = 200
    corruptions: str = "made"
    train: Annotated[int, Range(min=0)] = 0
    test: Annotated[int, Range(min=0)] = 0
    images: Annotated[int, Range(min=0, max=10_000)] = 0

    def __post_init__(self) -> None:
        """Checks that the corruptions exist."""
        _test_streams.StreamConfig.__post_init__(self)
        unknown = [name for name in self.names if name not in FIFTEEN]
        if unknown or len(set(self.names)) < len(self.names):
            raise ValueError(
                f"corruptions: {self.corruptions!r} is not possible; use made, 10, 15, or names joined by +, each "
                f"once: {', '.join(FIFTEEN)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions in their order."""
        return {"made": MADE, "10": TEN, "15": FIFTEEN}.get(self.corruptions) or tuple(self.corruptions.split("+"))


def build(cifar: _cifar.Cifar, config: CifarCConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; its order depends on the seed, its images do not.

    Raises:
        DataMissing: CIFAR or, where they are needed, the official arrays are absent or damaged.
    """
    arrays = corrupted_cifar.folder_of(cifar, request)
    strange = [name for name in config.names if name not in _corruptions.GENERATED]
    if strange and arrays is None:
        root, dataset = data.data_root(request.data_root), corrupted_cifar.ARRAYS[cifar.name]
        raise dataset.missing(
            root, f"not found below {root}; {strange[0]} is not made here, only its official array has it"
        )
    whole, notes = _cifar.image_sets(cifar, request, {"train": 0, "test": 0})
    clean = whole["test"]

    def images(rows: Sequence[int], name: str, severity: int) -> Samples:
        """Some test images under a corruption, by their places in the file."""
        import torch

        if arrays is not None:
            found = corrupted_cifar.official(cifar, arrays, name, severity, request)
        else:
            found = corrupted_cifar.corrupted(clean, name, severity, 0, 0)
        part = found.subset(torch.tensor(list(rows)))
        return Samples(part.source, part.rows, part.labels, part.ids + _IDS * (1 + _corruptions.ORDER.index(name)))

    count = len(clean)
    shown = range(min(config.images or count, count))
    tuned = range(max(count - TUNED, 0), count)
    test = builders.first(clean, config.test)
    return Scenario.of(
        SPECS[cifar.name],
        config,
        version=1,
        experiences=(
            Experience(
                train=builders.first(whole["train"], config.train),
                test=Samples(test.source, test.rows, test.labels, test.ids + _IDS // 2),
                classes=tuple(range(len(cifar.class_names))),
                domain="clean",
            ),
        ),
        class_names=cifar.class_names,
        notes={**notes, "corrupted images": "made here" if arrays is None else "official arrays"},
        test_stream=_test_streams.stream(config, config.names, functools.partial(images, shown), seed=request.seed),
        tuning_stream=_test_streams.stream(config, TUNING, functools.partial(images, tuned), seed=request.seed),
    )


def spec(cifar: _cifar.Cifar, name: str, title: str) -> ScenarioSpec:
    """The scenario of one of the two data sets."""
    return ScenarioSpec(
        name=name,
        build=functools.partial(build, cifar),
        config=CifarCConfig,
        summary=f"{title}: trained clean, met under corruptions in unlabelled test batches",
        family="tta",
        tracks={"mini": "cifar32", "paper": "unit224"},
        variant="setting",
        source=f"{_cifar.SOURCE}; https://github.com/hendrycks/robustness",
        licence=_cifar.LICENCE,
        size_mb=169.0,
        data=(cifar.dataset,),
        miniature=functools.partial(_cifar.miniature, cifar),
    )


SPECS = {
    "split-cifar10": spec(_cifar.CIFAR10, "cifar10-c", "CIFAR-10-C"),
    "split-cifar100": spec(_cifar.CIFAR100, "cifar100-c", "CIFAR-100-C"),
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``cifar10-c`` and ``cifar100-c``."""
    return list(SPECS.values())
