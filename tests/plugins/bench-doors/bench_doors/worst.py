"""doors-worst: the lowest accuracy that was ever measured on anything seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmark import MetricSpec, hookimpl


def compute(*, accuracy: npt.NDArray[np.float64]) -> float:
    return float(np.nanmin(accuracy[np.tril_indices(len(accuracy))]))


@hookimpl
def bench_register_metrics() -> list[MetricSpec]:
    return [MetricSpec(name="doors-worst", compute=compute, heading="Worst ever (%)", summary="the lowest accuracy")]
