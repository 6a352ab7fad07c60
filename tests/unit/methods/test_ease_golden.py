"""EASE against numbers recorded from LAMDA-PILOT 5240714 (``tests/golden/ease``). ``pytest -s`` prints deviations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench_methods.ease import EASE, EASEConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.testing.by_hand import at, backbone_of, begin, context_of, stream_of, view_of
from benchmark.testing.recorded import Recorded

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "ease"
NAMES = {
    f"{theirs}_proj.{part}": f"{ours}.{part}"
    for theirs, ours in (("down", "down"), ("up", "up"))
    for part in ("weight", "bias")
}


class Case(Recorded):
    """A recorded case, and EASE as it was there."""

    @property
    def sizes(self) -> list[int]:
        raw = self.meta["config"]
        return [raw["init_cls"], *[raw["increment"]] * (raw["tasks"] - 1)]

    def method(self) -> EASE:
        raw = self.meta["config"]
        config = EASEConfig(
            epochs=raw["epochs"],
            batch_size=raw["batch"],
            lr=raw["lr"],
            later_lr=raw["later_lr"] / raw["lr"],
            weight_decay=raw["weight_decay"],
            bottleneck=raw["bottleneck"],
            adapter_dropout=0.0,
            alpha=raw["alpha"],
        )
        return EASE(config, context_of(SPEC, config, stream_of(self.sizes), backbone=backbone_of(self.vit()))).to(
            self.dtype
        )

    def ours(self, method: EASE, *, grad: bool = False) -> dict[str, Tensor]:
        """Our numbers by official names."""

        def of(module: nn.Module, name: str) -> Tensor:
            parameter = module.get_parameter(name)
            value = parameter.grad if grad else parameter
            assert value is not None
            return value

        found = {f"proxy_fc.{name}": of(method.proxy, name) for name in ("weight", "sigma")}
        for block, adapter in enumerate(method.sets.current):
            found |= {f"adapter.{block}.{theirs}": of(adapter, name) for theirs, name in NAMES.items()}
        return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["three_tasks", "two_tasks_random_start"])
def test_tasks_equal_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Case(GOLDEN, name, dtype)
    method, epochs = case.method(), case.meta["config"]["epochs"]
    scenario = stream_of(case.sizes)
    for task in range(len(case.sizes)):
        stem = f"task{task}"
        begin(method, scenario, task)
        with torch.no_grad():
            method.proxy.weight.copy_(case.tensor(f"method.proxy_fc{task}.weight"))
            for block, adapter in enumerate(method.sets.current):
                for theirs, ours in NAMES.items():
                    adapter.get_parameter(ours).copy_(case.tensor(f"method.adapter{task}.{block}.{theirs}"))
        batch = Batch(case.tensor(f"input.{stem}.images"), case.tensor(f"input.{stem}.labels"))
        losses, rates = [], []
        for epoch in range(epochs):
            losses.append(torch.as_tensor(method.train_step(at(batch, epoch, epochs=epochs + 1))["loss"]))
            rates.append(method.active_optimizer.param_groups[0]["lr"])
            if epoch == 0:
                for key, value in case.ours(method, grad=True).items():
                    case.compare(f"{stem}.grad.{key}", value)
        case.compare(f"{stem}.steps.loss_total", torch.stack(losses))
        case.compare(f"{stem}.lrs", torch.tensor(rates, dtype=torch.float64))
        for key, value in case.ours(method).items():
            case.compare(f"{stem}.after.{key}", value)
        images, labels = (case.tensor(f"input.{stem}.proto_{kind}") for kind in ("images", "labels"))
        for rows in torch.arange(len(labels)).split(5):
            method.train_step(at(Batch(images[rows], labels[rows]), epochs, epochs=epochs + 1))
        method.end_experience(view_of(method, scenario, task))
        case.compare(f"{stem}.prototypes", method.prototypes.flatten(1))
        shown = case.tensor("input.eval_images")
        with torch.no_grad():
            case.compare(f"{stem}.eval.features", method.eval().features(shown).flatten(1))
            case.compare(f"{stem}.eval.logits", method.predict(shown))
    case.report()
