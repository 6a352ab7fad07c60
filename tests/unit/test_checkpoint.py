"""Checkpoints: any tree of plain values and tensors comes back as it was; damage is one message."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.errors import DataMissing, PluginError
from benchmark.run import checkpoint
from benchmark.testing import toys

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.builds(lambda values: torch.tensor(values), st.lists(st.floats(width=32, allow_nan=False), max_size=4)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=6), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=12,
)


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and left == right


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(st.text(max_size=6), trees, max_size=4))
def test_round_trip(tmp_path: Path, tree: dict[str, Any]) -> None:
    checkpoint.save(tmp_path / "c.safetensors", tree)
    assert equal(checkpoint.load(tmp_path / "c.safetensors"), tree)


def test_views_and_shared_memory_are_written_whole(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    checkpoint.save(tmp_path / "c", {"whole": base, "column": base[:, 1], "again": base})
    found = checkpoint.load(tmp_path / "c")
    assert torch.equal(found["column"], base[:, 1])
    assert torch.equal(found["again"], base)


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.model: object cannot be kept"):
        checkpoint.save(tmp_path / "c", {"model": object()})


@pytest.mark.parametrize("size", [0, 5, 60])
def test_a_truncated_file_is_one_message(tmp_path: Path, size: int) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"a": torch.zeros(10)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataMissing, match="is damaged"):
        checkpoint.load(path)


def test_random_state_comes_back(tmp_path: Path) -> None:
    checkpoint.seed_everything(3)
    random.random(), np.random.rand(), torch.rand(1)
    checkpoint.save(tmp_path / "c", checkpoint.random_state())
    expected = (random.random(), np.random.rand(), float(torch.rand(1)))
    checkpoint.set_random_state(checkpoint.load(tmp_path / "c"))
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected


def test_special_floats_survive(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"inf": math.inf, "nan": math.nan})
    found = checkpoint.load(tmp_path / "c")
    assert found["inf"] == math.inf
    assert math.isnan(found["nan"])


class Statistics(toys.ToyMethod):
    """Keeps a mean per class in a buffer that grows, another that is None at first, and a parameter that grows."""

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.register_buffer("means", torch.zeros(0, 3))
        self.register_buffer("spread", None)
        self.scales = torch.nn.Parameter(torch.zeros(0))

    def begin_experience(self, experience: Any) -> None:
        super().begin_experience(experience)
        assert self.optimizer is not None
        fresh = experience.seen - len(self.means)
        self.means = torch.cat([self.means, torch.randn(fresh, 3)])
        self.scales = torch.nn.Parameter(torch.cat([self.scales.detach(), torch.randn(fresh)]))
        self.spread = torch.randn(3) if self.spread is None else self.spread + 1
        self.optimizer.add_param_group({"params": [self.scales]})


def test_buffers_and_parameters_that_grow_come_back(tmp_path: Path) -> None:
    prepared = toys.prepare_toy()
    view = prepared.view(prepared.stream.scenario, 0, prepared.context.manifest)
    method = Statistics(prepared.plan.method_config, prepared.context)
    method.begin_experience(view)
    checkpoint.save(tmp_path / "c", checkpoint.snapshot(method))
    again = Statistics(prepared.plan.method_config, prepared.context)
    checkpoint.restore(again, checkpoint.load(tmp_path / "c"))
    for name in ("means", "spread", "scales"):
        assert torch.equal(getattr(again, name), getattr(method, name)), name
    assert isinstance(again.scales, torch.nn.Parameter)
    grown = again.scales
    checkpoint.restore(again, checkpoint.load(tmp_path / "c"))
    assert again.scales is grown, "what an optimiser holds stays the same object"


class Late(toys.ToyMethod):
    """Registers what it keeps in its first experience."""

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.scales = None

    def begin_experience(self, experience: Any) -> None:
        super().begin_experience(experience)
        self.register_buffer("late", getattr(self, "late", torch.randn(3)))
        self.scales = torch.nn.Parameter(torch.randn(2)) if self.scales is None else self.scales


def test_buffers_and_parameters_that_come_with_an_experience_come_back(tmp_path: Path) -> None:
    prepared = toys.prepare_toy()
    method = Late(prepared.plan.method_config, prepared.context)
    method.begin_experience(prepared.view(prepared.stream.scenario, 0, prepared.context.manifest))
    checkpoint.save(tmp_path / "c", checkpoint.snapshot(method))
    again = Late(prepared.plan.method_config, prepared.context)
    checkpoint.restore(again, checkpoint.load(tmp_path / "c"))
    again.begin_experience(prepared.view(prepared.stream.scenario, 1, prepared.context.manifest))
    assert torch.equal(again.late, method.late)
    assert torch.equal(again.scales, method.scales)
    assert set(dict(again.named_parameters())) == {"head", "scales"}
    assert set(dict(again.named_buffers())) == {"late"}


def test_a_module_that_comes_with_an_experience_is_told_where_to_be_made(tmp_path: Path) -> None:
    prepared = toys.prepare_toy()
    method = toys.ToyMethod(prepared.plan.method_config, prepared.context)
    method.layer = torch.nn.Linear(2, 2)
    checkpoint.save(tmp_path / "c", checkpoint.snapshot(method))
    again = toys.ToyMethod(prepared.plan.method_config, prepared.context)
    with pytest.raises(PluginError, match=r"no module for layer\.weight, layer\.bias; make every module in `__init__`"):
        checkpoint.restore(again, checkpoint.load(tmp_path / "c"))
