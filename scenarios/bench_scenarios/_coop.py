"""Reads the data sets of CoOp (`bench_scenarios._coop_sets`) as its code does: a few images trained, all test images.

What is trained, validated and tested stands in ``split_zhou_*.json``, in FGVC-Aircraft's own lists, or in ImageNet's
folders ``train`` and ``val`` (tested; there is no validation list). Nothing is cut here: without the published lists
there is no scenario. Class names are those of the lists, with blanks for underscores as in all of CoOp's prompts. Shots
are drawn in the order of the lists (`bench_scenarios._shots`); ImageNet's images in the order of their names, where
CoOp takes them as the file system gives them, so that its own draw differs from machine to machine. Images are not
turned by their EXIF data, as in Dassl's ``read_image``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench_scenarios import _coop_lists, _coop_sets, _shots, _trees
from bench_scenarios._coop_sets import EVERY, IMAGENET, SETS, SHIFTS, CoopSet
from benchmark import builders, data, readers, splits
from benchmark.digests import joined
from benchmark.errors import DataMissing
from benchmark.samples import Samples, digest_of
from benchmark.scenario import ScenarioRequest


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A data set of which a few images are trained.

    Attributes:
        train: The shots.
        validation: A few images per class, or None of ImageNet.
        test: All test images.
        class_names: In label order.
        content: See `benchmark.scenario.Scenario.content`.
        partition: Likewise.
        notes: Likewise.
        folders: Names of the class folders in label order; of ImageNet.
    """

    train: Samples
    validation: Samples | None
    test: Samples
    class_names: tuple[str, ...]
    content: str
    partition: str = ""
    notes: Mapping[str, str]
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A data set that is tested only.

    Attributes:
        images: All test images, labels from 0.
        class_names: In label order.
        notes: See `benchmark.scenario.Scenario.notes`.
    """

    images: Samples
    class_names: tuple[str, ...]
    notes: Mapping[str, str]


def draw(key: str, shots: int, request: ScenarioRequest) -> Drawn:
    """A data set of `SETS` with the images that a run trains, drawn by the rule of CoOp with the seed of the request.

    Args:
        key: Its name.
        shots: Training images per class; all where there are fewer. 0 (not of ImageNet): all images of both lists.
        request: Data root, cache and seed.

    Raises:
        DataMissing: The data are absent, damaged, or not what was published.
    """
    entry = SETS[key]
    folder = _trees.folder_of(entry.dataset, request, entry.dataset.source)
    with entry.dataset.reading(data.data_root(request.data_root)):
        if entry is IMAGENET:
            return _draw_imagenet(folder, shots, request)
        listing = _listing(entry, folder, request)
        found = _samples(listing, request)
    train, validation = found["train"], found["val"]
    if shots:
        train, validation = _shots.sample(train, validation, shots, request.seed)
    return Drawn(
        train=train,
        validation=validation,
        test=found["test"],
        class_names=listing.class_names,
        content=joined([digest_of(train.source)]),
        partition=listing.partition,
        notes=listing.notes,
    )


def tested(key: str, request: ScenarioRequest) -> Tested:
    """The test images of a data set of `LISTED` or `SHIFTED`.

    Raises:
        DataMissing: The data are absent, damaged, or not what was published.
    """
    entry = EVERY[key]
    folder = _trees.folder_of(entry.dataset, request, entry.dataset.source)
    if key in SHIFTS:
        names = _imagenet_names(request)
        with entry.dataset.reading(data.data_root(request.data_root)):
            listing = _shifted(entry, folder, names, request)
    else:
        with entry.dataset.reading(data.data_root(request.data_root)):
            listing = _listing(entry, folder, request, parts=("test",))
    with entry.dataset.reading(data.data_root(request.data_root)):
        images = _samples(listing, request)["test"]
    return Tested(images=images, class_names=listing.class_names, notes=listing.notes)


def _samples(listing: _trees.Listing, request: ScenarioRequest) -> dict[str, Samples]:
    return _trees.samples(listing, request, as_listed=True, upright=False)


def _listing(
    entry: CoopSet, folder: Path, request: ScenarioRequest, parts: Sequence[str] = _coop_lists.PARTS
) -> _trees.Listing:
    """The files of some parts of a data set with lists; all parts are counted."""
    lists = _coop_sets.lists(entry, folder)
    builders.check_counts({part: len(files) for part, files in lists.parts.items()}, entry.counts, request)
    _check_classes(entry, len(lists.class_names), readers.shown(lists.files[0]), request)
    names = tuple(entry.renamed.get(name, name).replace("_", " ") for name in lists.class_names)
    told = "\n".join(f"{part} {label} {name}" for part, files in lists.parts.items() for name, label in files.items())
    return _trees.Listing(
        root=folder / entry.images,
        parts={part: lists.parts[part] for part in parts},
        class_names=names,
        notes={"layout": lists.files[0].name, **shared_names(names)},
        partition=f"lists {hashlib.sha256(told.encode()).hexdigest()[:8]}",
    )


def _check_classes(entry: CoopSet, found: int, where: str, request: ScenarioRequest) -> None:
    if found != entry.classes and not request.miniature:
        raise DataMissing(f"{where} has {found} classes instead of {entry.classes}")


def shared_names(*groups: Sequence[str]) -> dict[str, str]:
    """A note on names that several classes of a group have, as "missile" in CLIP's list for ImageNet."""
    names = sorted({name for group in groups for name, number in Counter(group).items() if number > 1})
    return {"shared names": ", ".join(names)} if names else {}


