"""Reads CIFAR-10 and CIFAR-100 in three layouts and cuts them into class-incremental streams.

Layouts, tried in this order; the one that was read is in the scenario's notes:

* ``native``: the archive of the authors' page, packed or unpacked. Its files are pickles, which can
  run code when loaded; they are unpickled only after their MD5 agreed with the published one.
* ``tree``: ``{train,test}/<class>/<image>``; label = alphabetical rank of the folder (folders named
  by numbers are ranked as numbers).
* ``parquet``: ``{train,test}.parquet`` with encoded images (``img`` or ``image``) and labels.

Sample ids are positions in the layout that was read: raw index, rank of (class, file), row.
Decoded images are kept in the cache folder; the first reading takes some seconds, later ones less
than one.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmark import data, splits
from benchmark.data import Array
from benchmark.errors import DataMissing

if TYPE_CHECKING:
    from benchmark.api import ImageSet, Scenario, ScenarioRequest

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
SPLITS = ("train", "test")

_READER = "1"  # part of every cache key; rises when the decoded arrays change

Read = Callable[[], tuple[dict[str, Array], dict[str, str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cifar:
    """One of the two data sets, with the facts that its files are checked against.

    Attributes:
        name: Registered name of the scenario.
        version: Version of the scenario.
        dataset: Folders, accepted layouts, download.
        native: Folder inside the archive.
        files: Per split, the names and MD5s of the native files.
        native_label: Key of the labels in the native files.
        label_columns: Accepted Parquet columns of the labels.
        class_names: In the order of the original labels.
        counts: Number of training and test images.
        image_size: Side of the images in pixels.
    """

    name: str
    version: int
    dataset: data.DataSet
    native: str
    files: Mapping[str, Mapping[str, str]]
    native_label: str
    label_columns: tuple[str, ...]
    class_names: tuple[str, ...]
    counts: tuple[int, int] = (50_000, 10_000)
    image_size: int = 32


class Options(Protocol):
    """The options that both scenarios have."""

    @property
    def split(self) -> str:
        """See `benchmark.splits.sizes`."""

    @property
    def class_order(self) -> str:
        """See `benchmark.splits.class_order`."""

    @property
    def train(self) -> int:
        """Training images per class, the first of the file; 0 for all."""

    @property
    def test(self) -> int:
        """Test images per class, likewise."""


def check_options(options: Options, num_classes: int) -> None:
    """Checks options without touching the data.

    Raises:
        ValueError: ``"<field>: ..."``.
    """
    for field, check in (("split", splits.sizes), ("class_order", splits.class_order)):
        try:
            check(getattr(options, field), num_classes)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error
    for field, count in (("train", options.train), ("test", options.test)):
        if count < 0:
            raise ValueError(f"{field}: {count} is negative; use a number of images per class, or 0 for all")


def build(cifar: Cifar, options: Options, request: ScenarioRequest) -> Scenario:
    """Builds the stream.

    Args:
        cifar: The data set, with counts and checksums to expect.
        options: Split, class order, images per class.
        request: Data root, cache, seed, and whether fetching is allowed.

    Raises:
        DataMissing: The data are absent, incomplete, damaged, or not what they should be.
    """
    from benchmark.api import Scenario

    whole, notes = image_sets(cifar, request, {"train": options.train, "test": options.test})
    order = splits.class_order(options.class_order, len(cifar.class_names), seed=request.seed)
    experiences = splits.class_incremental(
        whole["train"], whole["test"], order, splits.sizes(options.split, len(cifar.class_names))
    )
    return Scenario(
        name=f"{cifar.name}/{options.split}",
        version=cifar.version,
        family="class-il",
        experiences=experiences,
        num_classes=len(order),
        class_names=tuple(cifar.class_names[label] for label in order),
        class_order=order,
        fingerprint=splits.fingerprint(experiences) + ("-lossy" if "lossy" in notes else ""),
        image_size=cifar.image_size,
        notes=notes,
    )


def image_sets(
    cifar: Cifar, request: ScenarioRequest, counts: Mapping[str, int]
) -> tuple[dict[str, ImageSet], dict[str, str]]:
    """The sets ``train`` and ``test`` with their original labels, and notes.

    Args:
        cifar: The data set.
        request: Data root, cache, and whether fetching is allowed.
        counts: Images per class of either set, the first of the file; 0 for all.

    Raises:
        DataMissing: See `build`.
    """
    import torch

    from benchmark.api import ImageSet

    arrays, notes = load(cifar, data.data_root(request.data_root), request)
    whole = {}
    for split in SPLITS:
        images, labels = (torch.from_numpy(arrays[f"{split}_{part}"]) for part in ("images", "labels"))
        rows = torch.arange(len(images))
        if counts[split]:
            rows = torch.from_numpy(splits.first_per_class(labels, counts[split]))
        whole[split] = ImageSet(images, rows, labels[rows])
    return whole, notes


def load(cifar: Cifar, root: Path, request: ScenarioRequest) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads images and labels, from the cache if they were decoded before.

    Returns:
        ``train_images`` and ``test_images``, uint8 ``(N, 3, H, W)``; ``train_labels`` and
        ``test_labels``, int64 ``(N,)``; and notes with the ``layout`` and, for re-encoded copies of
        these lossless data, the ``lossy`` codec.

    Raises:
        DataMissing: See `build`.
    """
    found = _find(cifar, root)
    if found is None:
        archive = data.fetch(cifar.dataset, root, mode=request.download)
        found = ([archive], archive.parent, lambda: _read_archive(cifar, archive))
    files, base, read = found
    key = data.file_key(files, base, _READER, cifar.name)

    def checked() -> tuple[dict[str, Array], dict[str, str]]:
        try:
            arrays, notes = read()
        except DataMissing as error:
            raise cifar.dataset.missing(root, error.message) from error
        _check(cifar, root, arrays)
        return arrays, notes

    arrays, notes = data.cached_arrays(request.cache / f"{cifar.name}-{key}", checked)
    _check(cifar, root, arrays)
    if "lossy" in notes:
        warnings.warn(
            f"{cifar.dataset.title}: this copy is re-encoded as {notes['lossy']}, the original is lossless; "
            "its results are marked and do not compare with published figures",
            stacklevel=2,
        )
    return arrays, notes


