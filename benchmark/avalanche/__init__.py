"""Avalanche at the edge: our streams as its benchmarks, its strategies as our methods. The core never imports this."""

from __future__ import annotations

from benchmark.avalanche.streams import import_quietly, to_benchmark, to_dataset

__all__ = ["import_quietly", "to_benchmark", "to_dataset"]
