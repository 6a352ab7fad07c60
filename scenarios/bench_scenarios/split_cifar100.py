"""CIFAR-100, class-incremental: 100 classes of 32x32 photographs, ten experiences of ten by default.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html; 50,000 training and 10,000 test images, fine labels.
Published splits: ``10x10`` in natural order (google-research/l2p), ``10x10``, ``20x5``, ``5x20`` and
``b50-inc10`` in order ``numpy:1993`` (LAMDA-CL/LAMDA-PILOT, LAMDA-CL/PyCIL). Version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_scenarios import _cifar
from benchmark import ScenarioSpec, hookimpl
from benchmark.data import DataSet, Download
from benchmark.scenario import Scenario, ScenarioRequest

# The fine labels; their numbers are their alphabetical ranks.
_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = tuple(_NAMES.split())

CIFAR100 = _cifar.Cifar(
    name="split-cifar100",
    version=1,
    dataset=DataSet(
        title="CIFAR-100",
        folders=("cifar100", "cifar-100", "CIFAR100", "CIFAR-100"),
        layouts=(
            "cifar-100-python.tar.gz or cifar-100-python/",
            "{train,test}/<class>/*.png",
            "{train,test}.parquet (img, fine_label)",
        ),
        download=Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            file="cifar-100-python.tar.gz",
            size=169_001_437,
            md5="eb9058c3a382ffc7106e4002c42a8d85",
        ),
    ),
    native="cifar-100-python",
    # As in torchvision.datasets.CIFAR100.
    files={
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
    native_label="fine_labels",
    label_columns=("fine_label", "label"),
    class_names=CLASS_NAMES,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCifar100Config:
    """Options of ``split-cifar100``.

    Attributes:
        split: Experiences, `benchmark.splits.sizes`: ``10x10``, ``20x5``, ``b50-inc10``, ...
        class_order: ``natural``, ``numpy:SEED``, ``python:SEED``, ``seed`` (follows the run's seed)
            or a list, `benchmark.splits.class_order`.
        train: Training images per class, the first of the file; 0 for all, as published.
        test: Test images per class, likewise.
    """

    split: str = "10x10"
    class_order: str = "natural"
    train: int = 0
    test: int = 0

    def __post_init__(self) -> None:
        """Checks that the split adds up, the order is a permutation, and no count is negative."""
        _cifar.check_options(self, len(CLASS_NAMES))


def build(config: SplitCifar100Config, request: ScenarioRequest) -> Scenario:
    """Builds the stream. See `bench_scenarios._cifar.build`."""
    return _cifar.build(SPEC, CIFAR100, config, request)


SPEC = ScenarioSpec(
    name="split-cifar100",
    build=build,
    config=SplitCifar100Config,
    summary="CIFAR-100, class-incremental, 10 experiences of 10 classes",
    family="class-il",
    tracks={"mini": "cifar32", "paper": "unit224"},
    variant="split",
    aliases=("split-cifar",),
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated at the source; MIT according to the L2P paper",
    size_mb=169.0,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``split-cifar100``, short ``split-cifar``."""
    return [SPEC]
