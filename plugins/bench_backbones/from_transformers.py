"""transformers: any masked, causal or encoder-decoder language model, ``hf:NAME`` of the hub or ``hf:PATH``."""

from __future__ import annotations

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    """Registers ``hf``."""
    return [
        BackboneSpec(
            name="hf",
            tag="NAME",
            load=sources.load_hugging_face,
            describe=lambda name: {"source": "transformers", "description": "language model of transformers"},
            summary="any language model of transformers: of the hub, a folder, or a GGUF file",
            reads="text",
        )
    ]