# --- ImageNet -----------------------------------------------------------------------------------


def _imagenet_names(request: ScenarioRequest) -> dict[str, str]:
    """Names of ImageNet's classes, from its folder: CoOp has copies of the file in those of the shifted sets."""
    folder = _trees.folder_of(IMAGENET.dataset, request, IMAGENET.dataset.source)
    with IMAGENET.dataset.reading(data.data_root(request.data_root)):
        return _coop_lists.read_class_names(folder / "classnames.txt")


def _draw_imagenet(folder: Path, shots: int, request: ScenarioRequest) -> Drawn:
    """ImageNet's shots and its validation images, which are tested.

    Only the images that are used are read. So the content holds the names and sizes of the training images, which are
    150 GB, and the bytes of the test images.
    """
    import torch

    known = _coop_lists.read_class_names(folder / "classnames.txt")
    root = folder / "images"
    pool = readers.find_images(root / "train")
    wnids = sorted({name.partition("/")[0] for name in pool.names})
    _check_classes(IMAGENET, len(wnids), readers.shown(root / "train"), request)
    label = _named(wnids, known, root / "train")
    held = _trees.class_folders(root / "val")
    if held.keys() != label.keys():
        strange = min(held.keys() ^ label.keys())
        raise DataMissing(f"{readers.shown(root)}: train and val have different classes, e.g. {strange}")
    files = {name: label[wnid] for wnid, names in sorted(held.items()) for name in names}
    builders.check_counts({"train": len(pool), "test": len(files)}, IMAGENET.counts, request)
    names = tuple(known[wnid].replace("_", " ") for wnid in wnids)
    notes = {"layout": "tree", **shared_names(names)}
    test = _samples(_trees.Listing(root=root / "val", parts={"test": files}, class_names=names), request)["test"]
    labels = np.array([label[name.partition("/")[0]] for name in pool.names])
    kept = splits.few_shot(labels, shots, random.Random(request.seed))
    source = _trees.source_of(pool.take(kept), request, upright=False)
    rows = torch.arange(len(kept))
    # Ids are ranks in the whole list, behind those of the test images.
    train = Samples(source, rows, torch.from_numpy(labels[kept]), torch.from_numpy(kept) + len(test))
    content = joined([digest_of(test.source), listed(pool)])
    return Drawn(
        train=train,
        validation=None,
        test=test,
        class_names=names,
        content=content,
        notes=notes,
        folders=tuple(wnids),
    )


def listed(pool: readers.Found) -> str:
    """Hash of the names and sizes of image files, where there are too many to read them all."""
    sizes = np.ascontiguousarray(pool.state[:, 0]).astype("<i8").tobytes()
    return hashlib.sha256(pool.names.blob.tobytes() + pool.names.ends.astype("<i8").tobytes() + sizes).hexdigest()


