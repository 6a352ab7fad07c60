"""Reads USPS: 9,298 grey digits of 16x16 pixels in two packed text files.

Source: Hull, "A Database for Handwritten Text Recognition Research", 1994, in the form of LIBSVM that torchvision
reads: ``usps/{usps,usps.t}.bz2``, one image per line, ``label index:value`` with labels 1..10 and 256 values in -1..1.
Values become grey levels as torchvision makes them. Files must have the published MD5.
"""

from __future__ import annotations

import bz2
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench_scenarios import _digit_files
from benchmark import builders, readers
from benchmark.data import DataSet
from benchmark.errors import DataMissing
from benchmark.readers import Array
from benchmark.scenario import ScenarioRequest

SOURCE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps"
LICENCE = "none stated at the source"
COUNTS = {"train": 7_291, "test": 2_007}
SIDE = 16
FILES = {"train": "usps.bz2", "test": "usps.t.bz2"}
# As in torchvision.datasets.USPS.
MD5 = {"train": "ec16c51db3855ca6c91edd34d0e9b197", "test": "8ea070ee2aca1ac39742fdd1ef5ed118"}
_MOST = 1 << 26  # unpacked bytes; the larger file has 17 MB

USPS = DataSet(
    title="USPS",
    folders=("usps", "USPS"),
    layouts=("{usps,usps.t}.bz2",),
    source=SOURCE,
    licence=LICENCE,
    class_names=_digit_files.NAMES,
    look=lambda root: PACKED.look(root),
    contents=lambda request: PACKED.contents(request),
)


def _decode(files: Mapping[str, Path]) -> tuple[dict[str, Array], dict[str, str]]:
    arrays: dict[str, Array] = {}
    for split, file in files.items():
        try:
            unpacker = bz2.BZ2Decompressor()
            text = unpacker.decompress(readers.read_bytes(file, most=_MOST), max_length=_MOST)
        except (OSError, ValueError) as error:
            raise DataMissing(f"{readers.shown(file)} cannot be unpacked: {error}") from error
        if not unpacker.eof:
            raise DataMissing(f"{readers.shown(file)} is cut off, or larger than {_MOST:,} bytes when unpacked")
        images, labels = [], []
        for number, line in enumerate(text.splitlines(), 1):
            label, *pairs = line.split()
            try:
                values = dict(pair.split(b":") for pair in pairs)
                row = np.array([values.pop(b"%d" % place) for place in range(1, SIDE * SIDE + 1)], np.float32)
                if values or not 1 <= int(label) <= len(_digit_files.NAMES) or not (np.abs(row) <= 1).all():
                    raise ValueError("values out of range")
            except (ValueError, KeyError) as error:
                raise DataMissing(
                    f"{readers.shown(file)}, line {number}: not a label 1..10 and 256 values `index:value` in -1..1"
                ) from error
            images.append(((row + 1) / 2 * 255).astype(np.uint8).reshape(SIDE, SIDE))
            labels.append(int(label) - 1)
        if not images:
            raise DataMissing(f"{readers.shown(file)} holds no image")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(images), np.array(labels, np.int64)
    return arrays, {"layout": "libsvm"}


PACKED: _digit_files.DigitFiles = _digit_files.DigitFiles(
    dataset=USPS, source=SOURCE, files=FILES, md5=MD5, counts=COUNTS, decode=_decode
)


def cut(request: ScenarioRequest) -> builders.Cut:
    """Training and test images as grey RGB, see `bench_scenarios._digit_files.DigitFiles.cut`."""
    return PACKED.cut(request)


def miniature(root: Path) -> None:
    """Writes a few images as published (`benchmark.specs.ScenarioSpec.miniature`)."""
    folder, generator = root / USPS.folders[0], np.random.RandomState(0)
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 20)):
        lines = []
        for place in range(count):
            values = generator.uniform(-1, 1, SIDE * SIDE)
            pairs = " ".join(f"{index}:{value:.4f}" for index, value in enumerate(values, 1))
            lines.append(f"{place % 10 + 1} {pairs} \n")
        (folder / FILES[split]).write_bytes(bz2.compress("".join(lines).encode()))