def _find(cifar: Cifar, root: Path) -> tuple[list[Path], Path, Read] | None:
    """The files of the first complete layout, a folder above them, and their reader.

    Raises:
        DataMissing: Only an incomplete layout is there; fetching would hide the mistake.
    """
    folder = data.find(cifar.dataset.folders, root)
    incomplete = []
    # torchvision's users have the unpacked archive right below their data root.
    for native in [base / cifar.native for base in (folder, root) if base is not None]:
        files = [native / name for split in SPLITS for name in cifar.files[split]]
        absent = [file for file in files if not file.is_file()]
        if not absent:
            return files, native, functools.partial(_read_folder, cifar, native)
        if native.is_dir():
            incomplete.append(f"{absent[0]} is missing")
    if folder is not None:
        if cifar.dataset.download is not None:
            archive = folder / cifar.dataset.download.file
            if archive.is_file():
                return [archive], folder, lambda: _read_archive(cifar, archive)
        trees = {split: folder / split for split in SPLITS}
        tables = {split: folder / f"{split}.parquet" for split in SPLITS}
        for places, there, read in (
            (trees, Path.is_dir, lambda: _read_tree(cifar, trees)),
            (tables, Path.is_file, lambda: _read_parquet(cifar, tables)),
        ):
            absent = [place for place in places.values() if not there(place)]
            if not absent:
                files = _images(trees.values()) if places is trees else list(tables.values())
                return files, folder, read
            if len(absent) < len(places):
                incomplete.append(f"{absent[0]} is missing")
    if incomplete:
        raise cifar.dataset.missing(root, "; ".join(incomplete))
    return None


