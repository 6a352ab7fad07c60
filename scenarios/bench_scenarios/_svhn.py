"""Reads SVHN's cropped digits: two MATLAB files of 32x32 photographs.

Source: Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011. Layout:
``svhn/{train,test}_32x32.mat``; files of the published numbers of images must have the published MD5. Label 10 stands
for the digit 0. Decoded arrays are kept in the cache folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench_scenarios import _digit_files
from benchmark import builders, readers
from benchmark.data import DataSet, Download
from benchmark.errors import DataMissing
from benchmark.readers import Array
from benchmark.scenario import ScenarioRequest

SOURCE = "http://ufldl.stanford.edu/housenumbers"
LICENCE = "none stated; for non-commercial use according to the source"
COUNTS = {"train": 73_257, "test": 26_032}
# As in torchvision.datasets.SVHN.
MD5 = {"train": "e26dedcc434d2e4c54c9b2d4a06d8373", "test": "eb5a983be6a315427106f1b164d9cef3"}

SIZES = {"train": 182_040_794, "test": 64_275_384}  # bytes, as its server tells them

SVHN = DataSet(
    title="SVHN",
    folders=("svhn", "SVHN"),
    layouts=("{train,test}_32x32.mat",),
    source=SOURCE,
    licence=LICENCE,
    class_names=_digit_files.NAMES,
    look=lambda root: FILES.look(root),
    contents=lambda request: FILES.contents(request),
    downloads=tuple(
        Download(url=f"{SOURCE}/{split}_32x32.mat", file=f"{split}_32x32.mat", size=size, md5=MD5[split])
        for split, size in SIZES.items()
    ),
)


def _decode(files: Mapping[str, Path]) -> tuple[dict[str, Array], dict[str, str]]:
    from scipy.io import loadmat

    arrays: dict[str, Array] = {}
    for split, file in files.items():
        with readers.opened(file) as content:
            try:
                found = loadmat(content, variable_names=("X", "y"))
                images, labels = np.asarray(found["X"]), np.asarray(found["y"]).reshape(-1).astype(np.int64)
            except Exception as error:  # scipy raises what its parsers raise
                raise DataMissing(f"{readers.shown(file)} cannot be read: {error}") from error
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
            raise DataMissing(
                f"{readers.shown(file)} holds {images.dtype} {images.shape} for {len(labels):,} labels, not uint8 "
                f"(32, 32, 3, {len(labels)})"
            )
        if labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
            raise DataMissing(f"{readers.shown(file)} has labels {labels.min()}..{labels.max()} instead of 1..10")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images.transpose(3, 2, 0, 1), labels % 10
    return arrays, {"layout": "mat"}


FILES: _digit_files.DigitFiles = _digit_files.DigitFiles(
    dataset=SVHN,
    source=SOURCE,
    files={split: f"{split}_32x32.mat" for split in COUNTS},
    md5=MD5,
    counts=COUNTS,
    decode=_decode,
)


def cut(request: ScenarioRequest) -> builders.Cut:
    """Training and test images, see `bench_scenarios._digit_files.DigitFiles.cut`."""
    return FILES.cut(request)


def miniature(root: Path) -> None:
    """Writes a few images as published (`benchmark.specs.ScenarioSpec.miniature`)."""
    from scipy.io import savemat

    folder, generator = root / SVHN.folders[0], np.random.RandomState(0)
    folder.mkdir(parents=True)
    for split, count in (("train", 60), ("test", 40)):
        images = generator.randint(0, 256, (32, 32, 3, count)).astype(np.uint8)
        labels = np.tile(np.arange(1, 11, dtype=np.uint8), count // 10)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images, "y": labels})
