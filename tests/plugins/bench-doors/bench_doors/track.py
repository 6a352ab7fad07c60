"""doors: the track of the very small ViT."""

from __future__ import annotations

from benchmark import Track, hookimpl


@hookimpl
def bench_register_tracks() -> list[Track]:
    return [Track(name="doors", backbone="doors-vit", summary="random features, a second")]