def _check(cifar: Cifar, root: Path, arrays: Mapping[str, Array]) -> None:
    """Compares counts, sizes and labels with what the data set must have."""
    classes = len(cifar.class_names)
    for split, expected in zip(SPLITS, cifar.counts, strict=True):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        problem = ""
        if len(images) != expected:
            problem = f"the {split} set holds {len(images):,} images instead of {expected:,}"
        elif images.shape[1:] != (3, cifar.image_size, cifar.image_size):
            problem = f"{split} images are {images.shape[3]}x{images.shape[2]} instead of {cifar.image_size} pixels"
        elif labels.min() < 0 or labels.max() >= classes:
            problem = f"{split} labels are in {labels.min()}..{labels.max()} instead of 0..{classes - 1}"
        elif len(np.unique(labels)) != classes:
            problem = f"the {split} set has images of {len(np.unique(labels))} classes instead of {classes}"
        if problem:
            raise cifar.dataset.missing(root, problem)


# --- native -------------------------------------------------------------------------------------


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can make numpy arrays and plain values, nothing else."""

    # Asked of numpy itself, because the function moves between its versions.
    _rebuild = np.empty(0).__reduce__()[0]
    _allowed = {"_reconstruct": _rebuild, "ndarray": np.ndarray, "dtype": np.dtype}  # noqa: RUF012 - private

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._allowed:
            return self._allowed[name]
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a data file")


def _read_native(cifar: Cifar, open_file: Callable[[str], Any], where: str) -> tuple[dict[str, Array], dict[str, str]]:
    arrays: dict[str, Array] = {}
    for split in SPLITS:
        images, labels = [], []
        for name, md5 in cifar.files[split].items():
            with open_file(name) as file:
                found = _md5_of(file)
                if found != md5:
                    raise DataMissing(f"{where}: {name} is damaged: its MD5 is {found} instead of {md5}")
                file.seek(0)
                try:
                    # Python 2 wrote these files: texts arrive as bytes, which also saves a copy.
                    content = _ArraysOnly(file, encoding="bytes").load()
                    pixels = np.asarray(content[b"data"])
                    side = round((pixels.shape[1] / 3) ** 0.5)
                    images.append(pixels.astype(np.uint8, copy=False).reshape(-1, 3, side, side))
                    labels.append(np.asarray(content[cifar.native_label.encode()], np.int64))
                except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, IndexError) as error:
                    raise DataMissing(f"{where}: {name} cannot be read: {error}") from error
        arrays[f"{split}_images"] = images[0] if len(images) == 1 else np.concatenate(images)
        arrays[f"{split}_labels"] = np.concatenate(labels)
    return arrays, {"layout": "native"}


def _read_folder(cifar: Cifar, folder: Path) -> tuple[dict[str, Array], dict[str, str]]:
    return _read_native(cifar, lambda name: (folder / name).open("rb"), f"{folder}")


def _read_archive(cifar: Cifar, archive: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads the native files inside the packed archive; nothing is unpacked to disk."""
    download = cifar.dataset.download
    found = data.file_md5(archive)
    if download is not None and found != download.md5:
        raise DataMissing(f"{archive} is damaged: its MD5 is {found} instead of {download.md5}; delete it")

    def member(name: str) -> io.BytesIO:
        try:
            with tarfile.open(archive) as tar:
                content = tar.extractfile(f"{cifar.native}/{name}")
                if content is None:
                    raise DataMissing(f"{archive}: {cifar.native}/{name} is not a file")
                return io.BytesIO(content.read())
        except (tarfile.TarError, KeyError, OSError, EOFError) as error:
            raise DataMissing(f"{archive}: {cifar.native}/{name} cannot be read: {error}") from error

    return _read_native(cifar, member, f"{archive}")


def _md5_of(file: Any) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


# --- encoded images -----------------------------------------------------------------------------


def _images(folders: Iterable[Path]) -> list[Path]:
    """Image files two levels down, in the order of (class, file) by code point."""
    found = [path for folder in folders for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES]
    return sorted(path for path in found if not path.name.startswith("."))


