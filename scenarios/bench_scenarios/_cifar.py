"""CIFAR-10 and CIFAR-100: 60,000 photographs of 32x32 pixels, read in three layouts.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.

Layouts, tried in this order; the one that was read is in the scenario's notes:

* ``native``: the archive of the authors' page, packed or unpacked. Its files are pickles, which can
  run code when loaded; they are unpickled only after their MD5 agreed with the published one.
* ``tree``: ``{train,test}/<class>/<image>``; labels by the names of the folders (`benchmark.readers.class_folders`).
* ``parquet``: ``{train,test}.parquet`` with encoded images (``img`` or ``image``) and labels.

Sample ids are positions in the layout that was read: raw index, rank of (class, file), row.
Decoded images are kept in the cache folder; the first reading takes some seconds, later ones less
than one.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark import data, readers, splits
from benchmark.errors import DataMissing
from benchmark.readers import Array, Arrays
from benchmark.samples import Pixels, Samples
from benchmark.scenario import ScenarioRequest

SPLITS = ("train", "test")
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
LICENCE = "none stated at the source; MIT according to the L2P paper"

FACTS = Path(__file__).with_name("facts")
"""Committed statistics of data sets (`benchmark.data_facts`)."""

_READER = "2"  # part of every cache key; rises when the decoded arrays change

Read = Callable[[], tuple[dict[str, Array], dict[str, str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cifar:
    """One of the two data sets, with the facts that its files are checked against.

    Attributes:
        name: Of its folder in the cache.
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


_NAMES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR10: Cifar = Cifar(
    name="split-cifar10",
    version=1,
    dataset=data.DataSet(
        title="CIFAR-10",
        folders=("cifar10", "cifar-10", "CIFAR10", "CIFAR-10"),
        layouts=(
            "cifar-10-python.tar.gz or cifar-10-batches-py/",
            "{train,test}/<class>/*.png",
            "{train,test}.parquet (img, label)",
        ),
        download=data.Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            file="cifar-10-python.tar.gz",
            size=170_498_071,
            md5="c58f30108f718f92721af3b95e74349a",
        ),
        mirror=data.Mirror(
            repository="uoft-cs/cifar10",
            revision="cfedcaa60e884c97a878950117875781a7106166",
            files=(
                data.Download(
                    url="plain_text/cifar10-train.parquet",
                    file="train.parquet",
                    size=119_705_255,
                    sha256="ead8c41c0968c6f96c522dfaa5393b361819ee998968037cce7c7efc3396568e",
                ),
                data.Download(
                    url="plain_text/cifar10-test.parquet",
                    file="test.parquet",
                    size=23_940_850,
                    sha256="a4b5762d285d0775cfd7bd06b30c514f3bf98f8feab7f15f672bfe8161c14735",
                ),
            ),
        ),
        source=SOURCE,
        licence=LICENCE,
        class_names=_NAMES10,
        look=lambda root: _look(CIFAR10, root),
        contents=lambda request: _contents(CIFAR10, request),
        facts=FACTS / "cifar10.json",
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
    class_names=_NAMES10,
)

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

CIFAR100: Cifar = Cifar(
    name="split-cifar100",
    version=1,
    dataset=data.DataSet(
        title="CIFAR-100",
        folders=("cifar100", "cifar-100", "CIFAR100", "CIFAR-100"),
        layouts=(
            "cifar-100-python.tar.gz or cifar-100-python/",
            "{train,test}/<class>/*.png",
            "{train,test}.parquet (img, fine_label)",
        ),
        download=data.Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            file="cifar-100-python.tar.gz",
            size=169_001_437,
            md5="eb9058c3a382ffc7106e4002c42a8d85",
        ),
        source=SOURCE,
        licence=LICENCE,
        class_names=tuple(_NAMES.split()),
        look=lambda root: _look(CIFAR100, root),
        contents=lambda request: _contents(CIFAR100, request),
        facts=FACTS / "cifar100.json",
    ),
    native="cifar-100-python",
    # As in torchvision.datasets.CIFAR100.
    files={
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
    native_label="fine_labels",
    label_columns=("fine_label", "label"),
    class_names=tuple(_NAMES.split()),
)


