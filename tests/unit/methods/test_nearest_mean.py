"""Nearest class mean against LAMDA-PILOT 5240714 and RanPAC 012927f (``tests/golden/simplecil``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench_methods.nearest_mean import NearestMean, NearestMeanConfig, bench_register_methods
from benchmark.api import Batch
from benchmark.backbones.backbone import Backbone
from benchmark.testing.by_hand import backbone_of, context_of, view_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import tiny_backbone, toy_scenario

(SPEC,) = bench_register_methods()
GOLDEN = Path(__file__).parents[2] / "golden" / "simplecil"


def make(backbone: Backbone, **changes: Any) -> NearestMean:
    config = NearestMeanConfig(**changes)
    scenario = toy_scenario(experiences=2, classes=2, train=1, test=1)
    return NearestMean(config, context_of(SPEC, config, scenario, backbone=backbone))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [100, 3])
def test_two_tasks_equal_simplecil_whatever_the_batch_size(dtype: torch.dtype, size: int) -> None:
    case = Recorded(GOLDEN, "two_tasks", dtype)
    method = make(backbone_of(case.vit())).to(dtype)
    method.prototypes.sums = method.prototypes.sums.double()  # the sums stay float64 in a float32 model
    tests = case.tensor("input.eval_images")
    for task in range(2):
        images, labels = case.tensor(f"input.task{task}.images"), case.tensor(f"input.task{task}.labels")
        method.train()
        for start in range(0, len(images), size):
            method.train_step(Batch(images[start : start + size], labels[start : start + size]))
        method.eval()
        with torch.no_grad():
            logits = method.predict(tests)
        case.compare(f"task{task}.prototypes", method.prototypes.means)
        case.compare(f"task{task}.eval.logits", logits)
        case.compare(f"task{task}.eval.predictions", logits.argmax(1))


def test_given_features_equal_ranpac_class_incremental() -> None:
    case = Recorded(GOLDEN, "ncm_ranpac_cil_dil", torch.float64)
    method = make(tiny_backbone(embed_dim=16))
    for task in range(2):
        features = case.tensor(f"input.task{task}.features")
        method.prototypes.add(features, case.tensor(f"input.task{task}.labels"))
        case.compare(f"cil.task{task}.prototypes", method.prototypes.means)
        tests = case.tensor("input.eval_features")
        case.compare(f"cil.task{task}.eval.logits", method.prototypes(tests))


def test_given_features_equal_ranpac_domain_incremental() -> None:
    case = Recorded(GOLDEN, "ncm_ranpac_cil_dil", torch.float64)
    method = make(tiny_backbone(embed_dim=16))
    for domain in range(2):
        features = case.tensor(f"input.domain{domain}.features")
        method.prototypes.add(features, case.tensor(f"input.domain{domain}.labels"))
        case.compare(f"dil.domain{domain}.sums", method.prototypes.sums)
        tests = case.tensor("input.eval_features")
        case.compare(f"dil.domain{domain}.eval.logits", method.prototypes(tests))


def test_overwriting_starts_returning_classes_anew() -> None:
    scenario = toy_scenario(experiences=2, classes=2, train=1, test=1, family="domain-il")
    spread, kept = torch.randn(6, 32), torch.tensor([0, 0, 0, 1, 1, 1])
    for rule in ("merge", "overwrite"):
        method = make(tiny_backbone(), reappearing=rule)
        for index in range(2):
            method.begin_experience(view_of(method, scenario, index))
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
    assert SPEC.uses_of(NearestMeanConfig()) == frozenset()
    assert SPEC.uses_of(NearestMeanConfig(**SPEC.recipes["simplecil"])) == {"boundaries"}  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epochs: 3 passes make no better mean than one; use 1"):
        NearestMeanConfig(epochs=3)
    with pytest.raises(ValueError, match="augment: true would average augmented images"):
        NearestMeanConfig(augment=True)
