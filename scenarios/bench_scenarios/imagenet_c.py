"""ImageNet-C as streams of test batches: test-time adaptation, 1,000 classes.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019. Layout: ``imagenet-c/<corruption>/<severity>/<wnid>/*.JPEG``, the folders of all archives side by side (the
archives ``blur``, ``digital``, ``noise``, ``weather``, and ``extra`` for `TUNING`); ImageNet itself as in
`bench_scenarios._coop_sets`. The source is ImageNet: `shots` training images per class, or none that matters with
``--set classifier=own``, which answers with the classifier of the checkpoint as papers do. What is left of the source
is measured on ImageNet's validation images. The stream holds corrupted copies of the latter, one corruption after the
other in the order of the benchmark (`bench_scenarios._test_streams` has the settings).

``corruptions``: ``15`` (default), or names joined by ``+``; only their folders are needed, of the chosen severity, and
``gradual`` needs all five. Options are chosen on the four extra corruptions (``bench tune``) as far as they are there,
on the last images of every class; the stream has the first ones (with all images, as in the papers of EATA and SAR, the
same photographs are in both, under other corruptions). Five a class make 5,000, as many as in RobustBench's list, which
is another one. Batches of 64 as in papers.

Of a corruption's 50,000 images only those that are shown are read, so the content holds names and sizes. Version 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from bench_scenarios import _coop, _coop_sets, _corruptions, _shots, _test_streams, _trees
from benchmark import ScenarioSpec, builders, data, hookimpl, readers
from benchmark.config import Range
from benchmark.data import DataSet
from benchmark.digests import joined
from benchmark.errors import DataMissing
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest

SOURCE = "https://zenodo.org/records/2235448"
FIFTEEN = _corruptions.ORDER[:15]
TUNING = _corruptions.ORDER[15:]
COUNT = 50_000  # images of a corruption and severity
TUNED = 5  # images per class for choosing options
_IDS = 10_000_000  # of one corruption

IMAGENET_C = DataSet(
    title="ImageNet-C",
    folders=("imagenet-c", "ImageNet-C", "imagenet_c"),
    layouts=("<corruption>/<severity>/<wnid>/*.JPEG",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetCConfig(_test_streams.StreamConfig):
    """Options of ``imagenet-c``.

    Attributes:
        corruptions: ``15``, or names joined by ``+``.
        batch_size: Images of a batch.
        shots: Training images per class of the clean source.
        test: Clean test images per class, the first of the list; 0 for all.
        images: Images per class and corruption (and severity), the first of the list; 0 for all.
    """

    batch_size: Annotated[int, Range(min=1, max=10_000)] = 64
    corruptions: str = "15"
    shots: int = 16
    test: Annotated[int, Range(min=0)] = 5
    images: Annotated[int, Range(min=0)] = 5

    def __post_init__(self) -> None:
        """Checks that the corruptions exist."""
        _test_streams.StreamConfig.__post_init__(self)
        _shots.check_shots(self.shots)
        unknown = [name for name in self.names if name not in FIFTEEN]
        if unknown or len(set(self.names)) < len(self.names):
            raise ValueError(
                f"corruptions: {self.corruptions!r} is not possible; use 15, or names joined by +, each once: "
                f"{', '.join(FIFTEEN)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions in their order."""
        return FIFTEEN if self.corruptions == "15" else tuple(self.corruptions.split("+"))

    @property
    def severities(self) -> tuple[int, ...]:
        """Those that are shown."""
        return tuple(range(1, 6)) if self.setting.startswith("gradual") else (self.severity,)


