"""Visual prompting against numbers recorded from the official code, through the `train_step` that runs train with.

``tests/golden/visual_prompting`` (hjbahng/visual_prompting 679e71f, OPTML-Group/ILM-VP 84ca042); see the ``reference``
field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench_methods.visual_prompting import VisualPrompting, VisualPromptingConfig
from benchmark.api import Batch, Context, ExperienceView
from benchmark.backbones.label_mapping import LabelMapping, count_matrix, frequent
from benchmark.backbones.loading import Backbone
from benchmark.backbones.pixel_prompts import AdditiveProgram, ExpansiveProgram, PatchPrompt
from benchmark.testing.toys import toy_scenario
from benchmark.transforms import NORMALIZATIONS, InputPipeline

GOLDEN = Path(__file__).parents[2] / "golden" / "visual_prompting"
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


class Case:
    """Arrays of one case, and the largest deviation of every quantity compared so far."""

    def __init__(self, name: str, dtype: Any) -> None:
        self.name, self.dtype = name, dtype
        self.meta: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.worst: dict[str, float] = {}

    def tensor(self, key: str) -> Tensor:
        value = torch.from_numpy(self.arrays[key])
        return value.to(self.dtype) if value.is_floating_point() else value

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: self.tensor(key) for key in self.arrays if key.startswith(prefix)}

    def compare(self, key: str, mine: Tensor) -> None:
        wanted = self.arrays[f"f64.{key}"]
        got = mine.detach().numpy()
        assert got.shape == wanted.shape, key
        error = float(np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max()))
        self.worst[key] = error
        assert error < LIMITS[self.dtype], f"{self.name}: {key} deviates by {error:.1e}"

    def report(self) -> None:
        label = str(self.dtype).removeprefix("torch.")
        for key, error in sorted(self.worst.items(), key=lambda item: -item[1])[:6]:
            print(f"{self.name:20s} {label:8s} {key:24s} {error:.1e}")

    def method(self, **changes: Any) -> VisualPrompting:
        """The plugin's class at the start of a task of six steps."""
        config, vit = self.meta["config"], self.meta["config"]["vit"]
        model = VisionTransformer(
            img_size=vit["img_size"],
            patch_size=vit["patch_size"],
            embed_dim=vit["width"],
            depth=vit["depth"],
            num_heads=vit["heads"],
            mlp_ratio=vit["mlp_ratio"],
            num_classes=0,
        )
        model.load_state_dict(self.part("backbone."))
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
        context = Context(
            backbone=Backbone(
                name="golden", model=model, mean=(0.0,) * 3, std=(1.0,) * 3, sha256="", classifier=classifier
            ),
            device=torch.device("cpu"),
            scenario=scenario,
            pipeline=InputPipeline("plain", size=32, mean=(0.0,) * 3, std=(1.0,) * 3),
            uses=frozenset({"boundaries"}),
            method="visual-prompting",
        )
        method = VisualPrompting(options, context).to(self.dtype)
        method.begin_experience(ExperienceView(scenario, 0, context.uses, "visual-prompting"))
        return method.train()


def ours(name: str) -> str:
    """Our name of an official parameter."""
    return f"prompt.{name.removeprefix('pad_')}"


@DTYPES
@pytest.mark.parametrize("name", ["padding", "fixed_patch", "random_patch"])
def test_three_steps_equal_the_official_code(name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name, dtype)
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
        losses.append(torch.as_tensor(method.train_step(Batch(images, labels))["loss"]))
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
    case = Case("label_mapping_ilm", dtype)
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
    imagenet = InputPipeline(
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
