"""Visual prompting against numbers recorded from the official code, through the `train_step` that runs train with.

``tests/golden/visual_prompting`` (hjbahng/visual_prompting 679e71f, OPTML-Group/ILM-VP 84ca042); see the ``reference``
field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench_methods.visual_prompting import VisualPrompting, VisualPromptingConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.backbones.label_mapping import LabelMapping, count_matrix, frequent
from benchmark.backbones.pixel_prompts import AdditiveProgram, ExpansiveProgram, PatchPrompt
from benchmark.inputs.images import NORMALIZATIONS, ImagePipeline
from benchmark.testing import by_hand
from benchmark.testing.by_hand import backbone_of, begin, context_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "visual_prompting"
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


class Case(Recorded):
    """A recorded case, and visual prompting as it was there."""

    def method(self, **changes: Any) -> VisualPrompting:
        """The plugin's class at the start of a task of six steps."""
        config, vit = self.meta["config"], self.meta["config"]["vit"]
        classifier = nn.Linear(vit["width"], config["source_classes"]).requires_grad_(False)
        classifier.load_state_dict(self.part("method.source_head."))
        options = VisualPromptingConfig(
            prompt=config["prompter"].replace("_", "-"),
            prompt_size=config["prompt_size"],
            readout="mapping",
            optimizer="sgd",
            lr=config["lr"],
            momentum=config["momentum"],
            warmup_steps=config["warmup"],
            schedule="cosine",
            epochs=1,
            batch_size=7,
            **changes,
        )
        scenario = toy_scenario(experiences=1, classes=7, train=config["total_steps"], test=1)
        backbone = backbone_of(self.vit(), classifier=classifier)
        method = VisualPrompting(options, context_of(SPEC, options, scenario, backbone=backbone)).to(self.dtype)
        begin(method, scenario, 0)
        return method


def ours(name: str) -> str:
    """Our name of an official parameter."""
    return f"prompt.{name.removeprefix('pad_')}"


@DTYPES
@pytest.mark.parametrize("name", ["padding", "fixed_patch", "random_patch"])
def test_three_steps_equal_the_official_code(name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(GOLDEN, name, dtype)
    method = case.method()
    start = {key: value for key, value in case.part("method.").items() if not key.startswith("source_head")}
    with torch.no_grad():
        for key, value in start.items():
            method.get_parameter(ours(key)).copy_(value)
    at: dict[str, tuple[int, int]] = {}
    if name == "random_patch":  # the recorded draws take the place of ours
        monkeypatch.setattr(PatchPrompt, "draw", lambda self: at["training"])
        monkeypatch.setattr(PatchPrompt, "middle", lambda self: at["test"])
        drawn = {key: case.arrays[f"input.positions.{key}"] for key in ("steps", "eval", "eval_after")}
        at = {"training": tuple(drawn["steps"][0]), "test": tuple(drawn["eval"])}
    images, labels = case.tensor("input.images"), case.tensor("input.labels")
    others = case.tensor("input.eval_images")
    source = method.source
    assert source is not None
    with torch.no_grad():
        method.eval()
        case.compare("eval.logits_source", source(method.encode(method.prompted(others, training=False))))
        case.compare("eval.logits", method.predict(others))
        case.compare("eval.logits_unprompted", case.method(prompts="off").eval().predict(others))
        method.train()
        case.compare("prompt_image", method.prompted(torch.zeros_like(images[:1]), training=True))
        case.compare("train.logits_source", source(method.encode(method.prompted(images, training=True))))
        case.compare("train.logits", method.logits(images, training=True))
    losses, rates = [], []
    frozen = {key: value.clone() for key, value in method.state_dict().items() if not key.startswith("prompt.")}
    for step in range(3):
        if name == "random_patch":
            at["training"] = tuple(drawn["steps"][step])
        placed = by_hand.at(Batch(images, labels), step, each=case.meta["config"]["total_steps"])
        losses.append(torch.as_tensor(method.train_step(placed)["loss"]))
        assert method.optimizer is not None
        rates.append(float(method.optimizer.param_groups[0]["lr"]))
        if step == 0:
            case.compare("train.loss_total", losses[0])
            for key in start:
                gradient = method.get_parameter(ours(key)).grad
                assert gradient is not None
                case.compare(f"grad.{key}", gradient)
    case.compare("steps.loss_total", torch.stack(losses))
    case.compare("steps.lr", torch.tensor(rates, dtype=torch.float64))
    for key in start:
        case.compare(f"after3.{key}", method.get_parameter(ours(key)))
    if name == "random_patch":
        at["test"] = tuple(drawn["eval_after"])
    with torch.no_grad():
        found = method.eval().predict(others)
    case.compare("eval_after3.logits", found)
    right = (found.argmax(dim=1) == case.tensor("input.eval_labels")).to(torch.float64).mean()
    case.compare("eval_after3.acc1_percent", 100 * right)
    assert all(torch.equal(method.state_dict()[key], value) for key, value in frozen.items())
    case.report()


@DTYPES
def test_programs_and_mappings_equal_the_official_code(dtype: Any) -> None:
    case = Case(GOLDEN, "label_mapping_ilm", dtype)
    sizes = case.meta["config"]
    logits, labels = case.tensor("input.source_logits"), case.tensor("input.labels")
    sources, targets = sizes["source_classes"], sizes["target_classes"]
    counts = count_matrix(logits.argmax(dim=1), labels, sources=sources, targets=targets)
    assert np.array_equal(counts.numpy(), case.arrays["count_matrix"])
    for many in (1, sizes["multi"]):
        found = frequent(counts, many)
        assert found.flatten().tolist() == case.arrays[f"mapping_sequence.m{many}"].tolist()
        mapping = LabelMapping(many)
        mapping.assign(range(targets), found)
        chosen = torch.from_numpy(case.arrays[f"mapping_matrix.m{many}"]).to(dtype)
        torch.testing.assert_close(mapping(logits), logits @ chosen / many)
    imagenet = ImagePipeline(
        "plain", size=sizes["S"], mean=NORMALIZATIONS["imagenet"][0], std=NORMALIZATIONS["imagenet"][1]
    )
    expansive = ExpansiveProgram(sizes["S"], sizes["s"], imagenet.normalize).to(dtype)
    additive = AdditiveProgram(sizes["S"], sizes["pad"]).to(dtype)
    with torch.no_grad():
        for program in (expansive, additive):
            program.program.copy_(case.tensor("method.program"))
        case.compare("expansive", expansive(case.tensor("input.images_small")))
        case.compare("additive", additive(case.tensor("input.images_full")))
    case.report()
