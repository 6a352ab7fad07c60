"""The three tracks: nano (bundled, seconds), mini (real data at 32-64 px, minutes), paper (ViT-B/16, a GPU)."""

from __future__ import annotations

from benchmark import hookimpl
from benchmark.tracks import Track


@hookimpl
def bench_register_tracks() -> list[Track]:
    """Registers ``nano``, ``mini`` and ``paper``."""
    return [
        Track(
            "nano",
            "nano-vit",
            "bundled images and backbone, seconds to a minute on a laptop, no download",
            "nano-clip",
            {"masked": "nano-mlm", "causal": "nano-lm"},
        ),
        Track(
            "mini",
            "mini-vit",
            "real data at 32-64 px, bundled small ViT, minutes on 2 CPU cores",
            language={"causal": "smollm2-135m"},
        ),
        Track(
            "paper",
            "timm:vit_base_patch16_224.orig_in21k",
            "the published protocol with ViT-B/16 or CLIP, for a GPU",
            "open_clip:ViT-B-16/openai",
            {
                "masked": "hf:FacebookAI/roberta-large",
                "causal": "hf:openai-community/gpt2-medium",
                "encoder-decoder": "hf:google/t5-base-lm-adapt",
            },
        ),
    ]
