"""open_clip: any dual encoder of the library, by model and weights, ``open_clip:MODEL/TAG``."""

from __future__ import annotations

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    """Registers ``open_clip``."""
    return [
        BackboneSpec(
            name="open_clip",
            tag="MODEL/TAG",
            load=sources.load_open_clip,
            tokenless=sources.open_clip_tokenless,
            describe=lambda name: {"source": "open_clip", "description": "open_clip dual encoder"},
            summary="any dual encoder of open_clip, with its tag",
        )
    ]
