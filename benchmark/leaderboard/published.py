"""Figures from papers and repositories, to read beside one's own results.

``published/figures.csv`` holds one figure a row, as printed in its source (accuracies and forgetting in
percent), with the backbone it was measured with. A figure is only comparable on the same
checkpoint. The keys are those that specs name (`benchmark.specs.MethodSpec.published`).
``published/measured.csv`` holds what our own runs gave, rendered from their records by
``results/publish.py``; its keys are the names of methods. ``published/papers.csv`` holds authors (by surname, as the
headers of methods state them), title and venue by the id of the paper, ``published/names.csv`` what people call a
method. Both are data beside the methods and no part of their modules, whose code is in the identity of runs.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

FIGURES = Path(__file__).parents[1] / "published" / "figures.csv"
CHECKPOINTS = {
    "ViT-B/16 orig_in21k": "timm:vit_base_patch16_224.orig_in21k",
    "ViT-B/16 augreg_in21k": "timm:vit_base_patch16_224.augreg_in21k",
    "ViT-B/16 augreg_in21k_ft_in1k": "timm:vit_base_patch16_224.augreg_in21k_ft_in1k",
    "ViT-B/16 MAE IN1k": "timm:vit_base_patch16_224.mae",
    "CLIP ViT-B/16": "open_clip:ViT-B-16/openai",
    "CLIP ViT-B/32": "open_clip:ViT-B-32/openai",
    "CLIP ViT-L/14": "open_clip:ViT-L-14/openai",
    "CLIP ViT-L/14@336px": "open_clip:ViT-L-14-336/openai",
    "CLIP RN50": "open_clip:RN50/openai",
    "CLIP RN101": "open_clip:RN101/openai",
    "CLIP RN50x4": "open_clip:RN50x4/openai",
    "CLIP RN50x16": "open_clip:RN50x16/openai",
    "CLIP RN50x64": "open_clip:RN50x64/openai",
    "ResNet-18 IN1k": "timm:resnet18.tv_in1k",
    "ResNet-50 IN1k": "timm:resnet50.tv_in1k",
    "ResNet-152 IN1k": "timm:resnet152.tv_in1k",
    "ResNet-50": "timm:resnet50.tv_in1k",
    "ResNet-101": "timm:resnet101.tv_in1k",
    "Swin-B IN21k": "timm:swin_base_patch4_window7_224.ms_in22k",
    "ConvNeXt-B IN21k": "timm:convnext_base.fb_in22k",
}
"""Backbones by the names of `FIGURES`: the checkpoint to try a figure with. Where a source says ImageNet-1k alone it is
torchvision's first one, which its code loads."""
MEASURED = FIGURES.with_name("measured.csv")
PAPERS = FIGURES.with_name("papers.csv")
NAMES = FIGURES.with_name("names.csv")


def figures() -> list[dict[str, str]]:
    """All published figures, in the order of the file: what `rows` returns, with their ``key``."""
    return list(_read(FIGURES))


def rows(key: str) -> list[dict[str, str]]:
    """Published figures of one method, in the order of the file.

    Args:
        key: ``published`` of the method's spec.

    Returns:
        Rows with ``row`` (name in the source), ``scenario``, ``backbone``, ``metric``, ``value`` and
        ``std`` (percent; ``std`` may be empty), ``source`` and ``note``; none for an unknown key.
    """
    return _of(FIGURES, key)


def checkpoint(backbone: str) -> str | None:
    """What ``--backbone`` a figure can be attempted with, or None: its weights are not known, or trained from scratch.

    Args:
        backbone: As `rows` tells it.
    """
    return CHECKPOINTS.get(backbone)


def measured(method: str) -> list[dict[str, str]]:
    """What adaptbench's own runs of one method gave.

    Returns:
        Rows with ``row`` (name in the leaderboard), ``table`` (its title there), ``metric``, ``value`` and ``std``
        (percent, mean and sample standard deviation over seeds) and ``seeds``.
    """
    return _of(MEASURED, method)


def paper(identifier: str) -> dict[str, str]:
    """What is known of a paper.

    Args:
        identifier: As in `benchmark.specs.MethodSpec.paper`, e.g. ``arXiv:2112.08654``.

    Returns:
        ``author``, ``title``, ``venue`` (may be empty) and ``year``; nothing for a paper that is not listed.
    """
    found = [row for row in _read(PAPERS) if row["paper"] == identifier]
    return {name: value for name, value in found[0].items() if name != "paper"} if found else {}


def names() -> dict[str, str]:
    """What people call the methods that we know by name, e.g. ``{"l2p": "L2P"}``."""
    return {row["method"]: row["display"] for row in _read(NAMES)}


def _of(file: Path, key: str) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "key"} for row in _read(file) if row["key"] == key]


@cache
def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
