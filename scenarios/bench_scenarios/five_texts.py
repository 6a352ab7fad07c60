"""Five data sets of texts one after the other, 33 classes: reviews, news, encyclopaedia, questions; no task id.

Source: AG News, Yelp reviews (full), Amazon reviews (full), DBpedia and Yahoo Answers as Zhang, Zhao and LeCun
published them (arXiv 1509.01626), in the folders ``ag_news_csv``, ``yelp_review_full_csv``,
``amazon_review_full_csv``, ``dbpedia_csv`` and ``yahoo_answers_csv`` with ``train.csv`` and ``test.csv``, headerless:
the label from 1, then texts. The stream is that of de Masson d'Autume et al. (arXiv 1906.01076): the first 115,000
training and 7,600 test rows of each set that have 20 characters or more, in lower case, cut at 1,280 characters; Yelp
and Amazon share their five labels. It is class-incremental with a test set per data set: the classes of an experience
may be known from another. A variant is one of the four published orders. Patterns are those of PET for Yelp and AG
News, words those of Progressive Prompts. Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bench_scenarios import _tables
from benchmark import ScenarioSpec, data, hookimpl
from benchmark.config import Range, check_ranges
from benchmark.errors import DataMissing
from benchmark.readers.files import is_file, shown
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, Wording

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORTEST, LONGEST = 20, 1280  # characters


@dataclass(frozen=True, slots=True)
class Set:
    """One of the data sets as it is published.

    Attributes:
        folders: Names of its folder.
        columns: Behind the label.
        classes: Its class names with the word for each.
    """

    folders: tuple[str, ...]
    columns: tuple[str, ...]
    classes: dict[str, str]


_WORDS = ("terrible", "bad", "middle", "good", "wonderful")
_ARTICLES = (
    "Company EducationalInstitution Artist Athlete OfficeHolder MeanOfTransportation Building NaturalPlace Village "
    "Animal Plant Album Film WrittenWork"
)
_STARS = {f"{n} star{'s' * (n > 1)}": word for n, word in enumerate(_WORDS, 1)}
SETS: dict[str, Set] = {
    "yelp": Set(("yelp_review_full_csv", "yelp"), ("content",), _STARS),
    "agnews": Set(
        ("ag_news_csv", "agnews"),
        ("title", "content"),
        {"World": "world", "Sports": "sports", "Business": "business", "Sci/Tech": "science"},
    ),
    "dbpedia": Set(
        ("dbpedia_csv", "dbpedia"),
        ("title", "content"),
        {name: name.lower() for name in _ARTICLES.split()},
    ),
    "amazon": Set(("amazon_review_full_csv", "amazon"), ("title", "content"), _STARS),
    "yahoo": Set(
        ("yahoo_answers_csv", "yahoo"),
        ("title", "content", "answer"),
        {
            "Society & Culture": "society and culture",
            "Science & Mathematics": "science",
            "Health": "health",
            "Education & Reference": "education and reference",
            "Computers & Internet": "computers and internet",
            "Sports (questions)": "sports",
            "Business & Finance": "business",
            "Entertainment & Music": "entertainment and music",
            "Family & Relationships": "family and relationships",
            "Politics & Government": "politics and government",
        },
    ),
}
ORDERS = {
    "1": ("yelp", "agnews", "dbpedia", "amazon", "yahoo"),
    "2": ("dbpedia", "yahoo", "agnews", "amazon", "yelp"),
    "3": ("yelp", "yahoo", "amazon", "dbpedia", "agnews"),
    "4": ("agnews", "yelp", "amazon", "yahoo", "dbpedia"),
}
CLASSES: dict[str, str] = {name: word for one in SETS.values() for name, word in one.classes.items()}
"""The 33 classes in their natural order, with the word for each."""

WORDING = Wording(
    patterns=(
        "it was {mask} . {text}",
        "{text} all in all, it was {mask} .",
        "[ category: {mask} ] {text}",
        "{mask} : {text}",
    ),
    words={name: (word,) for name, word in CLASSES.items()},
    segments=("text",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FiveTextsConfig:
    """Options of ``five-texts``.

    Attributes:
        order: One of the four published orders, ``1`` to ``4``.
        train: Training rows per data set, the first ones.
        test: Test rows per data set, the first ones.
    """

    order: str = "1"
    train: Annotated[int, Range(min=1, max=3_000_000)] = 115_000
    test: Annotated[int, Range(min=1, max=650_000)] = 7_600

    def __post_init__(self) -> None:
        """Checks the order and the counts."""
        check_ranges(self)
        if self.order not in ORDERS:
            raise ValueError(f"order: {self.order!r} is not a published order; use one of {', '.join(ORDERS)}")


def build(config: FiveTextsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the stream; it does not depend on the seed.

    Raises:
        DataMissing: A file is absent, damaged, or has too few rows.
    """
    root = data.data_root(request.data_root)
    order: dict[str, None] = {}
    for name in ORDERS[config.order]:
        order |= dict.fromkeys(SETS[name].classes)
    labels = {name: label for label, name in enumerate(order)}
    natural = list(CLASSES)
    experiences = []
    for name in ORDERS[config.order]:
        known = [labels[one] for one in SETS[name].classes]
        number = list(SETS).index(name)
        train, test = (
            _read(root, name, split, count, known, (2 * number + side) * 10_000_000)
            for side, (split, count) in enumerate((("train", config.train), ("test", config.test)))
        )
        classes = tuple(sorted(set(train.labels.tolist()) | set(test.labels.tolist())))
        experiences.append(Experience(train=train, test=test, classes=classes, domain=name))
    return Scenario.of(
        SPEC,
        config,
        version=1,
        experiences=tuple(experiences),
        class_names=tuple(order),
        class_order=tuple(natural.index(name) for name in order),
        partition="first rows",
        notes={"layout": "csv"},
        wording=WORDING,
    )


