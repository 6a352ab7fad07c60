"""doors-ours: how these people choose the options of methods on their noise."""

from __future__ import annotations

from benchmark import ProtocolSpec, hookimpl
from benchmark.config import Range


@hookimpl
def bench_register_protocols() -> list[ProtocolSpec]:
    axes = {"lr": Range(log=True, search=(1e-3, 0.1)), "optimizer": ("sgd", "adam")}
    return [ProtocolSpec(name="doors-ours", summary="four draws", family="noise-il", axes=axes, budget=4)]
