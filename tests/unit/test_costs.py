"""What a run costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.api import Batch, Method
from benchmark.run import costs, engine
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import ToyMethod, prepare_toy


class Viewed(nn.Module):
    """Puts a view of a parameter through a module."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 4))
        self.map = nn.Linear(4, 2, bias=False)

    def forward(self) -> Tensor:
        result: Tensor = self.map(self.table[:1])
        return result


def test_views_of_parameters_are_counted_with_and_without_gradients() -> None:
    module = Viewed()
    method = cast("Method", module)
    assert costs.count_flops(method, lambda twin: twin()) == 2 * 4 * 2
    with torch.no_grad():
        assert costs.count_flops(method, lambda twin: twin()) == 2 * 4 * 2
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget the peak of a process")
def test_the_peak_of_memory_is_that_since_the_last_reset() -> None:
    cpu, size = torch.device("cpu"), 300_000_000
    costs.reset_peak_memory(cpu)
    before = costs.peak_memory_bytes(cpu)
    held = np.ones(size, np.uint8)
    with_it = costs.peak_memory_bytes(cpu)
    assert with_it > before + size // 2
    del held
    assert costs.peak_memory_bytes(cpu) > before + size // 2, "a peak stays"
    costs.reset_peak_memory(cpu)
    assert costs.peak_memory_bytes(cpu) < with_it - size // 2


def test_counting_the_cost_of_a_step_leaves_the_batch_as_it_is(tmp_path: Path) -> None:
    """The last experience trained on what the counting had left of its first batch."""

    class ChangesItsBatch(ToyMethod):
        seen: list[float] = []  # noqa: RUF012 - of the class: the engine builds its own instance

        def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
            self.seen.append(float(batch.images.mean()))
            batch.images.mul_(0.5)
            batch.labels.zero_()
            return super().train_step(batch)

    prepared = prepare_toy(build=ChangesItsBatch, experiences=1, settings={"epochs": "1"})
    engine.execute(prepared, tmp_path, hooks=manager([]), quiet=True)
    counted, trained = ChangesItsBatch.seen[:2]
    assert trained == counted
