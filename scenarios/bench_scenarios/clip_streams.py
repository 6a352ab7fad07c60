"""MTIL and X-TAIL: eleven (ten) data sets one after the other, all of them tested by name at any time.

Sources: Zheng et al., "Preventing Zero-Shot Transfer Degradation in Continual Learning of Vision-Language Models", ICCV
2023 (arXiv 2303.06628; Thunderbeee/ZSCL at b96e7142); Xu et al., "Advancing Cross-domain Discriminability in Continual
Learning of Vision-Language Models", NeurIPS 2024 (arXiv 2406.18868; linghan1997/Regression-based-Analytic-Incremental-
Learning at a0ecaef0). Data: CoOp's sets with CoOp's lists (`bench_scenarios._coop_sets`), CIFAR-100 and MNIST.

* ``mtil``: all training images, a test image is classified among the names of its own data set (family
  ``named-task-il``). ``order-1`` is alphabetical, ``order-2`` the second published one.
* ``x-tail``: without CIFAR-100, 16 images per class, a test image is classified among the names of all ten (family
  ``named-class-il``). ``order-1`` is that of the released configuration; ``order-2`` is ``mtil``'s without CIFAR-100,
  which is ours. Names that two data sets share stay two classes.

``sets=cifar100,mnist`` takes some of the data sets, in the order of the variant. ``shots`` draws as many images per
class with the class-order seed, by the rule of CoOp; 0 trains all. CoOp's lists bring validation images; of the other
two sets a tenth of each class is set apart where shots are drawn, as in ``cifar100-few-shot``, else there are none.

What is different: figures of ``mtil`` are not those of the paper. ZSCL cuts Caltech101 (101 classes, two of faces),
EuroSAT and SUN397 itself (80 / 20, seed 42), takes the official lists of DTD, Flowers, Food-101, Pets and Cars, and
gives every data set its own template (``mtil/src/datasets/collections.py``, read in its copy JiazuoYu/MoE-Adapters4CL
at c232e9e8). Here all have CoOp's lists and names, those of X-TAIL, and a method has one template. RAIL draws its
images of MNIST from numpy's global generator; here they are drawn as those of the others. Images of 32 and 28 pixels
are enlarged to 224 (Pillow, bicubic), as CLIP's own preprocessing does. Version 1.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from bench_scenarios import _cifar, _coop, _coop_sets, _digit_files, _mnist, _shots
from benchmark import ScenarioSpec, builders, hookimpl, splits
from benchmark.config import Range, check_ranges
from benchmark.derived import Derived
from benchmark.readers.source import SIDE
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

ORDERS: Mapping[str, tuple[str, ...]] = {
    "order-1": (
        "fgvc_aircraft",
        "caltech101",
        "cifar100",
        "dtd",
        "eurosat",
        "oxford_flowers",
        "food101",
        "mnist",
        "oxford_pets",
        "stanford_cars",
        "sun397",
    ),
    "order-2": (
        "stanford_cars",
        "food101",
        "mnist",
        "oxford_pets",
        "oxford_flowers",
        "sun397",
        "fgvc_aircraft",
        "caltech101",
        "dtd",
        "eurosat",
        "cifar100",
    ),
}
SETS = ORDERS["order-1"]
COOP = tuple(key for key in SETS if key in _coop_sets.SETS)
DIGITS = tuple(f'number: "{digit} - {name}"' for digit, name in enumerate(_digit_files.NAMES))
"""Names of MNIST's classes, as both codes have them: torchvision's, in their template."""

_IDS = 1_000_000  # sample ids of one data set
_SIZE_MB = 49_000.0  # about: SUN397 37 GB


@dataclass(frozen=True, kw_only=True, slots=True)
class MtilConfig:
    """Options of ``mtil``; its subclass has those of ``x-tail``.

    Attributes:
        order: Order of the data sets.
        sets: Some of the data sets, in whatever order; empty for all.
        shots: Training images per class, all of a class where there are fewer; 0 for all training images.
        test: Test images per class, the first of the list; 0 for all, as published.
    """

    order: Literal["order-1", "order-2"] = "order-1"
    sets: tuple[str, ...] = ()
    shots: Annotated[int, Range(min=0)] = 0
    test: Annotated[int, Range(min=0)] = 0

    def __post_init__(self) -> None:
        """Checks the data sets and the numbers."""
        check_ranges(self)
        if self.shots:
            _shots.check_shots(self.shots)
        if len(set(self.sets)) < len(self.sets) or not set(self.sets) <= set(self.possible):
            raise ValueError(
                f"sets: {','.join(self.sets)!r} is not possible; use some of {', '.join(self.possible)}, once each"
            )

    @property
    def possible(self) -> tuple[str, ...]:
        """All data sets, in their order."""
        return ORDERS[self.order]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The data sets of the stream, in their order."""
        return tuple(key for key in self.possible if not self.sets or key in self.sets)


@dataclass(frozen=True, kw_only=True, slots=True)
class XTailConfig(MtilConfig):
    """Options of ``x-tail``, see `MtilConfig`."""

    shots: Annotated[int, Range(min=0)] = 16

    @property
    def possible(self) -> tuple[str, ...]:
        """All data sets, in their order."""
        return tuple(key for key in ORDERS[self.order] if key != "cifar100")


