"""HiDe-Prompt's second stage against numbers recorded from thu-ml/HiDe-Prompt 0ed4333 (``tests/golden/hide_prompt``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods.hide_prompt import HiDePromptConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.learners.alignment import Draws
from benchmark.testing.by_hand import backbone_of, context_of, place
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "hide_prompt"


class Given(Draws):
    """The recorded random numbers of the alignment of a task."""

    def __init__(self, case: Recorded, task: int) -> None:
        self.noise: Iterator[Tensor] = iter(case.tensor(f"input.task{task}.ca_eps"))
        self.orders: Iterator[Tensor] = iter(case.tensor(f"input.task{task}.ca_perm"))

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return next(self.noise)

    def permutation(self, count: int, like: Tensor) -> Tensor:
        return next(self.orders)


def make(case: Recorded, **more: Any) -> Any:
    recorded = case.meta["config"]
    options: dict[str, Any] = {
        "epochs": recorded["epochs"],
        "task_epochs": 0,
        "lr": recorded["lr"],
        "lr_scaling": "none",
        "length": recorded["length"],
        "layers": len(recorded["layers"]),
        "momentum": recorded["prompt_momentum"],
        "regularisation": recorded["reg"],
        "clip": recorded["clip_grad"],
        "align_epochs": recorded["ca_epochs"],
        "align_lr": recorded["ca_lr"],
        "samples": recorded["ca_samples"],
        "layout": "official",
        "eval_logits": "all",
    }
    config = HiDePromptConfig(**{**options, **more})
    scenario = toy_scenario(experiences=recorded["tasks"], classes=recorded["classes_per_task"])
    return SPEC.build(config, context_of(SPEC, config, scenario, backbone=backbone_of(case.vit()))).double()


class Pool:
    """The official pool ``(S, 2, tasks, L, H, d)``, of ours and, for tasks to come, of the recorded start."""

    def __init__(self, case: Recorded) -> None:
        self.start = case.tensor("method.e_prompt.prompt")

    def of(self, rows: list[Tensor], *, zeros: bool = False) -> Tensor:
        whole = torch.zeros_like(self.start) if zeros else self.start.clone()
        for task, own in enumerate(rows):
            whole[:, :, task] = own.detach().reshape(whole[:, :, task].shape)
        return whole


@pytest.mark.parametrize("name", ["two_tasks", "three_tasks_no_momentum"])
def test_the_second_stage_equals_the_official_one(name: str) -> None:
    case = Recorded(GOLDEN, name, torch.float64)
    recorded, pool = case.meta["config"], Pool(case)
    method, tests = make(case), case.tensor("input.eval_images")
    with torch.no_grad():
        for head, kind in ((method.head, "head"), (method.tasks.head, "tii_head")):
            head.weight.copy_(case.tensor(f"method.{kind}.weight"))
            head.bias.copy_(case.tensor(f"method.{kind}.bias"))
        for parameter in method.tasks.mlp[2].parameters():  # the first stage of the cases has no MLP
            parameter.zero_()
    epochs, size = recorded["epochs"], recorded["classes_per_task"]

    def evaluate(prefix: str) -> None:
        method.eval()
        with torch.no_grad():
            case.compare(f"{prefix}.logits_batch", method.predict(tests))
            case.compare(f"{prefix}.logits_single", torch.cat([method.predict(one) for one in tests.split(1)]))
            case.compare(f"{prefix}.prompt_idx", method.choose(tests).unsqueeze(1))

    for task in range(recorded["tasks"]):
        prefix = f"task{task}"
        view = SimpleNamespace(classes=tuple(range(task * size, (task + 1) * size)), seen=(task + 1) * size)
        method.train()
        method.begin_experience(view)
        if task == 0:
            with torch.no_grad():
                method.prefixes.current.rows.copy_(pool.start[:, :, 0].flatten(3))
        case.compare(f"{prefix}.start.e_prompt.prompt", pool.of([one.rows for one in method.prefixes]))
        batch = Batch(case.tensor(f"input.{prefix}.images"), case.tensor(f"input.{prefix}.labels"))
        method.zero_grad()
        method.loss(batch)["loss"].backward()
        moved = {"head.weight": method.head.weight, "head.bias": method.head.bias}
        for key, parameter in moved.items():
            case.compare(f"{prefix}.grad.{key}", parameter.grad)
        grads = [*(torch.zeros_like(one.rows) for one in method.prefixes.kept[:-1]), method.prefixes.current.rows.grad]
        case.compare(f"{prefix}.grad.e_prompt.prompt", pool.of(grads, zeros=True))
        norm = torch.stack([one.norm() for one in (grads[-1], method.head.weight.grad, method.head.bias.grad)]).norm()
        assert float(norm) == pytest.approx(float(case.arrays[f"f64.{prefix}.steps.grad_norm"][0]), rel=1e-9)
        losses = []
        for step in range(epochs):
            terms = method.train_step(dataclasses.replace(batch, place=place(step, epochs=epochs + 1)))
            losses.append(torch.as_tensor(terms["loss"]))
        case.compare(f"{prefix}.steps.loss_total", torch.stack(losses))
        for key, parameter in moved.items():
            case.compare(f"{prefix}.after.{key}", parameter)
        last = place(epochs, epochs=epochs + 1)
        for number, label in enumerate(view.classes):
            images = case.tensor(f"input.class{label}.images")
            where = dataclasses.replace(last, epoch_step=number)
            method.train_step(Batch(images, torch.full((len(images),), label), place=where))
        case.compare(f"{prefix}.after.e_prompt.prompt", pool.of([one.rows for one in method.prefixes]))
        if task:
            evaluate(f"{prefix}.eval_before_ca")
        method.draws = Given(case, task) if task else method.draws
        constant = copy.deepcopy(method.tasks.state_dict())  # the first stage of the cases is not trained
        method.end_experience(view)
        method.tasks.load_state_dict(constant)
        means, covariances = method.prompted.means, method.prompted.covariances(ridge=1e-4)
        case.compare(f"{prefix}.class_means", means)
        case.compare(f"{prefix}.class_covs", covariances)
        if task:
            case.compare(f"{prefix}.ca.loss", torch.stack(method.losses))
            for key, parameter in moved.items():
                case.compare(f"{prefix}.after_ca.{key}", parameter)
        evaluate(f"{prefix}.eval")
    case.report()


def test_with_the_correct_layout_a_prediction_is_of_its_image_alone() -> None:
    case = Recorded(GOLDEN, "three_tasks_no_momentum", torch.float64)
    method, tests = make(case, layout="correct"), case.tensor("input.eval_images")
    for task in range(2):
        method.begin_experience(SimpleNamespace(classes=(2 * task, 2 * task + 1), seen=2 * task + 2))
    with torch.no_grad():
        method.prefixes.current.rows.normal_()
        method.tasks.head.weight.copy_(case.tensor("method.tii_head.weight"))
        method.tasks.head.bias.copy_(case.tensor("method.tii_head.bias"))
        method.tasks.mlp[2].weight.zero_()
        method.tasks.mlp[2].bias.zero_()
        assert len(set(method.choose(tests).tolist())) == 2
        alone = torch.cat([method.predict(image) for image in tests.split(1)])
        torch.testing.assert_close(method.predict(tests), alone)
