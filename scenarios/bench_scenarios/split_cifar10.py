"""CIFAR-10, class-incremental: 10 classes of 32x32 photographs, five experiences of two by default.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html; 50,000 training and 10,000 test images. Split and order
as ``seq-cifar10`` of aimagelab/mammoth (5x2, natural order). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_scenarios import _cifar
from benchmark import ScenarioSpec, hookimpl
from benchmark.data import DataSet, Download
from benchmark.scenario import Scenario, ScenarioRequest

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR10 = _cifar.Cifar(
    name="split-cifar10",
    version=1,
    dataset=DataSet(
        title="CIFAR-10",
        folders=("cifar10", "cifar-10", "CIFAR10", "CIFAR-10"),
        layouts=(
            "cifar-10-python.tar.gz or cifar-10-batches-py/",
            "{train,test}/<class>/*.png",
            "{train,test}.parquet (img, label)",
        ),
        download=Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            file="cifar-10-python.tar.gz",
            size=170_498_071,
            md5="c58f30108f718f92721af3b95e74349a",
        ),
    ),
    native="cifar-10-batches-py",
    # As in torchvision.datasets.CIFAR10.
    files={
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    },
    native_label="labels",
    label_columns=("label",),
    class_names=CLASS_NAMES,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCifar10Config:
    """Options of ``split-cifar10``.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``5x2``, ``b5-inc1``, ``4,3,3``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Test images per class, likewise.
    """

    split: str = "5x2"
    class_order: str = "natural"
    train: int = 0
    test: int = 0

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and no count is negative."""
        _cifar.check_options(self, len(CLASS_NAMES))


def build(config: SplitCifar10Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._cifar.build`."""
    return _cifar.build(SPEC, CIFAR10, config, request)


SPEC = ScenarioSpec(
    name="split-cifar10",
    build=build,
    config=SplitCifar10Config,
    summary="CIFAR-10, class-incremental, 5 experiences of 2 classes",
    family="class-il",
    tracks={"mini": "cifar32", "paper": "unit224"},
    variant="split",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated at the source; MIT according to the L2P paper",
    size_mb=170.5,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-cifar10``."""
    return [SPEC]
