"""Descriptive statistics of data sets: what is committed for each, and what is here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmark.samples import Samples

BLOCK = 512  # samples read at once
SAME_CONTENT = ("layout", "split")  # notes of copies that hold the same samples


def describe(parts: Mapping[str, Samples], class_names: Sequence[str], notes: Mapping[str, str]) -> dict[str, Any]:
    """Counts, classes, sizes, duplicates and a hash of each part of a data set.

    Args:
        parts: Training and test samples, domains, ... by name, with labels of the data set.
        class_names: In label order.
        notes: Facts of the copy that was read, as `benchmark.data.DataSet.contents` returns them.

    Returns:
        Plain values, the same whatever order the samples are in: ``classes``, ``copy`` (what is special about it) and
        ``parts``; of each part ``samples``,
        ``per_class`` (the smallest and the largest number), ``absent`` classes, ``sizes`` (of images, with how many),
        ``duplicates`` (samples that show what an earlier one shows), ``shared`` (samples that are in an earlier part
        too), and ``sha256`` over what all samples show, with their labels.
    """
    earlier: set[bytes] = set()
    told: dict[str, Any] = {}
    for name, samples in parts.items():
        shown, sizes = _shown(samples)
        labels = samples.labels.numpy()
        counts = np.bincount(labels, minlength=len(class_names)) if len(labels) else np.zeros(len(class_names), int)
        distinct = set(shown)
        pairs = sorted(digest + int(label).to_bytes(8, "little") for digest, label in zip(shown, labels, strict=True))
        told[name] = {
            "samples": len(shown),
            "per_class": [int(counts.min()), int(counts.max())],
            "absent": [class_names[int(label)] for label in np.flatnonzero(counts == 0)],
            "sizes": {size: number for size, number in sorted(sizes.items())},
            "duplicates": len(shown) - len(distinct),
            "shared": len(distinct & earlier),
            "sha256": hashlib.sha256(b"".join(pairs)).hexdigest(),
        }
        earlier |= distinct
    copy = {name: text for name, text in sorted(notes.items()) if name not in SAME_CONTENT}
    return {"classes": len(class_names), "copy": copy, "parts": told}


def _shown(samples: Samples) -> tuple[list[bytes], Counter[str]]:
    """A hash of what each sample shows, and how many there are of each size."""
    import torch

    found: list[bytes] = []
    sizes: Counter[str] = Counter()
    for start in range(0, len(samples), BLOCK):
        block = samples.read(slice(start, start + BLOCK))
        if isinstance(block, torch.Tensor):
            sizes[f"{block.shape[3]}x{block.shape[2]}"] += len(block)
            found += [hashlib.sha256(image.numpy().tobytes()).digest()[:16] for image in block]
        else:
            sizes["text"] += len(block)
            found += [hashlib.sha256(json.dumps(dict(text), sort_keys=True).encode()).digest()[:16] for text in block]
    return found, sizes


def read(path: Path) -> dict[str, Any] | None:
    """Committed statistics, or None where there are none."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def differences(committed: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What is otherwise here than in committed statistics, one line each, both values in it.

    Another copy (a subset, resized, re-encoded: ``copy``) has other figures: of it nothing but the classes is compared.
    """
    told = []
    if committed["classes"] != here["classes"]:
        told.append(f"{here['classes']} classes instead of {committed['classes']}")
    if committed["copy"] != here["copy"]:
        return told
    keys = ("samples", "per_class", "absent", "sizes", "duplicates", "shared", "sha256")
    for part in {**committed["parts"], **here["parts"]}:
        one, other = (facts["parts"].get(part) for facts in (committed, here))
        if one is None or other is None:
            told.append(f"{part}: {'not in the committed statistics' if one is None else 'not there'}")
            continue
        told += [f"{part}: {key} {other[key]} instead of {one[key]}" for key in keys if one[key] != other[key]]
    return told
