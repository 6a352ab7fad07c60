"""SLDA, FeCAM and ACIL against numbers recorded from their official code (``tests/golden/{slda,fecam,acil}``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import acil, fecam, slda
from benchmark.api import Method
from benchmark.testing.by_hand import context_of
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import tiny_backbone, toy_scenario

GOLDEN = Path(__file__).parents[2] / "golden"


def make(module: Any, width: int, **options: Any) -> Any:
    """The plugin's own class; its backbone is not used, features are given."""
    (spec,) = module.bench_register_methods()
    config = spec.config(**options)
    heads = 2 if width % 4 else 4
    backbone = tiny_backbone(embed_dim=width, num_heads=heads)
    method: Method = spec.build(config, context_of(spec, config, toy_scenario(experiences=1), backbone=backbone))
    return method.double()


def task(case: Recorded, number: int) -> tuple[Tensor, Tensor]:
    return case.tensor(f"input.task{number}.features"), case.tensor(f"input.task{number}.labels")


def padded(rows: Tensor, count: int) -> Tensor:
    """The official tables have rows for classes to come."""
    return F.pad(rows, (*(0, 0) * (rows.dim() - 1), 0, count - len(rows)))


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("name", ["base_init_stream", "from_scratch"])
def test_slda_equals_the_official_stream_of_single_images_whatever_the_batches(name: str, batch: int) -> None:
    case = Recorded(GOLDEN / "slda", name, torch.float64)
    config = case.meta["config"]
    method = make(slda, config["D"], shrinkage=config["shrinkage"], base_init=config["base_init"], unseen="zero")
    found, classes = method.discriminant, config["num_classes"]
    for number in range(config["tasks"]):
        features, labels = task(case, number)
        prefix = f"task{number}"
        if number == 0 and config["base_init"]:
            method.absorb(features, labels)
        else:
            method.absorb(features[:1], labels[:1])
            if f"f64.{prefix}.first_sample.Sigma" in case.arrays:
                case.compare(f"{prefix}.first_sample.Sigma", found.covariance)
                case.compare(f"{prefix}.first_sample.muK", padded(found.means, classes))
            for some, their in zip(torch.split(features[1:], batch), torch.split(labels[1:], batch), strict=True):
                method.absorb(some, their)
        method.settle()
        case.compare(f"{prefix}.muK", padded(found.means, classes))
        case.compare(f"{prefix}.cK", padded(found.counts.double(), classes))
        case.compare(f"{prefix}.Sigma", found.covariance)
        assert int(found.updates) == case.arrays[f"f64.{prefix}.num_updates"]
        case.compare(f"{prefix}.Lambda", found.precision)
        scores = F.pad(found(case.tensor("input.eval_features")), (0, classes - len(found.means)))
        case.compare(f"{prefix}.eval.scores", scores)
        case.compare(f"{prefix}.eval.probas", scores.softmax(1))
    case.report(str(batch))


def test_fecam_on_a_vit_equals_the_official_script() -> None:
    case = Recorded(GOLDEN / "fecam", "vit_class_incremental", torch.float64)
    config = case.meta["config"]
    method = make(fecam, config["D"], alpha1=config["alpha1"], alpha2=config["alpha2"])
    for number in range(config["tasks"]):
        method.fit(*task(case, number), (number + 1) * config["increment"])
        prefix = f"task{number}"
        case.compare(f"{prefix}.class_means", method.class_means.means)
        case.compare(f"{prefix}.shrunk_covs", method.covariances)
        case.compare(f"{prefix}.correlations", method.normalised())
        distances = method.distances(case.tensor("input.eval_features"))
        case.compare(f"{prefix}.eval.distances", distances)
        case.compare(f"{prefix}.eval.predictions", distances.argmin(1))
    case.report()


