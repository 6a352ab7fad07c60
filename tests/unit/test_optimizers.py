"""Optimisers and schedules against numbers recorded from KMnP/vpt 4410440 (``src/solver``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.optimizers import DecayLastAdamW, protocol_optimizer, warmup_cosine
from benchmark.testing.closed_form import fill

GOLDEN = Path(__file__).parents[1] / "golden" / "protocol"


def arrays_of(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return json.loads((GOLDEN / f"{name}.json").read_text())["config"], {key: arrays[key] for key in arrays.files}


@pytest.mark.parametrize("name", ["vpt.warmup10_epochs100", "vpt.warmup5_epochs30"])
def test_the_learning_rate_of_every_epoch_is_that_of_the_official_code(name: str) -> None:
    config, arrays = arrays_of("schedules")
    raw = config[name]
    mine = [
        raw["base_lr"] * warmup_cosine(epoch, warmup=raw["warmup"], epochs=raw["epochs"])
        for epoch in range(raw["epochs"])
    ]
    assert mine[0] == 0.0
    np.testing.assert_allclose(mine, arrays[name], rtol=0, atol=1e-12)


def test_the_published_factors_of_the_schedule() -> None:
    wanted = {0: 0.0, 1: 0.1, 9: 0.9, 10: 1.0, 55: 0.5, 99: 0.000304586}
    for epoch, factor in wanted.items():
        assert warmup_cosine(epoch, warmup=10, epochs=100) == pytest.approx(factor, abs=1e-9)
    assert [warmup_cosine(epoch, warmup=0, epochs=1) for epoch in range(1)] == [1.0]
    assert [warmup_cosine(epoch, warmup=4, epochs=2) for epoch in range(2)] == [0.0, 0.25]  # never ends


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["adamw", "adamw_wd0_is_sgd", "sgd", "sgd_bias_multiplier"])
def test_three_steps_equal_the_official_optimizers(name: str, dtype: torch.dtype) -> None:
    config, arrays = arrays_of("vpt_optimizers")
    raw = config[name]
    start = {key.removeprefix("method."): value for key, value in arrays.items() if key.startswith("method.")}
    named = {key: nn.Parameter(torch.from_numpy(value).to(dtype)) for key, value in start.items()}
    optimizer = protocol_optimizer(
        named.items(),
        kind=raw["OPTIMIZER"],
        lr=raw["BASE_LR"],
        weight_decay=raw["WEIGHT_DECAY"],
        bias_multiplier=raw["BIAS_MULTIPLIER"],
        quirks=True,
    )
    for step in range(3):
        for key, parameter in named.items():
            parameter.grad = torch.from_numpy(arrays[f"input.grad{step}.{key}"]).to(dtype)
        optimizer.step()
        for key, parameter in named.items():
            wanted = arrays[f"f64.{name}.step{step + 1}.{key}"]
            error = np.abs(parameter.detach().numpy() - wanted).max() / max(1.0, np.abs(wanted).max())
            assert error < (1e-12 if dtype == torch.float64 else 1e-6), f"{key} after step {step + 1}: {error:.1e}"


def test_the_published_steps_of_the_adamw_variant() -> None:
    wanted = [
        [-0.7481100, 0.4751410, -0.2777795, 0.9453298],
        [-0.7449718, 0.4763646, -0.2802460, 0.9404655],
        [-0.7402703, 0.4734741, -0.2817533, 0.9410943],
    ]
    mine, torchs = nn.Parameter(fill("adamw", (4,)).float()), nn.Parameter(fill("adamw", (4,)).float())
    optimizer = DecayLastAdamW([mine], lr=0.01, weight_decay=0.01)
    other = torch.optim.AdamW([torchs], lr=0.01, weight_decay=0.01)
    for step, values in enumerate(wanted):
        mine.grad = fill(f"adamw_grad{step}", (4,), scale=1e-4).float()
        torchs.grad = mine.grad.clone()
        optimizer.step()
        other.step()
        torch.testing.assert_close(mine.detach(), torch.tensor(values), rtol=0, atol=1e-6)
    # The published values of torch's own, to show that the difference is seen.
    torch.testing.assert_close(
        torchs.detach(), torch.tensor([-0.7351713, 0.4685211, -0.2788328, 0.9367452]), rtol=0, atol=1e-6
    )


def decays(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in named.items()}
    return {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


def test_what_decays() -> None:
    shapes = {"backbone.norm.weight": (4,), "backbone.norm.bias": (4,), "prompt": (1, 2, 4)}
    named = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    named |= {"head.weight": nn.Parameter(torch.zeros(3, 4)), "head.bias": nn.Parameter(torch.zeros(3))}
    named["frozen"] = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def made(kind: Any, decay: float, quirks: bool) -> torch.optim.Optimizer:
        return protocol_optimizer(
            named.items(), kind=kind, lr=1.0, weight_decay=decay, last_bias="head.bias", quirks=quirks
        )

    everything = {"backbone.norm.weight", "backbone.norm.bias", "prompt", "head.weight", "head.bias"}
    assert decays(made("sgd", 0.5, False), named) == {name: 0.5 * (name != "head.bias") for name in everything}
    plain = decays(made("adamw", 0.5, False), named)
    assert plain == {name: 0.5 * (name in ("prompt", "head.weight")) for name in everything}
    official = decays(made("adamw", 0.5, True), named)
    assert official == {name: 0.01 * ("bias" not in name) for name in everything}
    fallen, kept = made("adamw", 0.0, True), made("adamw", 0.0, False)
    assert isinstance(fallen, torch.optim.SGD)
    assert fallen.param_groups[0]["momentum"] == 0.9
    assert isinstance(kept, DecayLastAdamW)
    assert set(decays(fallen, named).values()) == set(decays(kept, named).values()) == {0.0}


def test_rates_by_name_and_a_closure() -> None:
    weight, head = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = protocol_optimizer(
        {"backbone.w": weight, "head.weight": head}.items(),
        kind="adamw",
        lr=0.1,
        weight_decay=0.0,
        rate=lambda name: 0.01 if name.startswith("backbone.") else 1.0,
    )
    assert [group["base_lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.1])

    def closure() -> float:
        optimizer.zero_grad()
        loss = (weight + head).pow(2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert first == 16.0
    assert second is not None
    assert second < first
    copy = DecayLastAdamW([{"params": [nn.Parameter(weight.detach().clone())]}, {"params": [nn.Parameter(head.data)]}])
    copy.load_state_dict(optimizer.state_dict())
    assert copy.param_groups[0]["lr"] == pytest.approx(0.001)
    assert all(state["step"] == 2 for state in copy.state.values())