def _read_tree(cifar: Cifar, trees: Mapping[str, Path]) -> tuple[dict[str, Array], dict[str, str]]:
    arrays: dict[str, Array] = {}
    codecs: set[str] = set()
    for split, folder in trees.items():
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if len(names) != len(cifar.class_names):
            raise DataMissing(f"{folder} has {len(names)} class folders instead of {len(cifar.class_names)}")
        if all(name.isdecimal() for name in names):
            names.sort(key=int)
        files = _images([folder])
        label = {name: rank for rank, name in enumerate(names)}
        arrays[f"{split}_labels"] = np.array([label[path.parent.name] for path in files], np.int64)
        blobs = ((f"{path}", path.read_bytes()) for path in files)
        arrays[f"{split}_images"] = _decode(blobs, len(files), f"{cifar.dataset.title} {split}", codecs)
    return arrays, _notes("tree", codecs)


def _read_parquet(cifar: Cifar, tables: Mapping[str, Path]) -> tuple[dict[str, Array], dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays: dict[str, Array] = {}
    codecs: set[str] = set()
    for split, path in tables.items():
        try:
            # Read in small buffers: a whole column of encoded images would double the memory needed.
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
                columns = file.schema_arrow.names
                image = next((name for name in ("img", "image") if name in columns), None)
                label = next((name for name in cifar.label_columns if name in columns), None)
                if image is None or label is None:
                    wanted = "`img` or `image`" if image is None else " or ".join(f"`{n}`" for n in cifar.label_columns)
                    raise DataMissing(f"{path} has no column {wanted}, only {', '.join(columns)}")
                count = file.metadata.num_rows
                labels: list[Any] = []

                def blobs() -> Iterator[tuple[str, bytes]]:
                    row = 0
                    for batch in file.iter_batches(batch_size=256, columns=[image, label]):  # noqa: B023 - used at once
                        labels.extend(batch.column(label).to_pylist())  # noqa: B023
                        for cell in batch.column(image).to_pylist():  # noqa: B023
                            yield f"{path}, row {row}", cell["bytes"] if isinstance(cell, dict) else cell  # noqa: B023
                            row += 1

                images = _decode(blobs(), count, f"{cifar.dataset.title} {split}", codecs)
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, np.array(labels, np.int64)
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise DataMissing(f"{path} is truncated or damaged: {error}") from error
    return arrays, _notes("parquet", codecs)


def _decode(blobs: Iterable[tuple[str, bytes]], count: int, what: str, codecs: set[str]) -> Array:
    """Decodes images of one size into uint8 ``(N, 3, H, W)`` and notes their lossy codecs."""
    from PIL import Image
    from tqdm import tqdm

    out = np.empty((0, 3, 1, 1), np.uint8)
    for row, (where, blob) in enumerate(tqdm(blobs, desc=f"decoding {what}", total=count, unit="img", disable=None)):
        try:
            with Image.open(io.BytesIO(blob)) as image:
                pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
        except Exception as error:  # PIL raises what its decoders raise
            raise DataMissing(f"{where} is not a readable image: {error}") from error
        if row == 0:
            out = np.empty((count, 3, *pixels.shape[:2]), np.uint8)
        elif pixels.shape[:2] != out.shape[2:]:
            raise DataMissing(
                f"{where} has {pixels.shape[1]}x{pixels.shape[0]} pixels, others {out.shape[3]}x{out.shape[2]}"
            )
        out[row] = pixels.transpose(2, 0, 1)
        if blob[:2] == b"\xff\xd8":
            codecs.add("JPEG")
        elif blob[:4] == b"RIFF" and blob[12:16] == b"VP8 ":
            codecs.add("lossy WebP")
    return out


def _notes(layout: str, codecs: set[str]) -> dict[str, str]:
    return {"layout": layout, **({"lossy": ", ".join(sorted(codecs))} if codecs else {})}