def _read(root: Path, name: str, split: str, count: int, labels: Sequence[int], start: int) -> Samples:
    """The first rows of a file that are long enough."""
    import torch

    one = SETS[name]
    path = next(
        (root / folder / f"{split}.csv" for folder in one.folders if is_file(root / folder / f"{split}.csv")), None
    )
    if path is None:
        raise DataMissing(
            f"{shown(root / one.folders[0] / f'{split}.csv')} is not there",
            hint=f"unpack the published {one.folders[0]}.tar.gz there, or name another folder with --data-root",
        )
    texts, found, ids = [], [], []
    for row, (line, cells) in enumerate(_tables.rows(path, "csv", columns=("label", *one.columns))):
        if cells["label"] not in map(str, range(1, len(labels) + 1)):
            raise DataMissing(
                f"{shown(path)}: line {line}: the label is {cells['label']!r}",
                hint=f"labels of {name} are 1 to {len(labels)}",
            )
        text = " ".join(cells[column].strip() for column in one.columns if cells[column].strip()).lower()
        if len(text) >= SHORTEST:
            texts.append({"text": text[:LONGEST]})
            found.append(labels[int(cells["label"]) - 1])
            ids.append(start + row)
        if len(texts) == count:
            break
    if len(texts) < count:
        raise DataMissing(
            f"{shown(path)} has {len(texts):,} rows of {SHORTEST} characters or more instead of {count:,}",
            hint=f"fetch the whole file, or ask for fewer: --set scenario.{split}={len(texts)}",
        )
    return Samples(_tables.Texts(texts), torch.arange(count), torch.tensor(found), torch.tensor(ids))


_TITLES = {
    "yelp": "Yelp reviews (full)",
    "agnews": "AG News",
    "dbpedia": "DBpedia",
    "amazon": "Amazon reviews (full)",
    "yahoo": "Yahoo Answers",
}
DATA: tuple[data.DataSet, ...] = tuple(
    data.DataSet(
        title=_TITLES[name],
        folders=one.folders,
        layouts=("{train,test}.csv without a first row of names",),
        name=name,
        class_names=tuple(one.classes),
        look=functools.partial(_tables.look, folders=one.folders, names=("train.csv", "test.csv")),
    )
    for name, one in SETS.items()
)

SPEC = ScenarioSpec(
    name="five-texts",
    build=build,
    config=FiveTextsConfig,
    summary="Yelp, AG News, DBpedia, Amazon, Yahoo Answers in four published orders; 33 classes, no task id",
    family="class-il",
    tracks={"paper": "", "mini": "", "nano": ""},
    variant="order",
    variants=tuple(ORDERS),
    source="Zhang, Zhao and LeCun (2015), arXiv 1509.01626",
    licence="not stated by the source",
    size_mb=1_300.0,
    data=DATA,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``five-texts``."""
    return [SPEC]
