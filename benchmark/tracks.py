"""Tracks: three sizes of the same code path. A number is only compared inside one track."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Track:
    """One track.

    Attributes:
        name: ``nano``, ``mini`` or ``paper``.
        backbone: Used when ``--backbone`` is not given.
        summary: One line.
        dual: The same for methods that need a text tower; "" where there is none of that size.
    """

    name: str
    backbone: str
    summary: str
    dual: str = ""


TRACKS: dict[str, Track] = {
    "nano": Track(
        "nano", "nano-vit", "bundled images and backbone, seconds to a minute on a laptop, no download", "nano-clip"
    ),
    "mini": Track("mini", "mini-vit", "real data at 32-64 px, bundled small ViT, minutes on 2 CPU cores"),
    "paper": Track(
        "paper",
        "timm:vit_base_patch16_224.orig_in21k",
        "the published protocol with ViT-B/16 or CLIP, for a GPU",
        "open_clip:ViT-B-16/openai",
    ),
}
