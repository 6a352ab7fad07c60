"""Reads data sets of ten digits in one file per split, as published: SVHN, USPS; samples of arrays, of MNIST's too.

Files must be whole and have the published MD5; decoded arrays are kept in the cache folder. What is in the files is
told by `bench_scenarios._svhn` and `bench_scenarios._usps`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark import builders, data, readers
from benchmark.data import DataSet, Form
from benchmark.errors import DataMissing
from benchmark.readers import Array, Arrays
from benchmark.samples import Pixels, Samples
from benchmark.scenario import ScenarioRequest

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Decode = Callable[[Mapping[str, Path]], tuple[dict[str, Array], dict[str, str]]]
"""Arrays ``SPLIT_images``, uint8 ``(N, H, W)`` or ``(N, 3, H, W)``, and ``SPLIT_labels``, int64; notes."""


@dataclass(frozen=True, kw_only=True)
class DigitFiles:
    """One of the data sets.

    Attributes:
        dataset: Folders and layout.
        source: Where it is found.
        files: Name of the file of each split.
        md5: Of each.
        counts: Images of each.
        decode: Reads them.
        reader: Part of every cache key; rises when the decoded arrays change.
    """

    dataset: DataSet
    source: str
    files: Mapping[str, str]
    md5: Mapping[str, str]
    counts: Mapping[str, int]
    decode: Decode
    reader: str = "1"

    def look(self, root: Path) -> Form | None:
        """Its files below a data root, or None.

        Raises:
            DataMissing: One of them is missing.
        """
        folder = data.find(self.dataset.folders, root)
        if folder is None:
            return None
        files = {split: folder / name for split, name in self.files.items()}
        for file in files.values():
            if not readers.is_file(file):
                raise DataMissing(f"{readers.shown(file)} is missing")
        md5 = {file: self.md5[split] for split, file in files.items()}
        return Form(name="native", files=tuple(files.values()), md5=md5)

    def contents(self, request: ScenarioRequest) -> tuple[dict[str, Samples], Mapping[str, str]]:
        """All images with their digits, see `benchmark.data.DataSet.contents`."""
        found = self.cut(request)
        return {"train": found.train, "test": found.test}, found.notes

    def cut(self, request: ScenarioRequest) -> builders.Cut:
        """Training and test images; ids are positions in the training file, then in the test file.

        Raises:
            DataMissing: The files are absent, incomplete, damaged, or not what they should be.
        """
        root = data.data_root(request.data_root)
        with self.dataset.reading(root):
            folder = data.find(self.dataset.folders, root)
            if folder is None:
                gets = f"; `bench data get {self.dataset.key}` gets it" if self.dataset.every_download else ""
                raise DataMissing(
                    f"not found below {root}, and it is not fetched by itself{gets}; it is at {self.source}"
                )
            files = {split: folder / name for split, name in self.files.items()}
            for split, file in files.items():
                if not readers.is_file(file):
                    raise DataMissing(f"{readers.shown(file)} is missing")
                if not request.miniature and (found := data.file_md5(file)) != self.md5[split]:
                    raise DataMissing(
                        f"{readers.shown(file)} is damaged: its MD5 is {found} instead of {self.md5[split]}"
                    )
            key = readers.file_key(list(files.values()), folder, self.reader)
            where = request.cache / f"{self.dataset.title.lower()}-{key}"
            kept = readers.cached_arrays(where, functools.partial(self.decode, files))
            found_counts = {split: len(kept.arrays[f"{split}_labels"]) for split in self.counts}
            builders.check_counts(found_counts, self.counts, request)
        return as_cut(kept, NAMES, self.counts["train"])


def as_cut(found: Arrays, names: tuple[str, ...], train: int) -> builders.Cut:
    """Training and test samples of arrays, grey ones as RGB; ids of test samples begin at ``train``."""
    import torch

    def samples(split: str, first_id: int) -> Samples:
        images = found.arrays[f"{split}_images"]
        if images.ndim == 3:
            grey = torch.from_numpy(images.copy())  # what was read cannot be written
            pixels = grey[:, None].expand(-1, 3, -1, -1)
        else:
            pixels = torch.from_numpy(images)
        source = Pixels(pixels, found.digests[f"{split}_images"])
        return builders.as_samples(source, found.arrays[f"{split}_labels"], first_id=first_id)

    return builders.Cut(train=samples("train", 0), test=samples("test", train), class_names=names, notes=found.notes)