def image_sets(
    cifar: Cifar, request: ScenarioRequest, counts: Mapping[str, int]
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The sets ``train`` and ``test`` with their original labels, and notes.

    Args:
        cifar: The data set.
        request: Data root, cache, and whether fetching is allowed.
        counts: Images per class of either set, the first of the file; 0 for all.

    Raises:
        DataMissing: See `load`.
    """
    import torch

    kept = load(cifar, data.data_root(request.data_root), request)
    whole = {}
    for split in SPLITS:
        images, labels = (torch.from_numpy(kept.arrays[f"{split}_{part}"]) for part in ("images", "labels"))
        rows = torch.arange(len(images))
        if counts[split]:
            rows = torch.from_numpy(splits.first_per_class(labels, counts[split]))
        whole[split] = Samples(Pixels(images, kept.digests[f"{split}_images"]), rows, labels[rows])
    return whole, kept.notes


def load(cifar: Cifar, root: Path, request: ScenarioRequest) -> Arrays:
    """Reads images and labels, from the cache if they were decoded before.

    Returns:
        ``train_images`` and ``test_images``, uint8 ``(N, 3, H, W)``; ``train_labels`` and
        ``test_labels``, int64 ``(N,)``; and notes with the ``layout`` and, for re-encoded copies of
        these lossless data, the ``lossy`` codec.

    Raises:
        DataMissing: The data are absent, incomplete, damaged, or not what they should be.
    """
    with cifar.dataset.reading(root):
        found = _find(cifar, root)
        if found is None:
            archive = data.fetch(cifar.dataset, root, mode=request.download)
            found = _Found([archive], archive.parent, functools.partial(_read_archive, cifar, archive), "archive")
        key = readers.file_key(found.files, found.base, _READER, cifar.name)

        def checked() -> tuple[dict[str, Array], dict[str, str]]:
            arrays, notes = found.read()
            _check(cifar, arrays, request)
            return arrays, notes

        kept = readers.cached_arrays(request.cache / f"{cifar.name}-{key}", checked)
        _check(cifar, kept.arrays, request)
    if "lossy" in kept.notes:
        warnings.warn(
            f"{cifar.dataset.title}: this copy is re-encoded as {kept.notes['lossy']}, the original is lossless; "
            "its results are marked and do not compare with published figures",
            stacklevel=2,
        )
    return kept


@dataclass(frozen=True)
class _Found:
    """The files of a layout, a folder above them, and their reader."""

    files: list[Path]
    base: Path
    read: Read
    form: str
    md5: Mapping[Path, str] = dataclasses.field(default_factory=dict)


def _find(cifar: Cifar, root: Path) -> _Found | None:
    """The first complete layout.

    Raises:
        DataMissing: Only an incomplete layout is there; fetching would hide the mistake.
    """
    folder = data.find(cifar.dataset.folders, root)
    incomplete = []
    # torchvision's users have the unpacked archive right below their data root.
    for native in [base / cifar.native for base in (folder, root) if base is not None]:
        files = [native / name for split in SPLITS for name in cifar.files[split]]
        absent = [file for file in files if not readers.is_file(file)]
        if not absent:
            md5 = {native / name: md5 for split in SPLITS for name, md5 in cifar.files[split].items()}
            return _Found(files, native, functools.partial(_read_folder, cifar, native), "native", md5)
        if readers.is_folder(native):
            incomplete.append(f"{readers.shown(absent[0])} is missing")
    if folder is not None:
        if cifar.dataset.download is not None:
            archive = folder / cifar.dataset.download.file
            if readers.is_file(archive):
                md5 = {archive: cifar.dataset.download.md5}
                return _Found([archive], folder, functools.partial(_read_archive, cifar, archive), "archive", md5)
        trees = {split: folder / split for split in SPLITS}
        absent = [place for place in trees.values() if not readers.is_folder(place)]
        if not absent:
            classes = readers.class_folders(trees, cifar.class_names)
            files = [file for split in SPLITS for one in sorted(classes[split]) for file in readers.image_files(one)]
            return _Found(files, folder, functools.partial(_read_tree, cifar, classes), "tree")
        tables = {split: folder / f"{split}.parquet" for split in SPLITS}
        missing = [place for place in tables.values() if not readers.is_file(place)]
        if not missing:
            read = functools.partial(_read_parquet, cifar, tables)
            return _Found(list(tables.values()), folder, read, "parquet")
        incomplete += [f"{readers.shown(gone[0])} is missing" for gone in (absent, missing) if len(gone) < len(SPLITS)]
    if incomplete:
        raise DataMissing("; ".join(incomplete))
    return None


def _look(cifar: Cifar, root: Path) -> data.Form | None:
    found = _find(cifar, root)
    return None if found is None else data.Form(name=found.form, files=tuple(found.files), md5=found.md5)


def _contents(cifar: Cifar, request: ScenarioRequest) -> tuple[dict[str, Samples], Mapping[str, str]]:
    return image_sets(cifar, request, dict.fromkeys(SPLITS, 0))


def _check(cifar: Cifar, arrays: Mapping[str, Array], request: ScenarioRequest) -> None:
    """Compares counts, sizes and labels with what the data set must have."""
    classes = len(cifar.class_names)
    for split, published in zip(SPLITS, cifar.counts, strict=True):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        expected = len(labels) if request.miniature else published
        problem = ""
        if len(images) != expected:
            problem = f"the {split} set holds {len(images):,} images instead of {expected:,}"
        elif len(labels) != expected:
            problem = f"the {split} set holds {len(labels):,} labels instead of {expected:,}"
        elif images.shape[1:] != (3, cifar.image_size, cifar.image_size):
            problem = f"{split} images are {images.shape[3]}x{images.shape[2]} instead of {cifar.image_size} pixels"
        elif labels.min() < 0 or labels.max() >= classes:
            problem = f"{split} labels are in {labels.min()}..{labels.max()} instead of 0..{classes - 1}"
        elif (odd := np.flatnonzero((found := np.bincount(labels, minlength=classes)) != expected // classes)).size:
            name = cifar.class_names[odd[0]]
            problem = f"the {split} set has {found[odd[0]]:,} images of {name} instead of {expected // classes:,}"
        if problem:
            raise DataMissing(problem)


def _read_native(cifar: Cifar, content: Callable[[str], bytes], where: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads the pickles of the archive."""
    arrays: dict[str, Array] = {}
    for split in SPLITS:
        images, labels = [], []
        for name, md5 in cifar.files[split].items():
            found = readers.read_pickle(content(name), f"{where}: {name}", md5=md5)
            try:
                pixels = np.asarray(found[b"data"])
                side = round((pixels.shape[1] / 3) ** 0.5)
                images.append(pixels.astype(np.uint8, copy=False).reshape(-1, 3, side, side))
                labels.append(np.asarray(found[cifar.native_label.encode()], np.int64))
            except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
                raise DataMissing(f"{where}: {name} cannot be read: {error}") from error
        arrays[f"{split}_images"] = images[0] if len(images) == 1 else np.concatenate(images)
        arrays[f"{split}_labels"] = np.concatenate(labels)
    return arrays, {"layout": "native"}


def _read_folder(cifar: Cifar, folder: Path) -> tuple[dict[str, Array], dict[str, str]]:
    return _read_native(cifar, lambda name: readers.read_bytes(folder / name), readers.shown(folder))


def _read_archive(cifar: Cifar, archive: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads the native files inside the packed archive; nothing is unpacked to disk."""
    download = cifar.dataset.download
    if download is not None and (found := data.file_md5(archive)) != download.md5:
        where = readers.shown(archive)
        raise DataMissing(f"{where} is damaged: its MD5 is {found} instead of {download.md5}; delete it")
    return _read_native(
        cifar, lambda name: readers.read_member(archive, f"{cifar.native}/{name}"), readers.shown(archive)
    )


def _read_tree(cifar: Cifar, classes: Mapping[str, Sequence[Path]]) -> tuple[dict[str, Array], dict[str, str]]:
    def read(split: str) -> tuple[readers.Decoded, Array]:
        return readers.read_tree(classes[split], what=f"{cifar.dataset.title} {split}")

    return _encoded("tree", {split: read(split) for split in SPLITS})


def _read_parquet(cifar: Cifar, tables: Mapping[str, Path]) -> tuple[dict[str, Array], dict[str, str]]:
    def read(split: str) -> tuple[readers.Decoded, Array]:
        return readers.read_parquet(tables[split], cifar.label_columns, what=f"{cifar.dataset.title} {split}")

    return _encoded("parquet", {split: read(split) for split in SPLITS})


def _encoded(
    layout: str, found: Mapping[str, tuple[readers.Decoded, Array]]
) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and notes of data that came as encoded images."""
    arrays: dict[str, Array] = {}
    for split, (decoded, labels) in found.items():
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = decoded.images, labels
    lossy = sorted({codec for decoded, _ in found.values() for codec in decoded.codecs if codec})
    return arrays, {"layout": layout, **({"lossy": ", ".join(lossy)} if lossy else {})}


def miniature(cifar: Cifar, root: Path) -> None:
    """Writes a few images of every class as a tree (`benchmark.specs.ScenarioSpec.miniature`)."""
    from PIL import Image

    generator = np.random.RandomState(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in cifar.class_names:
            folder = root / cifar.dataset.folders[0] / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.randint(0, 256, (cifar.image_size, cifar.image_size, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