def build(config: ImageNetCConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; its order and the training images depend on the seed, the images of the stream do not.

    Raises:
        DataMissing: ImageNet or ImageNet-C, a corruption or a severity is absent, or is not what was published.
    """
    folder = _trees.folder_of(IMAGENET_C, request, SOURCE)
    own = _coop.draw("imagenet", config.shots, request)
    with IMAGENET_C.reading(data.data_root(request.data_root)):
        check_folders(folder, config.names, config.severities)
        pools = {(name, step): pool(folder, name, step, own.folders, request) for name, step in _shown(config)}
        extra = [
            name for name in TUNING if all(readers.is_folder(folder / name / str(step)) for step in config.severities)
        ]

        def images(count: int, name: str, severity: int) -> Samples:
            """The first images of every class under a corruption; the last ones for a negative count."""
            import torch

            found = pools.get((name, severity)) or pool(folder, name, severity, own.folders, request)
            labels = _labels(found, own.folders)
            rows = _of_each(labels, count)
            source = _trees.source_of(found.take(rows), request, upright=False)
            ids = torch.from_numpy(rows) + _IDS * (1 + _corruptions.ORDER.index(name))
            return Samples(source, torch.arange(len(rows)), torch.from_numpy(labels[rows]), ids)

        shown, tuned = functools.partial(images, config.images), functools.partial(images, -TUNED)
        return Scenario.of(
            SPEC,
            config,
            version=1,
            experiences=(
                Experience(
                    train=own.train,
                    test=builders.first(own.test, config.test),
                    classes=tuple(range(len(own.class_names))),
                    domain="clean",
                ),
            ),
            class_names=own.class_names,
            content=joined([own.content, *(_coop.listed(found) for found in pools.values())]),
            notes=own.notes,
            test_stream=_test_streams.stream(config, config.names, shown, seed=request.seed),
            tuning_stream=_test_streams.stream(config, extra, tuned, seed=request.seed) if extra else None,
        )


def _shown(config: ImageNetCConfig) -> list[tuple[str, int]]:
    return [(name, severity) for name in config.names for severity in config.severities]


def check_folders(folder: Path, names: Sequence[str], severities: Sequence[int]) -> None:
    """Whether all corruptions and severities are there.

    Raises:
        DataMissing: One is not; the message says which ones are.
    """
    for name in names:
        if not readers.is_folder(folder / name):
            there = [one for one in FIFTEEN if readers.is_folder(folder / one)]
            raise DataMissing(
                f"{readers.shown(folder)} has no folder {name}",
                hint=f"unpack the archive that holds it ({SOURCE})"
                + (f", or --set corruptions={'+'.join(there)}" if there else ""),
            )
        for severity in severities:
            if not readers.is_folder(folder / name / str(severity)):
                levels = [level for level in range(1, 6) if readers.is_folder(folder / name / str(level))]
                told = f"severities {', '.join(map(str, levels))}" if levels else "no folder of a severity, 1 to 5"
                raise DataMissing(
                    f"{readers.shown(folder / name)} has {told}, not {severity}",
                    hint="--set severity=N chooses one; setting=gradual needs all five",
                )


def pool(folder: Path, name: str, severity: int, classes: Sequence[str], request: ScenarioRequest) -> readers.Found:
    """All images of a corruption and severity.

    Raises:
        DataMissing: Classes or images are more or fewer than those of ImageNet's validation set.
    """
    where = folder / name / str(severity)
    found = readers.find_images(where)
    own = {one.partition("/")[0] for one in found.names}
    if strange := sorted(own ^ set(classes)):
        what = "has no images of" if strange[0] in classes else "has the folder"
        raise DataMissing(f"{readers.shown(where)} {what} {strange[0]}")
    builders.check_counts({f"{name}/{severity}": len(found)}, {f"{name}/{severity}": COUNT}, request)
    return found


def _labels(found: readers.Found, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    label = {wnid: number for number, wnid in enumerate(classes)}
    return np.array([label[name.partition("/")[0]] for name in found.names], dtype=np.int64)


def _of_each(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Rows of the first images of every class, of the last ones for a negative count, of all for 0; in order."""
    if not count:
        return np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return np.sort(np.concatenate([part[:count] if count > 0 else part[count:] for part in parts]))


def miniature(root: Path) -> None:
    """Five classes with two images under every corruption and severity (`benchmark.specs.ScenarioSpec.miniature`)."""
    _coop.miniature(("imagenet",), root)
    wnids = [path.name for path in sorted((root / "coop" / "imagenet" / "images" / "val").iterdir())]
    folder = root / IMAGENET_C.folders[0]
    for name in _corruptions.ORDER:
        names = [f"{step}/{wnid}/{one}.JPEG" for step in range(1, 6) for wnid in wnids for one in range(2)]
        _trees.write(folder / name, names)


SPEC = ScenarioSpec(
    name="imagenet-c",
    build=build,
    config=ImageNetCConfig,
    summary="ImageNet-C: trained on clean ImageNet, met under corruptions in unlabelled test batches",
    family="tta",
    tracks={"mini": "clip224", "paper": "clip224"},  # its images are 224 px: nothing is cut off
    variant="setting",
    source=f"{SOURCE}; ImageNet: {_coop_sets.SOURCE}",
    licence="CC BY 4.0 (corruptions); ImageNet terms",
    size_mb=220_000.0,
    data=(IMAGENET_C, _coop_sets.IMAGENET.dataset),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``imagenet-c``."""
    return [SPEC]