def build(name: str, config: MtilConfig, request: ScenarioRequest) -> Scenario:
    """Builds one of the two.

    Raises:
        DataMissing: A data set is absent, damaged, or not what was published.
    """
    names: list[str] = []
    notes: dict[str, str] = {}
    lists: dict[str, str] = {}
    experiences = []
    for key in config.chosen:
        found = _coop.draw(key, config.shots, request) if key in COOP else _drawn(key, config.shots, request)
        first = len(names)
        move = functools.partial(_moved, first_label=first, first_id=_IDS * SETS.index(key))
        names += found.class_names
        experiences.append(
            Experience(
                train=move(found.train),
                test=move(builders.first(found.test, config.test)),
                classes=tuple(range(first, len(names))),
                domain=key,
                validation=None if found.validation is None else move(found.validation),
            )
        )
        # A note that ends in `lossy` marks the fingerprint (`Scenario.notes`).
        notes |= {f"{key} {what}": text for what, text in found.notes.items() if what != "shared names"}
        lists |= {key: found.partition} if found.partition else {}
    told = "\n".join(f"{key} {partition}" for key, partition in sorted(lists.items()))
    return Scenario.of(
        SPECS[name],
        config,
        version=1,
        experiences=tuple(experiences),
        class_names=tuple(names),
        partition=f"CoOp's lists {hashlib.sha256(told.encode()).hexdigest()[:8]}" if lists else "",
        notes=notes | _coop.shared_names(names),
    )


def _drawn(key: str, shots: int, request: ScenarioRequest) -> _coop.Drawn:
    """CIFAR-100 or MNIST, enlarged; see `bench_scenarios._cifar.load` and `bench_scenarios._mnist.load`."""
    import torch

    if key == "cifar100":
        cifar = _cifar.CIFAR100
        whole, notes = _cifar.image_sets(cifar, request, {"train": 0, "test": 0})
        train, test, names = whole["train"], whole["test"], cifar.class_names
    else:
        cut = _mnist.cut(_mnist.DIGITS, request)
        train, test, names, notes = cut.train, cut.test, DIGITS, dict(cut.notes)
    train, test, validation = _enlarged(train), _enlarged(test), None
    if shots:
        kept, held = (torch.from_numpy(rows) for rows in splits.holdout(train.labels, 0.1, seed=0))
        train, validation = _shots.sample(train.subset(kept), train.subset(held), shots, request.seed)
    return _coop.Drawn(train=train, validation=validation, test=test, class_names=names, content="", notes=notes)


def _enlarged(samples: Samples) -> Samples:
    """The same images as sources of files give theirs: 224x224 pixels."""
    source = Derived(samples.source, _resized, f"resized to {SIDE}x{SIDE}, bicubic")
    return Samples(source, samples.rows, samples.labels, samples.ids)


def _resized(images: Any, _: Any) -> Any:
    import torch
    from PIL import Image

    out = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    for place, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        whole = Image.fromarray(np.ascontiguousarray(image))
        out[place] = np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def _moved(samples: Samples, *, first_label: int, first_id: int) -> Samples:
    """The samples with labels and ids of their place in the stream."""
    return Samples(samples.source, samples.rows, samples.labels + first_label, samples.ids + first_id)


def miniature(keys: tuple[str, ...], root: Path) -> None:
    """Tiny copies of some data sets (`benchmark.specs.ScenarioSpec.miniature`)."""
    _coop.miniature([key for key in keys if key in COOP], root)
    if "cifar100" in keys:
        _cifar.miniature(_cifar.CIFAR100, root)
    if "mnist" in keys:
        _mnist.miniature(root)


_spec = functools.partial(
    ScenarioSpec,
    tracks={"paper": "clip224", "mini": "clip224"},
    variant="order",
    variants=tuple(ORDERS),
    source=f"{_coop_sets.SOURCE}; those of split-cifar100 and split-mnist",
    licence="those of the data sets",
    size_mb=_SIZE_MB,
)
_FILES = tuple(_coop_sets.SETS[key].dataset for key in COOP)

SPECS = {
    spec.name: spec
    for spec in (
        _spec(
            name="mtil",
            build=functools.partial(build, "mtil"),
            config=MtilConfig,
            summary="MTIL: eleven data sets in two orders, all tested by name at any time, each among its own names",
            family="named-task-il",
            data=(*_FILES, _cifar.CIFAR100.dataset, _mnist.MNIST),
            miniature=functools.partial(miniature, SETS),
        ),
        _spec(
            name="x-tail",
            build=functools.partial(build, "x-tail"),
            config=XTailConfig,
            summary="X-TAIL: ten data sets from 16 images per class, all tested at any time among the names of all",
            family="named-class-il",
            data=(*_FILES, _mnist.MNIST),
            miniature=functools.partial(miniature, XTailConfig().possible),
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``mtil`` and ``x-tail``."""
    return list(SPECS.values())
