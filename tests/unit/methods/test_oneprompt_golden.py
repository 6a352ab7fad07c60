"""OnePrompt and OVOR against numbers recorded from jpmorganchase/ovor 4f59b75 (``tests/golden/oneprompt``).

The normal draws and the order of features in outlier epochs are part of the vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench_methods.oneprompt import OnePrompt, OnePromptConfig, bench_register_methods
from benchmark.api import Batch, Scenario
from benchmark.testing.by_hand import at, backbone_of, begin, context_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "oneprompt"
NAMES = ("g_p_0", "g_p_1", "e_p_2", "e_p_3", "e_p_4")


class Case(Recorded):
    """A recorded case, and OnePrompt as it was there."""

    def method(self) -> OnePrompt:
        raw, outside = self.meta["config"], self.meta["config"]["ood"]
        head, plain, outlier = raw["epochs"]
        config = OnePromptConfig(
            epochs=plain,
            head_epochs=head,
            outlier_epochs=outlier,
            batch_size=raw["batch"],
            lr=raw["lr"],
            general_length=raw["g_length"],
            expert_length=raw["e_length"],
            neighbour=outside["K"],
            outlier_draws=outside["sample_from"],
            outlier_repeats=outside["select"],
            outliers_per_class=outside["num_per_class"],
            outlier_batch=outside["id_bsz"],
            outlier_spread=outside["cov"],
            outlier_weight=outside["lmda"],
            energy_inside=outside["thres_id"],
            energy_outside=outside["thres_ood"],
        )
        method = OnePrompt(config, context_of(SPEC, config, self.scenario, backbone=backbone_of(self.vit())))
        with torch.no_grad():
            for name, rows in zip(NAMES, method.prefixes.rows, strict=True):
                rows.copy_(self.tensor(f"method.prompt.{name}").view_as(rows))
        return method.to(self.dtype)

    @property
    def scenario(self) -> Scenario:
        raw = self.meta["config"]
        return toy_scenario(experiences=raw["tasks"], classes=raw["classes_per_task"], train=1, test=1)

    def all_rows(self, head: nn.Module, name: str, *, grad: bool = False) -> Tensor:
        """Ours, with the rows of classes to come as the official head has them."""
        parameter, whole = head.get_parameter(name), self.tensor(f"method.last.{name}")
        ours = parameter.grad if grad else parameter
        assert ours is not None
        rest = whole[len(ours) :]
        return torch.cat([ours, torch.zeros_like(rest) if grad else rest])

    def compare_parameters(self, prefix: str, method: OnePrompt, *, grad: bool = False) -> None:
        for name, rows in zip(NAMES, method.prefixes.rows, strict=True):
            if f"f64.{prefix}.prompt.{name}" in self.arrays:
                value = rows.grad if grad else rows
                assert value is not None
                self.compare(f"{prefix}.prompt.{name}", value.flatten(0, 1))
        for name in ("weight", "bias"):
            self.compare(f"{prefix}.last.{name}", self.all_rows(method.head, name, grad=grad))


class Steps:
    """Watches the steps of a method."""

    def __init__(self, case: Case, method: OnePrompt, stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.penalties: list[Tensor] = []
        self.energies: list[Tensor] = []
        self.far: list[Tensor] = []
        descend, step, outliers = method.descend, method.outlier_step, method.outliers

        def watched(loss: Tensor, **options: Any) -> None:
            descend(loss, **options)
            self.losses.append(loss.detach())
            self.rates.append(method.active_optimizer.param_groups[0]["lr"])
            if len(self.losses) == 1:
                case.compare_parameters(f"{stem}.grad", method, grad=True)

        def outlier_step(features: Tensor, labels: Tensor, outside: Tensor, factor: float) -> dict[str, Tensor]:
            with torch.no_grad():
                logits = [method.head(rows)[:, list(method._allowed or ())] for rows in (features, outside)]
            self.energies.append(torch.stack([-rows.logsumexp(1).mean() for rows in logits]))
            found = step(features, labels, outside, factor)
            self.penalties.append(found["loss_outliers"])
            return found

        def far(features: Tensor) -> Tensor:
            epoch = f"{stem}.ood{len(self.far)}"
            case.compare(f"{epoch}.id_features", features)
            self.far.append(outliers(features))
            case.compare(f"{epoch}.samples", self.far[-1])
            return self.far[-1]

        monkeypatch.setattr(method, "descend", watched)
        monkeypatch.setattr(method, "outlier_step", outlier_step)
        monkeypatch.setattr(method, "outliers", far)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["oneprompt_two_tasks", "ovor_two_tasks", "ovor_active_thresholds"])
def test_two_tasks_equal_the_official_code(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(GOLDEN, name, dtype)
    method, each = case.method(), case.meta["config"]["classes_per_task"]
    # Adam turns gradients of 1e-8 into steps of either sign: float32 is compared on the first task, before its steps.
    for task in range(2 if dtype == torch.float64 else 1):
        stem, seen = f"task{task}", each * (task + 1)
        with monkeypatch.context() as patch:
            begin(method, case.scenario, task)
            with torch.no_grad():
                for part in ("weight", "bias"):
                    method.head.get_parameter(part)[seen - each :] = case.tensor(f"method.last.{part}")[
                        seen - each : seen
                    ]
            batch = Batch(case.tensor(f"input.{stem}.images"), case.tensor(f"input.{stem}.labels"))
            with torch.no_grad():
                features = method.features(batch.images)
            case.compare(f"{stem}.train.features", features)
            rows = [case.all_rows(method.head, part) for part in ("weight", "bias")]
            case.compare(f"{stem}.train.logits", nn.functional.linear(features, *rows))
            if dtype == torch.float32:
                break
            steps = Steps(case, method, stem, patch)
            if case.meta["config"]["epochs"][2]:
                noise, orders = (iter(case.tensor(f"input.{stem}.ood_{part}")) for part in ("noise", "perm"))
                patch.setattr(method, "draw", lambda rows, noise=noise: next(noise))
                patch.setattr(method, "order", lambda labels, orders=orders: next(orders))
            epochs = len(method.passes())
            for epoch in range(epochs):
                method.train_step(at(batch, epoch, epochs=epochs))
            case.compare(f"{stem}.steps.loss_total", torch.stack(steps.losses))
            case.compare(f"{stem}.lrs", torch.tensor(steps.rates, dtype=dtype))
            if steps.penalties:
                case.compare(f"{stem}.ood.loss_reg", torch.stack(steps.penalties))
                case.compare(f"{stem}.ood.scores", torch.stack(steps.energies))
        case.compare_parameters(f"{stem}.after", method)
        with torch.no_grad():
            images = case.tensor("input.eval_images")
            case.compare(f"{stem}.eval.features", method.eval().features(images))
            case.compare(f"{stem}.eval.logits", method.predict(images))
    case.report()
