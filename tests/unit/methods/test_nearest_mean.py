"""Nearest class mean against LAMDA-PILOT 5240714 and RanPAC 012927f (``tests/golden/simplecil``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench_methods.nearest_mean import NearestMean, NearestMeanConfig, bench_register_methods, uses
from benchmark.api import Batch, Context, ExperienceView
from benchmark.backbones.loading import Backbone
from benchmark.testing.toys import tiny_backbone, toy_scenario
from benchmark.transforms import InputPipeline

GOLDEN = Path(__file__).parents[2] / "golden" / "simplecil"


def load(name: str) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}, json.loads((GOLDEN / f"{name}.json").read_text())["config"]


def make(backbone: Backbone, **changes: Any) -> NearestMean:
    config = NearestMeanConfig(**changes)
    context = Context(
        backbone=backbone,
        device=torch.device("cpu"),
        scenario=toy_scenario(experiences=2, classes=2, train=1, test=1),
        pipeline=InputPipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3),
        uses=uses(config),
        method="nearest-mean",
    )
    return NearestMean(config, context)


def close(mine: Tensor, wanted: np.ndarray[Any, Any], limit: float) -> None:
    assert mine.shape == wanted.shape
    assert float(np.abs(mine.detach().numpy() - wanted).max()) / max(1.0, float(np.abs(wanted).max())) < limit


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [100, 3])
def test_two_tasks_equal_simplecil_whatever_the_batch_size(dtype: torch.dtype, limit: float, size: int) -> None:
    arrays, config = load("two_tasks")
    vit = config["vit"]
    model = VisionTransformer(
        img_size=vit["img_size"],
        patch_size=vit["patch_size"],
        embed_dim=vit["width"],
        depth=vit["depth"],
        num_heads=vit["heads"],
        mlp_ratio=vit["mlp_ratio"],
        num_classes=0,
    )
    state = {name.removeprefix("backbone."): value for name, value in arrays.items() if name.startswith("backbone.")}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    method = make(Backbone(name="golden", model=model, mean=(0.0,) * 3, std=(1.0,) * 3, sha256="")).to(dtype)
    method.prototypes.sums = method.prototypes.sums.double()  # the sums stay float64 in a float32 model
    tests = torch.from_numpy(arrays["input.eval_images"]).to(dtype)
    for task in range(2):
        images = torch.from_numpy(arrays[f"input.task{task}.images"]).to(dtype)
        labels = torch.from_numpy(arrays[f"input.task{task}.labels"])
        method.train()
        for start in range(0, len(images), size):
            method.train_step(Batch(images[start : start + size], labels[start : start + size]))
        method.eval()
        with torch.no_grad():
            logits = method.predict(tests)
        close(method.prototypes.means, arrays[f"f64.task{task}.prototypes"], limit)
        close(logits, arrays[f"f64.task{task}.eval.logits"], limit)
        assert np.array_equal(logits.argmax(1).numpy(), arrays[f"f64.task{task}.eval.predictions"])


def test_given_features_equal_ranpac_class_incremental() -> None:
    arrays, _ = load("ncm_ranpac_cil_dil")
    method = make(tiny_backbone(embed_dim=16))
    for task in range(2):
        features = torch.from_numpy(arrays[f"input.task{task}.features"]).double()
        method.prototypes.add(features, torch.from_numpy(arrays[f"input.task{task}.labels"]))
        close(method.prototypes.means, arrays[f"f64.cil.task{task}.prototypes"], 1e-9)
        tests = torch.from_numpy(arrays["input.eval_features"]).double()
        close(method.prototypes(tests), arrays[f"f64.cil.task{task}.eval.logits"], 1e-9)


def test_given_features_equal_ranpac_domain_incremental() -> None:
    arrays, _ = load("ncm_ranpac_cil_dil")
    method = make(tiny_backbone(embed_dim=16))
    for domain in range(2):
        features = torch.from_numpy(arrays[f"input.domain{domain}.features"]).double()
        method.prototypes.add(features, torch.from_numpy(arrays[f"input.domain{domain}.labels"]))
        close(method.prototypes.sums, arrays[f"f64.dil.domain{domain}.sums"], 1e-9)
        tests = torch.from_numpy(arrays["input.eval_features"]).double()
        close(method.prototypes(tests), arrays[f"f64.dil.domain{domain}.eval.logits"], 1e-9)


def test_overwriting_starts_returning_classes_anew() -> None:
    scenario = toy_scenario(experiences=2, classes=2, train=1, test=1, family="domain-il")
    spread, kept = torch.randn(6, 32), torch.tensor([0, 0, 0, 1, 1, 1])
    for rule in ("merge", "overwrite"):
        method = make(tiny_backbone(), reappearing=rule)
        for index in range(2):
            method.begin_experience(ExperienceView(scenario, index, method.context.uses, "nearest-mean"))
            method.prototypes.add(spread * (index + 1), kept)
        factor = 1.5 if rule == "merge" else 2.0
        wanted = torch.stack([spread[:3].mean(0), spread[3:].mean(0)]) * factor
        torch.testing.assert_close(method.prototypes.means.float(), wanted)
        assert method.prototypes.counts.tolist() == ([6, 6] if rule == "merge" else [3, 3])


def test_averaging_normalised_features_is_another_classifier() -> None:
    features, labels = torch.randn(8, 32) * torch.arange(1.0, 9.0).view(-1, 1), torch.tensor([0, 1] * 4)
    plain, other = make(tiny_backbone()), make(tiny_backbone(), normalise_before_mean=True)
    plain.prototypes.add(features, labels)
    other.prototypes.add(features, labels)
    unit = torch.nn.functional.normalize(features, dim=1)
    torch.testing.assert_close(other.prototypes.means[0].float(), unit[::2].mean(0))
    assert not torch.allclose(plain.prototypes(features), other.prototypes(features), atol=1e-3)


def test_a_class_without_images_is_never_predicted() -> None:
    method = make(tiny_backbone())
    method.prototypes.add(-torch.ones(2, 32), torch.tensor([0, 2]))
    assert method.prototypes(torch.ones(1, 32)).argmax().item() != 1
    assert method.prototypes(torch.ones(1, 32))[0, 1] == -float("inf")


def test_state_of_another_size_is_loaded_and_goes_on_without_counting_twice() -> None:
    method, again = make(tiny_backbone()), make(tiny_backbone())
    method.prototypes.add(torch.randn(4, 32), torch.tensor([0, 1, 2, 2]))
    again.load_state_dict(method.state_dict())
    assert again.prototypes.counts.tolist() == [1, 1, 2]
    assert torch.equal(again.prototypes.sums, method.prototypes.sums)
    again.prototypes.add(torch.randn(1, 32), torch.tensor([0]))
    assert again.prototypes.counts.tolist() == [2, 1, 2]


def test_uses_and_bad_values() -> None:
    (spec,) = bench_register_methods()
    assert spec.uses_of(NearestMeanConfig()) == frozenset()
    assert spec.uses_of(NearestMeanConfig(**spec.recipes["simplecil"])) == {"boundaries"}  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epochs: 3 passes make no better mean than one; use 1"):
        NearestMeanConfig(epochs=3)
    with pytest.raises(ValueError, match="augment: true would average augmented images"):
        NearestMeanConfig(augment=True)
