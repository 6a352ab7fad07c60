"""timm: any image model of the library, by its full name, ``timm:NAME.TAG``."""

from __future__ import annotations

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    """Registers ``timm``."""
    return [
        BackboneSpec(
            name="timm",
            tag="MODEL.TAG",
            load=sources.load_timm,
            tokenless=sources.timm_tokenless,
            describe=lambda name: {"source": "timm", "description": "timm image model"},
            summary="any image model of timm, with its full tag",
        )
    ]
