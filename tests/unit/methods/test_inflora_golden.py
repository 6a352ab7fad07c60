"""InfLoRA against numbers recorded from liangyanshuo/InfLoRA e08b00e (``tests/golden/inflora``).

Signs of the rows of A are arbitrary: A is compared up to them, then the recorded one is taken. ``pytest -s`` prints the
deviations.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench_methods.inflora import InfLoRA, InfLoRAConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.backbones.gradient_memory import DualMemory
from benchmark.testing.by_hand import at, backbone_of, begin, context_of, stream_of, view_of
from benchmark.testing.closed_form import fill
from benchmark.testing.recorded import Recorded

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "inflora"


class Case(Recorded):
    """A recorded case, and InfLoRA as it was there."""

    @property
    def sizes(self) -> list[int]:
        raw = self.meta["config"]
        return [raw["classes_per_task"]] * raw["sessions"]

    def method(self) -> InfLoRA:
        raw = self.meta["config"]
        config = InfLoRAConfig(
            epochs=raw["epochs"],
            batch_size=raw["n"] // raw["batches"],
            lr=raw["lr"],
            rank=raw["rank"],
            first_share=raw["lamb"],
            last_share=raw["lame"],
        )
        context = context_of(SPEC, config, stream_of(self.sizes), backbone=backbone_of(self.vit()))
        return InfLoRA(config, context).to(self.dtype)

    def compare_parameters(self, prefix: str, method: InfLoRA, task: int, *, grad: bool = False) -> None:
        def of(parameter: Tensor) -> Tensor:
            value = parameter.grad if grad else parameter
            assert value is not None
            return value

        for block, branch in enumerate(method.branches.current):
            for place, part in enumerate("kv"):
                self.compare(f"{prefix}.blocks.{block}.attn.lora_B_{part}.{task}.weight", of(branch.up)[place])
        for name in ("weight", "bias"):
            rows = of(method.head.get_parameter(name))[-self.sizes[task] :]
            self.compare(f"{prefix}.classifier_pool.{task}.{name}", rows)


@pytest.mark.parametrize("name", ["three_tasks", "retain_after_task1"])
def test_three_tasks_equal_the_official_code(name: str) -> None:
    case = Case(GOLDEN, name, torch.float64)
    method, raw = case.method(), case.meta["config"]
    scenario, parts = stream_of(case.sizes), raw["batches"]
    for task, size in enumerate(case.sizes):
        stem = f"task{task}"
        begin(method, scenario, task)
        with torch.no_grad():
            for part in ("weight", "bias"):
                method.head.get_parameter(part)[-size:] = case.tensor(f"method.classifier_pool.{task}.{part}")
        images, labels = (case.tensor(f"input.{stem}.{kind}").chunk(parts) for kind in ("images", "labels"))
        batches = [Batch(*pair) for pair in zip(images, labels, strict=True)]
        losses, rates = [], []
        for step in range(len(method.passes()) * parts):
            batch = at(batches[step % parts], step, each=parts, epochs=len(method.passes()))
            loss = method.train_step(batch)["loss"]
            if step == parts - 1:
                for block, branch in enumerate(method.branches.current):
                    recorded, mine = torch.from_numpy(case.arrays[f"f64.{stem}.A.{block}"]), branch.down[0]
                    signs = (recorded * mine).sum(dim=1, keepdim=True).sign()
                    case.compare(f"{stem}.A.{block}", signs * mine)
                    branch.down.copy_(recorded.unsqueeze(0))
            if 0 < batch.place.epoch <= raw["epochs"]:
                losses.append(torch.as_tensor(loss))
                rates.append(method.active_optimizer.param_groups[0]["lr"])
            if step == parts:
                case.compare_parameters(f"{stem}.grad", method, task, grad=True)
        case.compare(f"{stem}.steps.loss_total", torch.stack(losses))
        case.compare(f"{stem}.lrs", torch.tensor(rates, dtype=torch.float64))
        case.compare_parameters(f"{stem}.after", method, task)
        for block, correlation in enumerate(method.correlations()):
            case.compare(f"{stem}.autocorrelation.{block}", correlation)
        method.end_experience(view_of(method, scenario, task))
        for block, memory in enumerate(method.memories):
            case.compare(f"{stem}.memory_projection.{block}", memory.basis @ memory.basis.T)
        case.compare(f"{stem}.memory_rank", torch.tensor([memory.basis.shape[1] for memory in method.memories]))
        case.compare(f"{stem}.memory_is_retain", torch.tensor([int(memory.retains) for memory in method.memories]))
        with torch.no_grad():
            shown = case.tensor("input.eval_images")
            case.compare(f"{stem}.eval.features", method.eval().features(shown))
            case.compare(f"{stem}.eval.logits", method.predict(shown))
    assert len(rates) == raw["epochs"] * parts
    case.report()


def test_a_first_experience_that_needs_most_directions_leaves_the_others() -> None:
    rows = fill("rows", (50, 6)) * torch.tensor([9.0, 7, 6, 5, 4, 0.001]).double()
    memory = DualMemory.empty(6, torch.device("cpu"))
    memory.update(rows.T @ rows / 50, 0.99999)
    assert memory.retains
    assert memory.basis.shape[1] < 3
    correlation = rows.T @ rows / 50
    assert memory.free(correlation).norm() < 0.1 * correlation.norm()
