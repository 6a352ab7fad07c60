"""What a run costs."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from benchmark import costs
from benchmark.api import Method


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
