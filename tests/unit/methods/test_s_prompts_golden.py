"""S-Prompts against numbers recorded from iamwangyabin/S-Prompts a26e822 (``tests/golden/s_prompts``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods.s_prompts import SPromptsConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.testing.by_hand import backbone_of, context_of, place
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "s_prompts"


def ours(method: Any, name: str) -> Tensor:
    """Our parameter of an official name."""
    kind, task, what = name.split(".")
    domain = method.domains[int(task)]
    found: Tensor = domain.prompts if kind == "prompt_pool" else domain.head.get_parameter(what)
    return found


@pytest.mark.parametrize("name", ["two_domains", "three_domains_core50_like"])
def test_every_domain_equals_the_official_one(name: str) -> None:
    case = Recorded(GOLDEN, name, torch.float64)
    recorded = case.meta["config"]
    config = SPromptsConfig(
        epochs=recorded["epochs"],
        first_epochs=recorded["epochs"],
        lr=recorded["lr"],
        first_lr=recorded["init_lr"],
        weight_decay=recorded["weight_decay"],
        first_weight_decay=recorded["init_weight_decay"],
        length=recorded["prompt_length"],
        centres=recorded["clusters"],
    )
    context = context_of(SPEC, config, toy_scenario(), backbone=backbone_of(case.vit()))
    method: Any = SPEC.build(config, context).double()
    tests = case.tensor("input.eval_images")
    epochs, classes = recorded["epochs"], recorded["classes"]
    view = SimpleNamespace(classes=tuple(range(classes)), seen=classes)
    for task in range(recorded["sessions"]):
        prefix = f"task{task}"
        method.train()
        method.begin_experience(view)
        start = [key.removeprefix("method.") for key in case.arrays if key.startswith("method.") and f".{task}." in key]
        with torch.no_grad():
            for key in start:
                ours(method, key).copy_(case.tensor(f"method.{key}"))
        images, labels = case.tensor(f"input.{prefix}.images"), case.tensor(f"input.{prefix}.labels") % classes
        with torch.no_grad():
            case.compare(f"{prefix}.train.query", method.query(images))
            case.compare(f"{prefix}.train.features", method.own(images))
            case.compare(f"{prefix}.train.logits", method.domains.current.head(method.own(images)))
        losses = []
        for step in range(epochs + 1):
            batch = dataclasses.replace(Batch(images, labels), place=place(step, epochs=epochs + 1))
            loss = torch.as_tensor(method.train_step(batch)["loss"])
            if step == epochs:  # collects the queries
                break
            losses.append(loss)
            assert method.optimizer.param_groups[0]["lr"] == pytest.approx(case.arrays[f"f64.{prefix}.lrs"][step])
            for key in start if step == 0 else ():
                case.compare(f"{prefix}.grad.{key}", ours(method, key).grad)
        case.compare(f"{prefix}.steps.loss_total", torch.stack(losses))
        for key in start:
            case.compare(f"{prefix}.after.{key}", ours(method, key))
        method.end_experience(view)
        method.eval()
        wanted = case.tensor(f"f64.{prefix}.centers")
        nearest = torch.cdist(wanted, method.keys[task]).argmin(dim=1)  # their order is arbitrary
        assert sorted(nearest.tolist()) == list(range(len(wanted)))
        case.compare(f"{prefix}.centers", method.keys[task][nearest])
        with torch.no_grad():
            query = method.query(tests)
            case.compare(f"{prefix}.eval.query", query)
            case.compare(f"{prefix}.eval.selection", method.choose(query))
            logits = method.predict(tests)
            alone = torch.cat([method.predict(image) for image in torch.split(tests, 1)])
        case.compare(f"{prefix}.eval.logits", logits)
        case.compare(f"{prefix}.eval.predictions", logits.argmax(1))
        torch.testing.assert_close(alone, logits)
    case.report()
