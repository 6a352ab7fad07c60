"""The input presets of `benchmark.inputs.presets`."""

from __future__ import annotations

from benchmark import hookimpl
from benchmark.inputs.presets import PRESETS, InputPreset


@hookimpl
def bench_register_presets() -> list[InputPreset]:
    """Registers all of them."""
    return list(PRESETS.values())
