"""doors-mirror: images are mirrored in training, and nothing else."""

from __future__ import annotations

from benchmark import hookimpl
from benchmark.inputs.presets import InputPreset


@hookimpl
def bench_register_presets() -> list[InputPreset]:
    return [InputPreset(name="doors-mirror", train="none", flip=True, source="bench-doors")]
