"""SD-LoRA against numbers recorded from the classes of WuYichen-97/SD-Lora-CL 8bacded (``tests/golden/sdlora``).

``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench_methods.sd_lora import SDLoRA, SDLoRAConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.testing.by_hand import backbone_of, begin, context_of, place, stream_of
from benchmark.testing.recorded import Recorded

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "sdlora"


class Case(Recorded):
    """A recorded case, and SD-LoRA as it was there."""

    @property
    def sizes(self) -> list[int]:
        raw = self.meta["config"]
        return [raw["classes_per_task"]] * raw["tasks"]

    def method(self) -> SDLoRA:
        raw = self.meta["config"]
        config = SDLoRAConfig(epochs=raw["steps"], batch_size=raw["batch"], lr=raw["lr"], rank=raw["rank"])
        return SDLoRA(config, context_of(SPEC, config, stream_of(self.sizes), backbone=backbone_of(self.vit()))).to(
            self.dtype
        )

    def ours(self, method: SDLoRA, *, grad: bool = False) -> dict[str, Tensor]:
        """Our numbers by official names."""

        def of(parameter: Tensor) -> Tensor:
            value = parameter.grad if grad else parameter
            assert value is not None
            return value

        found = {f"fc.{name}": of(method.head.get_parameter(name)) for name in ("weight", "bias")}
        for block, branch in enumerate(method.branches.current):
            for part in range(2):
                found[f"A.{2 * block + part}"] = of(branch.down)[part]
                found[f"B.{2 * block + part}"] = of(branch.up)[part]
        magnitudes = of(method.magnitudes)
        if grad:
            found["wrapped_param.0.param"] = magnitudes[-1:]
            found |= {f"wrapped_param_prev.{k}.param": magnitudes[k : k + 1] for k in range(len(magnitudes) - 1)}
        else:
            found["scale"] = magnitudes[-1:]
            if len(magnitudes) > 1:  # the official code has one that is not used in the first task
                found["scale_prev"] = magnitudes[:-1]
        return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["three_tasks", "two_tasks_random_start"])
def test_tasks_equal_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    method = case.method()
    for task, size in enumerate(case.sizes):
        stem = f"task{task}"
        begin(method, stream_of(case.sizes), task)
        with torch.no_grad():
            for part in ("weight", "bias"):
                method.head.get_parameter(part)[-size:] = case.tensor(f"method.fc{task}.{part}")[-size:]
            for block, branch in enumerate(method.branches.current):
                for part in range(2):
                    branch.down[part] = case.tensor(f"method.A{task}.{2 * block + part}")
                    branch.up[part] = case.tensor(f"method.B{task}.{2 * block + part}")
            batch = Batch(case.tensor(f"input.{stem}.images"), case.tensor(f"input.{stem}.labels"))
            case.compare(f"{stem}.train.features", method.features(batch.images))
            case.compare(f"{stem}.train.logits", method.logits(batch.images))
        losses = []
        for step in range(case.meta["config"]["steps"]):
            losses.append(torch.as_tensor(method.train_step(batch)["loss"]))
            if step == 0:
                for key, value in case.ours(method, grad=True).items():
                    case.compare(f"{stem}.grad.{key}", value)
        case.compare(f"{stem}.steps.loss_total", torch.stack(losses))
        for key, value in case.ours(method).items():
            case.compare(f"{stem}.after.{key}", value)
        with torch.no_grad():
            images = case.tensor("input.eval_images")
            case.compare(f"{stem}.eval.features", method.eval().features(images))
            case.compare(f"{stem}.eval.logits", method.predict(images))
    assert not any(p.requires_grad for branches in list(method.branches)[:-1] for p in branches.parameters())
    case.report()


def test_rates_fall_at_milestones_and_after_the_first_experience() -> None:
    config = SDLoRAConfig(**SPEC.recipes["official-imagenet-a"])  # type: ignore[arg-type]
    scenario = stream_of([2, 2])
    method = SDLoRA(config, context_of(SPEC, config, scenario))
    rates = []
    for task in range(2):
        begin(method, scenario, task)
        rates.append([method.factor(place(epoch, epochs=20)) for epoch in (0, 9, 10, 15)])
    assert rates[0] == pytest.approx([1, 1, 0.05, 0.0025])
    assert rates[1] == pytest.approx([0.5, 0.5, 0.025, 0.00125])