@pytest.mark.parametrize("name", ["tukey_per_class", "common_cov"])
def test_fecam_on_features_of_relus_equals_the_official_learner(name: str) -> None:
    case = Recorded(GOLDEN / "fecam", name, torch.float64)
    config = case.meta["config"]
    covariance = "class" if config["per_class"] else "common"
    options = {"alpha1": config["alpha1"], "alpha2": config["alpha2"], "power": config["beta"]}
    method = make(fecam, config["D"], variant="tukey", covariance=covariance, **options)
    for number in range(config["tasks"]):
        method.fit(*task(case, number), (number + 1) * config["increment"])
        prefix = f"task{number}"
        case.compare(f"{prefix}.class_means", method.class_means.means)
        if covariance == "class":
            case.compare(f"{prefix}.covs", method.covariances)
            case.compare(f"{prefix}.shrunk_covs", method._shrunk(method.covariances))
        else:
            case.compare(f"{prefix}.common_cov", method.covariances[0])
        if number:  # in the first task the official learner has other distances, to the weights of a classifier
            distances = method.distances(case.tensor("input.eval_features"))
            case.compare(f"{prefix}.eval.distances", distances)
            case.compare(f"{prefix}.eval.predictions", distances.argmin(1))
    case.report()


def test_fecam_of_pilot_correlates_the_rows_of_the_covariance() -> None:
    """Restated from the text with numpy; no official code ran."""
    method = make(fecam, 8, variant="pilot")
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 8, generator=generator).double(), torch.arange(30) % 2
    method.fit(features, labels, 2)
    unit = F.normalize(features, dim=1).numpy()
    for label in range(2):
        rows = features[labels == label].numpy()
        inverse = np.linalg.pinv(np.corrcoef(np.cov(rows.T) + 100 * np.eye(8)))
        centred = unit - rows.mean(0) / np.linalg.norm(rows.mean(0))
        np.testing.assert_allclose(method.distances(features)[:, label], ((centred @ inverse) * centred).sum(1))


def test_fecam_averages_the_covariances_of_a_class_that_comes_again() -> None:
    method, alone = make(fecam, 8), make(fecam, 8)
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(40) % 2
    method.fit(features[:20], labels[:20], 2)
    first = method.covariances.clone()
    method.fit(features[20:], labels[20:], 2)
    alone.fit(features[20:], labels[20:], 2)
    torch.testing.assert_close(method.covariances, (first + alone.covariances) / 2)
    unit = F.normalize(features, dim=1)
    torch.testing.assert_close(method.class_means.means[1], unit[labels == 1].mean(0))
    method.fit(features[:1], torch.tensor([3]), 4)  # one image, and none of class 2
    assert torch.equal(method.normalised()[3], torch.eye(8).double())
    assert method.precisions.shape == (4, 8, 8)


@pytest.mark.parametrize("name", ["class_incremental", "blurry_mini_batches", "air_reweighted"])
def test_acil_equals_the_official_recursion(name: str) -> None:
    case = Recorded(GOLDEN / "acil", name, torch.float64)
    config = case.meta["config"]
    weighting = "classes" if config.get("arm") else "samples"
    method = make(acil, config["D"], projection=config["M"], gamma=config["gamma"], weighting=weighting)
    ridge = method.ridge
    ridge.matrix.copy_(case.tensor("method.buffer.weight"))
    for number in range(config["tasks"]):
        features, labels = task(case, number)
        prefix = f"task{number}"
        batches = zip(torch.split(features, config["batch"]), torch.split(labels, config["batch"]), strict=True)
        for place, (some, their) in enumerate(batches):
            method.absorb(some, their)
            if place == 0 and f"f64.{prefix}.first_batch.R" in case.arrays:
                case.compare(f"{prefix}.first_batch.R", ridge.inverse)
                case.compare(f"{prefix}.first_batch.weight", ridge.weight)
        method.settle()
        if number == 0:
            case.compare(f"{prefix}.expanded_first4", ridge.hidden(features[:4]))
        case.compare(f"{prefix}.weight", ridge.weight)
        if weighting == "classes":
            case.compare(f"{prefix}.A", ridge.grams)
            case.compare(f"{prefix}.C", ridge.sums)
            case.compare(f"{prefix}.count", ridge.counts)
        else:
            case.compare(f"{prefix}.R", ridge.inverse)
        case.compare(f"{prefix}.eval.logits", ridge(case.tensor("input.eval_features")))
    case.report()
