"""The eleven data sets of CoOp and four shifted copies of ImageNet: where they are, what they hold.

Source: KaiyangZhou/CoOp at ff61507c, ``DATASETS.md``, ``datasets/*.py``, templates of ``trainers/zsclip.py``; Zhou et
al., "Learning to Prompt for Vision-Language Models", IJCV 2022 (arXiv 2109.01134). Layout: that of ``DATASETS.md``
below ``coop/`` or right below the data root, images in the folders of their archives. No checksum is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench_scenarios import _coop_lists
from benchmark import data, readers
from benchmark.data import DataSet, Form

SOURCE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
PHOTO = "a photo of a {}."
SIZE_MB = 193_000.0  # about: ImageNet 144 GB, SUN397 37 GB
SHIFTS_MB = 156_000.0  # about, with ImageNet


@dataclass(frozen=True, kw_only=True, slots=True)
class CoopSet:
    """One data set.

    Attributes:
        key: Its name in CoOp's ``configs/datasets``.
        dataset: Where it is looked for.
        classes: Number of classes.
        counts: Images of ``train``, ``val`` and ``test``.
        template: Prompt of CLIP without training.
        images: Folder of the images, below that of the data set.
        split: File of the lists, or empty.
        renamed: Names of classes for those of their folders (``NEW_CNAMES``), should a split file have the latter.
    """

    key: str
    dataset: DataSet
    classes: int
    counts: Mapping[str, int]
    template: str
    images: str
    split: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)


def _set(
    key: str,
    title: str,
    folder: str,
    images: str,
    split: str,
    classes: int,
    counts: tuple[int, int, int],
    template: str,
    licence: str,
    source: str,
    renamed: Mapping[str, str] | None = None,
) -> CoopSet:
    split = split and f"split_zhou_{split}.json"
    listed = split or "variants.txt, images_variant_{train,val,test}.txt"
    dataset = DataSet(
        name=f"coop-{key}",
        title=f"{title} with CoOp's lists",
        folders=(f"coop/{folder}", folder),
        layouts=(f"{images or 'cars_{train,test}'}/ as in its archive, and {listed}",),
        licence=licence,
        source=f"{source}; lists: {SOURCE}",
        look=lambda root: look(SETS[key], root),
    )
    numbers = dict(zip(_coop_lists.PARTS, counts, strict=True))
    return CoopSet(
        key=key,
        dataset=dataset,
        classes=classes,
        counts=numbers,
        template=template,
        images=images,
        split=split,
        renamed=renamed or {},
    )


def _tree(
    key: str, title: str, folder: str, images: str, classes: int, counts: Mapping[str, int], licence: str, source: str
) -> CoopSet:
    layout = "classnames.txt and images/{train,val}/<wnid>/*" if "train" in counts else f"{images}/<wnid or label>/*"
    dataset = DataSet(
        name=f"coop-{key}",
        title=title,
        folders=(f"coop/{folder}", folder),
        layouts=(layout,),
        licence=licence,
        source=source,
    )
    return CoopSet(key=key, dataset=dataset, classes=classes, counts=counts, template=PHOTO, images=images)


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_NONE = "none stated at the source"
_EUROSAT = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}
_CALTECH = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}

IMAGENET = _tree(
    "imagenet",
    "ImageNet with CoOp's class names",
    "imagenet",
    "images",
    1_000,
    {"train": 1_281_167, "test": 50_000},
    "ImageNet terms",
    f"https://image-net.org; classnames.txt: {SOURCE}",
)
LISTED = (
    _set(
        "caltech101",
        "Caltech101",
        "caltech-101",
        "101_ObjectCategories",
        "Caltech101",
        100,
        (4_128, 1_649, 2_465),
        PHOTO,
        "CC BY 4.0",
        "http://www.vision.caltech.edu/Image_Datasets/Caltech101",
        _CALTECH,
    ),
    _set(
        "oxford_pets",
        "Oxford-IIIT Pets",
        "oxford_pets",
        "images",
        "OxfordPets",
        37,
        (2_944, 736, 3_669),
        "a photo of a {}, a type of pet.",
        "CC BY-SA 4.0",
        f"{_VGG}/pets",
    ),
    _set(
        "stanford_cars",
        "Stanford Cars",
        "stanford_cars",
        "",
        "StanfordCars",
        196,
        (6_509, 1_635, 8_041),
        PHOTO,
        "for research; images of the web",
        "https://github.com/pytorch/vision/issues/7545 (copies)",
    ),
    _set(
        "oxford_flowers",
        "Oxford Flowers 102",
        "oxford_flowers",
        "jpg",
        "OxfordFlowers",
        102,
        (4_093, 1_633, 2_463),
        "a photo of a {}, a type of flower.",
        _NONE,
        f"{_VGG}/flowers/102",
    ),
    _set(
        "food101",
        "Food-101",
        "food-101",
        "images",
        "Food101",
        101,
        (50_500, 20_200, 30_300),
        "a photo of {}, a type of food.",
        _NONE,
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    ),
    _set(
        "fgvc_aircraft",
        "FGVC-Aircraft",
        "fgvc_aircraft",
        "images",
        "",
        100,
        (3_334, 3_333, 3_333),
        "a photo of a {}, a type of aircraft.",
        "for non-commercial research",
        f"{_VGG}/fgvc-aircraft (its folder data)",
    ),
    _set(
        "sun397",
        "SUN397",
        "sun397",
        "SUN397",
        "SUN397",
        397,
        (15_880, 3_970, 19_850),
        PHOTO,
        _NONE,
        "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
    ),
    _set(
        "dtd",
        "Describable Textures",
        "dtd",
        "images",
        "DescribableTextures",
        47,
        (2_820, 1_128, 1_692),
        "{} texture.",
        "for research",
        f"{_VGG}/dtd",
    ),
    _set(
        "eurosat",
        "EuroSAT",
        "eurosat",
        "2750",
        "EuroSAT",
        10,
        (13_500, 5_400, 8_100),
        "a centered satellite photo of {}.",
        "MIT",
        "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
        _EUROSAT,
    ),
    _set(
        "ucf101",
        "UCF101, middle frames",
        "ucf101",
        "UCF-101-midframes",
        "UCF101",
        101,
        (7_639, 1_898, 3_783),
        "a photo of a person doing {}.",
        _NONE,
        "middle frames: UCF-101-midframes.zip, linked in CoOp's DATASETS.md",
    ),
)
SHIFTED = tuple(
    _tree(key, title, folder, images, classes, {"test": count}, "MIT (repository)", source)
    for key, title, folder, images, classes, count, source in (
        (
            "imagenetv2",
            "ImageNet-V2, matched frequency",
            "imagenetv2",
            "imagenetv2-matched-frequency-format-val",
            1_000,
            10_000,
            "https://github.com/modestyachts/ImageNetV2",
        ),
        (
            "imagenet_sketch",
            "ImageNet-Sketch",
            "imagenet-sketch",
            "images",
            1_000,
            50_889,
            "https://github.com/HaohanWang/ImageNet-Sketch",
        ),
        (
            "imagenet_a",
            "ImageNet-A, whole",
            "imagenet-adversarial",
            "imagenet-a",
            200,
            7_500,
            "https://github.com/hendrycks/natural-adv-examples",
        ),
        (
            "imagenet_r",
            "ImageNet-R, whole",
            "imagenet-rendition",
            "imagenet-r",
            200,
            30_000,
            "https://github.com/hendrycks/imagenet-r",
        ),
    )
)
SETS = {one.key: one for one in (IMAGENET, *LISTED)}
"""CoOp's eleven, in the order of its tables."""
SHIFTS = {one.key: one for one in SHIFTED}
"""ImageNet's classes, other images; tested only."""
EVERY = {**SETS, **SHIFTS}


def lists(entry: CoopSet, folder: Path) -> _coop_lists.Lists:
    """The lists of a data set of `LISTED`. See `bench_scenarios._coop_lists` for what it raises."""
    return _coop_lists.read_split(folder / entry.split) if entry.split else _coop_lists.read_variants(folder)


def look(entry: CoopSet, root: Path) -> Form | None:
    """`benchmark.data.DataSet.look` of a data set of `LISTED`: all images of its lists are there."""
    folder = data.find(entry.dataset.folders, root)
    if folder is None:
        return None
    found = lists(entry, folder)
    images = readers.listed(folder / entry.images, (name for part in found.parts.values() for name in part))
    return Form(name="lists", files=(*found.files, *(images.path(row) for row in range(len(images)))))
