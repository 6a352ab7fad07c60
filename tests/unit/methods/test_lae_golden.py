"""LAE against numbers recorded from gqk/LAE 1680e49 (``tests/golden/lae``). ``pytest -s`` prints the deviations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench_methods.lae import LAE, LAEConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.testing.by_hand import at, backbone_of, begin, context_of, stream_of
from benchmark.testing.recorded import Recorded

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "lae"
SIZES = {"bottleneck": "down_sample", "rank": "rank", "prefix_length": "length"}
KINDS = {"adapter": "bottleneck", "lora": "rank", "prefix": "prefix_length"}
NAMES = {
    "adapter": {
        "layer.0.weight": "bottleneck.down.weight",
        "layer.0.bias": "bottleneck.down.bias",
        "layer.2.weight": "bottleneck.up.weight",
        "layer.2.bias": "bottleneck.up.bias",
        "layer.3.scale": "scale",
    },
    "prefix": {
        "key.tokens": "keys",
        "val.tokens": "values",
        "key.scaler.scale": "key_scale",
        "val.scaler.scale": "value_scale",
    },
}


class Case(Recorded):
    """A recorded case, and LAE as it was there."""

    def method(self) -> LAE:
        raw = self.meta["config"]
        option = KINDS[self.name]
        config = LAEConfig(
            epochs=raw["epochs"],
            batch_size=raw["batch"],
            lr=raw["lr"],
            module=self.name,  # type: ignore[arg-type]
            blocks=len(raw["adapt_blocks"]),
            frozen_epochs=raw["freeze_epochs"],
            decay=raw["ema_decay"],
            **{option: raw["pet_kwargs"][SIZES[option]]},
        )
        method = LAE(
            config, context_of(SPEC, config, stream_of(raw["task_sizes"]), backbone=backbone_of(self.vit()))
        ).to(self.dtype)
        with torch.no_grad():
            for key, tensor in self.ours(method.online).items():
                tensor.copy_(self.tensor(f"method.pets.{key}"))
        return method

    def ours(self, modules: nn.ModuleList, *, grad: bool = False) -> dict[str, Tensor]:
        """Our numbers by official names."""
        found: dict[str, Tensor] = {}
        for place, module in enumerate(modules):

            def of(name: str, module: nn.Module = module) -> Tensor:
                parameter = module.get_parameter(name)
                value = parameter.grad if grad else parameter
                assert value is not None
                return value

            if self.name == "lora":
                rank = self.meta["config"]["pet_kwargs"]["rank"]
                for part in range(2):
                    found[f"{place}.lora_A.{part}"] = of("down").split(rank)[part]
                    found[f"{place}.lora_B.{part}"] = of("up")[part]
                    found[f"{place}.scale.{part}.scale"] = of("factors")[part]
            else:
                found |= {f"{place}.{theirs}": of(ours) for theirs, ours in NAMES[self.name].items()}
        return found

    def compare_head(self, prefix: str, method: LAE, *, grad: bool = False) -> None:
        sizes = self.meta["config"]["task_sizes"]
        for name in ("weight", "bias"):
            parameter = method.head.get_parameter(name)
            value = parameter.grad if grad else parameter
            assert value is not None
            for task, rows in enumerate(value.split(sizes[: 1 + (len(value) > sizes[0])])):
                self.compare(f"{prefix}.head.classifiers.{task}.{name}", rows)

    def compare_modules(self, prefix: str, modules: nn.ModuleList, *, grad: bool = False) -> None:
        for key, tensor in self.ours(modules, grad=grad).items():
            self.compare(f"{prefix}.{key}", tensor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["adapter", "lora", "prefix"])
def test_two_tasks_equal_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    method, raw = case.method(), case.meta["config"]
    for task, size in enumerate(raw["task_sizes"]):
        stem = f"task{task}"
        begin(method, stream_of(raw["task_sizes"]), task)
        with torch.no_grad():
            for part in ("weight", "bias"):
                method.head.get_parameter(part)[-size:] = case.tensor(f"method.head.{task}.{part}")
        batch = Batch(case.tensor(f"input.{stem}.images"), case.tensor(f"input.{stem}.labels"))
        with torch.no_grad():
            case.compare(f"{stem}.train.features", method.features(batch.images))
            case.compare(f"{stem}.train.logits", method.logits(batch.images))
        losses = []
        for epoch in range(raw["epochs"]):
            losses.append(torch.as_tensor(method.train_step(at(batch, epoch, epochs=raw["epochs"]))["loss"]))
            if epoch == 0:
                case.compare_head(f"{stem}.grad", method, grad=True)
                assert all((p.grad is None) == (task > 0) for p in method.online.parameters())
                if task == 0:
                    case.compare_modules(f"{stem}.grad.pets", method.online, grad=True)
            if task > 0 and epoch == raw["freeze_epochs"] and dtype == torch.float64:
                case.compare_head(f"{stem}.unfrozen.grad", method, grad=True)
                case.compare_modules(f"{stem}.unfrozen.grad.pets", method.online, grad=True)
        if dtype == torch.float32:  # Adam turns a gradient of 1e-8 into a step of either sign
            break
        case.compare(f"{stem}.steps.loss_total", torch.stack(losses))
        case.compare_modules(f"{stem}.after.pets", method.online)
        case.compare_head(f"{stem}.after", method)
        images = case.tensor("input.eval_images")
        with torch.no_grad():
            scores = method.eval().predict(images)
            case.compare(f"{stem}.eval.logits_online", method.logits(images))
            if task:
                case.compare_modules(f"{stem}.after.offline", method.offline.current)
                logits = method.head(method.adapted(images, method.offline.current))
                case.compare(f"{stem}.eval.logits_offline", logits)
        case.compare(f"{stem}.eval.ensemble", scores.exp())
        case.compare(f"{stem}.eval.predictions", scores.argmax(dim=1))
    case.report()
