"""Class orders, splits into experiences, hold-out sets.

Rules and test vectors are those of the scenario specification (sections 0.1, 0.3 and 0.4). Every
random choice comes from a generator made here and thrown away: the global states of ``random``,
numpy and torch are neither read nor changed. torch is imported inside the functions that need it,
because configurations are checked (`class_order`, `sizes`) before anything heavy is loaded.

Class orders follow convention A ("list of classes"): position p of the order holds the original
class whose new label is p. Mammoth's orders are lookup tables, the inverse: pass their ``argsort``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmark.samples import ImageSet
from benchmark.scenario import Experience

ORDER_RULES = "natural, numpy:SEED, python:SEED, seed (follows the run) or a list such as 3,0,2,1"
SPLIT_RULES = "TxK (T experiences of K classes), bINIT-incK (INIT classes, then K each) or sizes such as 20,20,10"

_NUMPY_SEEDS = 2**32


def class_order(rule: str, num_classes: int, *, seed: int = 0) -> tuple[int, ...]:
    """Builds a permutation of the classes.

    Args:
        rule: ``natural``; ``numpy:S``, which is ``RandomState(S).permutation(C)`` (LAMDA-PILOT,
            PyCIL); ``python:S``, which is ``random.Random(S).shuffle`` (CODA-Prompt); ``seed``,
            which is ``numpy:`` with the run's class-order seed; or the C labels, comma-separated.
        num_classes: C.
        seed: Used by the rule ``seed`` only.

    Returns:
        C original labels; the one at position p becomes label p.

    Raises:
        ValueError: The rule is unknown, or the list is not a permutation of 0..C-1.
    """
    if rule == "natural":
        return tuple(range(num_classes))
    if rule == "seed":
        rule = f"numpy:{seed}"
    generator, colon, text = rule.partition(":")
    if colon and generator in ("numpy", "python"):
        if not re.fullmatch(r"\d+", text) or int(text) >= _NUMPY_SEEDS:
            raise ValueError(f"{rule!r} has no seed in 0..2^32-1; use {ORDER_RULES}")
        if generator == "numpy":
            # The legacy generator: its stream is frozen, default_rng's is not.
            return tuple(int(label) for label in np.random.RandomState(int(text)).permutation(num_classes))
        order = list(range(num_classes))
        random.Random(int(text)).shuffle(order)
        return tuple(order)
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", rule):
        raise ValueError(f"{rule!r} is not a class order; use {ORDER_RULES}")
    listed = tuple(int(label) for label in rule.split(","))
    if sorted(listed) != list(range(num_classes)):
        raise ValueError(
            f"{_short(rule)} lists {len(set(listed))} different labels up to {max(listed)}; "
            f"use each of 0..{num_classes - 1} exactly once"
        )
    return listed


def sizes(split: str, num_classes: int) -> tuple[int, ...]:
    """Number of new classes of each experience.

    Args:
        split: ``10x10`` (experiences x classes); ``b50-inc10`` (first experience, then increments;
            the last one takes what is left; ``b0`` means "as the increment"); or ``20,20,10``.
        num_classes: C.

    Raises:
        ValueError: Not one of these forms, or the sizes do not add up to C.
    """
    equal = re.fullmatch(r"(\d+)x(\d+)", split)
    grown = re.fullmatch(r"b(\d+)-inc(\d+)", split)
    if equal:
        count, each = int(equal[1]), int(equal[2])
        # Checked before the tuple is made: a slip such as 999999999x1 must not fill the memory.
        if count * each != num_classes:
            raise ValueError(f"{split!r} makes {count * each} classes, but there are {num_classes}; use {SPLIT_RULES}")
        result = (each,) * count
    elif grown:
        first, each = int(grown[1]), int(grown[2])
        if each < 1 or first > num_classes or each > num_classes:
            raise ValueError(f"{split!r} does not fit {num_classes} classes; use 1..{num_classes} per increment")
        left = num_classes - (first or each)
        result = (first or each, *([each] * (left // each)), *([left % each] if left % each else []))
    elif re.fullmatch(r"\d+(,\d+)*", split):
        result = tuple(int(size) for size in split.split(","))
        if 0 in result:
            raise ValueError(f"{_short(split)!r} has an experience without classes; use sizes of 1 or more")
    else:
        raise ValueError(f"{split!r} is not a split; use {SPLIT_RULES}")
    if sum(result) != num_classes:
        raise ValueError(f"{_short(split)!r} adds up to {sum(result)} classes, but there are {num_classes}")
    return result


def class_incremental(
    train: ImageSet, test: ImageSet, order: Sequence[int], split: Sequence[int]
) -> tuple[Experience, ...]:
    """Cuts a data set into experiences of new classes, labels remapped by the class order.

    Args:
        train: All training images with their *original* labels.
        test: All test images with their original labels.
        order: Result of `class_order`.
        split: Result of `sizes`.

    Returns:
        One experience per entry of ``split``; within a set, samples keep their order.
    """
    import torch

    renamed = torch.empty(len(order), dtype=torch.int64)
    renamed[torch.tensor(order)] = torch.arange(len(order))
    ends = np.cumsum(split).tolist()

    def cut(images: ImageSet) -> list[ImageSet]:
        labels = renamed[images.labels]
        whole = ImageSet(images.source, images.rows, labels, images.ids, references=images.references)
        parts = []
        for size, end in zip(split, ends, strict=True):
            inside = (labels >= end - size) & (labels < end)
            parts.append(whole.subset(inside.nonzero().flatten()))
        return parts

    return tuple(
        Experience(train=one, test=other, classes=tuple(range(end - size, end)))
        for one, other, size, end in zip(cut(train), cut(test), split, ends, strict=True)
    )


def holdout(labels: npt.ArrayLike, fraction: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Takes a share of each class out of a training set, for validation.

    One generator, ``RandomState(seed + 1)``, permutes each class in label order; the first
    ``ceil((1 - fraction) * n)`` of each stay in training.

    Args:
        labels: ``(N,)`` integers, samples in their canonical order.
        fraction: Share that is held out, in (0, 1).
        seed: Seed of the split.

    Returns:
        Positions that stay and positions that are held out, both ascending.

    Raises:
        ValueError: The fraction is not in (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: {fraction} is out of range; use more than 0 and less than 1")
    given = np.asarray(labels)
    generator = np.random.RandomState(seed + 1)
    stay, out = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for label in np.unique(given):
        positions = np.flatnonzero(given == label)
        shuffled = positions[generator.permutation(len(positions))]
        # The small term keeps 0.1 * 30 = 3.0000000000000004 and 0.29 * 100 = 28.999999999999996 honest.
        cut = len(positions) - int(np.floor(fraction * len(positions) + 1e-9))
        stay.append(shuffled[:cut])
        out.append(shuffled[cut:])
    return np.sort(np.concatenate(stay)), np.sort(np.concatenate(out))


def train_test(
    labels: npt.ArrayLike, share: float = 0.8, seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cuts a data set without an official test split.

    One generator, ``RandomState(seed)``, permutes each class in label order; the first ``ceil(share * n)``
    of each go to training.

    Args:
        labels: ``(N,)`` integers, samples of one domain sorted by their relative paths within each class.
        share: Share of the training set, in (0, 1).
        seed: Seed of the split.

    Returns:
        Positions of training and test samples, both ascending.

    Raises:
        ValueError: The share is not in (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"share: {share} is out of range; use more than 0 and less than 1")
    given = np.asarray(labels)
    generator = np.random.RandomState(seed)
    train, test = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for label in np.unique(given):
        positions = np.flatnonzero(given == label)
        shuffled = positions[generator.permutation(len(positions))]
        # The small term keeps 0.8 * 5 = 4.000000000000001 honest.
        cut = int(np.ceil(share * len(positions) - 1e-9))
        train.append(shuffled[:cut])
        test.append(shuffled[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def few_shot(labels: npt.ArrayLike, shots: int, generator: random.Random) -> npt.NDArray[np.int64]:
    """Draws the same number of samples of every class, as CoOp and its successors do.

    Classes are taken in the order in which they first appear; each is sampled without repetition by
    ``generator.sample`` (all of a class with fewer). The same call for the validation list continues the same
    generator: ``random.Random(seed)``, train first, then validation with ``min(shots, 4)``.

    Args:
        labels: ``(N,)`` integers, samples in their canonical order.
        shots: Samples per class.
        generator: Seeded with the run's seed.

    Returns:
        Positions, class after class in the order drawn.
    """
    groups: dict[int, list[int]] = {}
    for position, label in enumerate(np.asarray(labels).tolist()):
        groups.setdefault(label, []).append(position)
    drawn = [
        position
        for items in groups.values()
        for position in (generator.sample(items, shots) if len(items) >= shots else items)
    ]
    return np.array(drawn, np.int64)


def first_per_class(labels: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """The first samples of every class, for budgets smaller than the data set.

    Args:
        labels: ``(N,)`` integers, samples in their canonical order.
        count: Samples per class; a class with fewer keeps all.

    Returns:
        Positions, ascending.
    """
    given = np.asarray(labels)
    parts = [np.flatnonzero(given == label)[:count] for label in np.unique(given)]
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
