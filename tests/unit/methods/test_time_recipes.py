"""Recipes of test-time adaptation: each is whole, as the code that it names runs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods import eata, memo, tda
from benchmark.testing.by_hand import context_of
from benchmark.testing.toys import toy_scenario

STREAM = toy_scenario(family="tta", classes=3, train=2, test=1)


def made(plugin: Any, recipe: str, **options: Any) -> Any:
    (spec,) = plugin.bench_register_methods()
    config = spec.config(**{**spec.recipes[recipe], **options})
    return spec.build(config, context_of(spec, config, STREAM))


@pytest.mark.parametrize("recipe", ["alpha-bn", "imagenet"])
def test_the_first_step_of_memo_is_that_of_nesterov(recipe: str) -> None:
    """Both recipes are of one code base, whose SGD has momentum 0.9 and Nesterov: a first step of 1.9 gradients."""
    method = made(memo, recipe)
    assert method.config.alpha == 0.1
    moved = torch.nn.Parameter(torch.zeros(3))
    optimizer = method.stream_optimizer([moved])
    moved.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(moved.detach(), torch.full((3,), -1.9 * method.config.adapt_lr))


def test_tda_has_the_seven_texts_of_the_published_figure() -> None:
    method = made(tda, "imagenet", scale=0.0)
    method.names = ("cat", "dog", "bird")
    told: list[Tensor] = []
    for template in (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ):
        told.append(method.dual.class_features(method.names, [template]))
    wanted = torch.nn.functional.normalize(torch.stack(told).mean(dim=0), dim=1)
    torch.testing.assert_close(method.texts(), wanted)
    with pytest.raises(ValueError, match=r"templates: 'imagenet-8' must have one \{\}"):
        tda.TdaConfig(templates="imagenet-8")


def test_the_weight_of_the_fisher_matrix_goes_with_the_size_of_its_batches() -> None:
    """It is the square of the mean gradient of a batch; papers take the batches of the stream, 200 on CIFAR-10-C."""
    spec = eata.bench_register_methods()[1]
    found = {name: spec.config(**spec.recipes[name]) for name in ("official", "cifar")}
    assert {name: (one.fisher_alpha, one.fisher_batch) for name, one in found.items()} == {
        "official": (2000.0, 64),
        "cifar": (1.0, 200),
    }