def _named(wnids: Iterable[str], known: Mapping[str, str], where: Path) -> dict[str, int]:
    """Labels of WordNet ids, all of which have names."""
    label = {wnid: number for number, wnid in enumerate(sorted(wnids))}
    if absent := sorted(label.keys() - known.keys()):
        raise DataMissing(f"{readers.shown(where / absent[0])}: classnames.txt of ImageNet has no such class")
    return label


def _shifted(entry: CoopSet, folder: Path, known: Mapping[str, str], request: ScenarioRequest) -> _trees.Listing:
    """The files of a shifted set: folders of WordNet ids, or of ImageNet's labels as numbers (V2)."""
    root = folder / entry.images
    classes = _trees.class_folders(root)
    _check_classes(entry, len(classes), readers.shown(root), request)
    if entry.key == "imagenetv2":
        _check_classes(entry, len(known), "classnames.txt of ImageNet", request)
        wnid = {str(number): wnid for number, wnid in enumerate(known)}
        if strange := sorted(classes.keys() - wnid.keys()):
            raise DataMissing(f"{readers.shown(root / strange[0])} is no label of ImageNet, 0..{len(wnid) - 1}")
        classes = {wnid[number]: names for number, names in classes.items()}
    label = _named(classes, known, root)
    files = {name: label[wnid] for wnid, names in sorted(classes.items()) for name in names}
    builders.check_counts({"test": len(files)}, entry.counts, request)
    names = tuple(known[wnid].replace("_", " ") for wnid in label)
    return _trees.Listing(root=root, parts={"test": files}, class_names=names, notes={"layout": "tree"})


# --- Tiny copies --------------------------------------------------------------------------------

_TINY = 5  # classes of a miniature, an odd number: halves differ


def miniature(keys: Iterable[str], root: Path) -> None:
    """Data sets of five classes with 17 training, one validation and two test images each.

    Args:
        keys: Which, of `SETS` and `SHIFTS`.
        root: Data root.
    """
    wnids = [f"n{number:08d}" for number in range(_TINY)]
    for key in keys:
        entry = EVERY[key]
        folder = root / entry.dataset.folders[0]
        if entry.dataset.look is not None:
            _tiny_lists(entry, folder)
            continue
        parts = {"train/": 17, "val/": 2} if entry is IMAGENET else {"": 2}
        folders = [str(number) for number in range(_TINY)] if key == "imagenetv2" else wnids
        folders = folders[: 2 if entry.classes == 200 else None]
        names = [f"{part}{one}/{i}.JPEG" for part, count in parts.items() for one in folders for i in range(count)]
        _trees.write(folder / entry.images, names)
        if entry is IMAGENET:
            text = "".join(f"{wnid} class {number}\n" for number, wnid in enumerate(wnids))
            (folder / "classnames.txt").write_text(text)


def _tiny_lists(entry: CoopSet, folder: Path) -> None:
    first, split = 0, {}
    for part, count in zip(_coop_lists.PARTS, (17, 1, 2), strict=True):
        numbers = range(first, first + count * _TINY)
        split[part] = [[f"{number:07d}.jpg", number % _TINY, f"class_{number % _TINY}"] for number in numbers]
        first = numbers.stop
    _trees.write(folder / entry.images, [str(name) for files in split.values() for name, _, _ in files])
    if entry.split:
        (folder / entry.split).write_text(json.dumps(split))
        return
    (folder / "variants.txt").write_text("".join(f"class_{label}\n" for label in range(_TINY)))
    for part, files in split.items():
        lines = [f"{str(name).partition('.')[0]} {variant}\n" for name, _, variant in files]
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))


def writer(*keys: str) -> functools.partial[None]:
    """`miniature` of some data sets (`benchmark.specs.ScenarioSpec.miniature`)."""
    return functools.partial(miniature, keys)


def check_set(option: str, name: str) -> None:
    """Checks the name of a data set of CoOp.

    Raises:
        ValueError: There is none.
    """
    if name not in SETS:
        raise ValueError(f"{option}: {name!r} is none of CoOp's data sets; use {', '.join(SETS)}")
