"""The pretended GPU is as strict as a real one, counts what goes to and fro, and computes what the CPU computes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark.errors import RunFailed
from benchmark.families import FAMILIES
from benchmark.guard import Guard
from benchmark.run import losses
from benchmark.testing import checks, device_checks, pretended_device
from benchmark.testing.toys import TOY_METHOD

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(pretended_device.missing() is not None, reason=str(pretended_device.missing())),
]


def ones(*size: int) -> Tensor:
    return torch.ones(*size, device="gpu")


@pytest.mark.parametrize(
    "work",
    [
        lambda: ones(2) + torch.ones(2),
        lambda: ones(2, 2) @ torch.ones(2, 2),
        lambda: torch.cat([ones(2), torch.ones(2)]),
        lambda: torch.zeros(()).add_(ones(())),
        lambda: torch.ones(3)[torch.tensor([0], device="gpu")],
        lambda: F.cross_entropy(ones(2, 3), torch.zeros(2, dtype=torch.int64)),
        lambda: F.linear(ones(2, 3), torch.ones(4, 3)),
        lambda: torch.mm(ones(2, 2), ones(2, 2), out=torch.empty(2, 2)),
        lambda: torch.randn(3, device="gpu", generator=torch.Generator()),
        lambda: ones(3).to("cpu", non_blocking=True),
        lambda: setattr(ones(2), "data", torch.zeros(2)),
    ],
)
def test_host_and_device_are_not_mixed(work: Callable[[], object]) -> None:
    with pretended_device.present(), pytest.raises(pretended_device.MixedDevices):
        work()


@pytest.mark.parametrize(
    "work",
    [
        lambda: ones(2) * torch.tensor(3.0),
        lambda: torch.where(ones(2) > 0, torch.tensor(3.0), torch.tensor(0.0)),
        lambda: ones(2).masked_fill(ones(2) > 0, torch.tensor(3.0)),
        lambda: ones(2).mul_(3.0),
    ],
)
def test_single_numbers_of_the_host_are_fine_beside_elementwise_work(work: Callable[[], Tensor]) -> None:
    with pretended_device.present() as traffic:
        found = work()
        assert traffic.copies == 0
        assert str(found.device) == "gpu:0"
        assert found.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("work", "to_device", "to_host", "waits"),
    [
        (lambda: torch.tensor([1.0, 2.0], device="gpu"), 1, 0, 1),
        (lambda: torch.ones(2).to("gpu"), 1, 0, 1),
        (lambda: torch.ones(2).to("gpu", non_blocking=True), 1, 0, 0),
        (lambda: ones(2).copy_(torch.ones(2)), 1, 0, 1),
        (lambda: ones(2).cpu(), 0, 1, 1),
        (lambda: ones(()).item(), 0, 1, 1),
        (lambda: bool(ones(()) > 0), 0, 1, 1),
        (lambda: f"{ones(()):.2f}", 0, 1, 1),
        (lambda: ones(2).tolist(), 0, 1, 1),
        (lambda: torch.equal(ones(2), ones(2)), 0, 1, 1),
        (lambda: ones(3)[ones(3) > 0], 0, 1, 1),
        (lambda: ones(3).nonzero(), 0, 1, 1),
        (lambda: torch.arange(3, device="gpu").bincount(minlength=3), 0, 1, 1),
        (lambda: ones(3)[torch.tensor([0, 1])], 1, 0, 1),
        (lambda: ones(3)[[0, 1]], 1, 0, 1),
        (lambda: ones(3)[1:], 0, 0, 0),
        (lambda: torch.arange(3, device="gpu").new_zeros(2) + 1, 0, 0, 0),
        (lambda: torch.zeros_like(torch.ones(2), device="gpu"), 0, 0, 0),
    ],
)
def test_copies_and_waits_are_counted(work: Callable[[], object], to_device: int, to_host: int, waits: int) -> None:
    with pretended_device.present() as traffic:
        work()
    assert (traffic.to_device, traffic.to_host, len(traffic.waits)) == (to_device, to_host, waits)
    assert all("test_pretended_device.py:" in wait for wait in traffic.waits), "the line of the author is named"


def trained(device: str) -> tuple[list[float], dict[str, Tensor], bytes]:
    """A few steps of a small network with what methods use: attention, dropout, LSTM, tied weights, AdamW, clipping."""
    torch.manual_seed(0)
    lstm, table, head = (
        nn.LSTM(8, 8, num_layers=2, bidirectional=True, batch_first=True),
        nn.Embedding(5, 16),
        nn.Linear(16, 5),
    )
    head.weight = table.weight
    model = nn.ModuleDict({"lstm": lstm, "table": table, "head": head, "drop": nn.Dropout(0.5)}).to(device)
    assert model["head"].weight is model["table"].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    told = []
    for _ in range(3):
        ids = torch.randint(5, (4, 6)).to(device)
        embedded = model["table"](ids)
        mixed = model["lstm"](embedded[..., :8])[0] + F.scaled_dot_product_attention(embedded, embedded, embedded)
        loss = F.cross_entropy(model["head"](model["drop"](mixed)).flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        model.load_state_dict(copy.deepcopy(model).state_dict())
        told.append(loss.item())
    kept = io.BytesIO()
    torch.save(model.state_dict(), kept)
    loaded = torch.load(io.BytesIO(kept.getvalue()), weights_only=False)
    assert all(value.device == head.weight.device for value in loaded.values())
    stored = safetensors.torch.save({"w": model["head"].weight.detach()})
    return told, {name: value.cpu() for name, value in loaded.items()}, stored


def test_training_equals_that_on_the_cpu_bit_for_bit() -> None:
    torch.ones(2, requires_grad=True).sum().backward()  # whoever computed gradients before does no harm
    with sdpa_kernel(SDPBackend.MATH):
        expected = trained("cpu")
        with pretended_device.present():
            found = trained("gpu")
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert all(torch.allclose(found[1][name], value, atol=1e-6) for name, value in expected[1].items())
    assert len(found[2]) == len(expected[2])


def test_a_tensor_of_the_device_behaves_as_one() -> None:
    with pretended_device.present():
        made = torch.arange(4.0, device="gpu")
        with pytest.raises(TypeError, match="gpu:0 device type tensor to numpy"):
            np.asarray(made)
        view = made.view(2, 2)
        view[0, 0] = 7.0
        assert made.tolist() == [7.0, 1.0, 2.0, 3.0]
        assert made.to("gpu") is made
        parameter = nn.Parameter(made)
        parameter.data = torch.zeros(2, 3, device="gpu")
        assert (parameter + 1).shape == (2, 3)
        assert isinstance(copy.deepcopy(parameter), nn.Parameter)
        assert torch.zeros(2, 3, device="gpu").t_().shape == (3, 2)
        assert torch.ones(2).pin_memory().device.type == "cpu"
        assert "gpu" not in str(torch.empty(1).device)


def test_without_torch_s_interface_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretended_device, "_setup", None)
    reason = pretended_device.missing()
    assert reason is not None
    assert "cannot pretend a device" in reason
    with pytest.raises(RuntimeError, match="cannot pretend"), pretended_device.present():
        pass
    (result,) = checks.run_checks(checks.method_subject(TOY_METHOD), frozenset({"device"}))
    assert (result.result, result.message) == ("skip", reason)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.generates])
def test_every_family_is_trained_and_evaluated_there(family: str) -> None:
    subject = checks.method_subject(TOY_METHOD)
    if (reason := subject.refusal(family)) is not None:
        pytest.skip(reason)
    device_checks.judge(device_checks.compared(subject, subject.brief(family=family, train=6)), 0)


class TestLosses:
    def tally(self, values: list[Any]) -> tuple[dict[str, float], list[int]]:
        seen: list[int] = []

        def judge(terms: losses.Losses, step: int) -> None:
            seen.append(step)
            if not np.isfinite(terms["loss"]):
                raise RunFailed(f"step {step}")

        tally = losses.Tally({}, judge)
        for step, value in enumerate(values):
            tally.add({"loss": value, "plain": 0.5}, 3, step)
        return tally.read(), seen

    def test_sums_are_those_of_the_cpu_by_few_copies(self) -> None:
        values = torch.rand(2 * losses.READ_EVERY + 7)
        expected, steps = self.tally([float(value) for value in values])
        with pretended_device.present() as traffic:
            held = list(values.to("gpu"))
            before = traffic.to_host
            found, there = self.tally(held)
            assert traffic.to_host - before == 3
        assert (found, there) == (expected, steps)

    def test_a_loss_that_is_not_finite_is_named_by_its_step(self) -> None:
        with pretended_device.present():
            held = list(torch.tensor([1.0, 1.0, float("nan"), 1.0], device="gpu"))
            with pytest.raises(RunFailed, match="step 2"):
                self.tally(held)

    def test_what_a_method_changes_later_was_copied(self) -> None:
        with pretended_device.present():
            same = torch.ones((), device="gpu")
            terms = losses.terms_of({"loss": same}, Guard("method `toy`"), "train_step")
            same.add_(1)
            assert losses.read([terms]) == [{"loss": 1.0}]
