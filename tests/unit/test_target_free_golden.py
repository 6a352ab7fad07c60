"""Scores of models without target labels: equal to the authors' code on recorded numbers, and guarded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from benchmark.backbones.logistic import fit_logistic
from benchmark.metrics.single import mean_class_acc, open_set
from benchmark.run import target_free
from benchmark.testing.recorded import Recorded

GOLDEN = Path(__file__).parents[1] / "golden" / "adaptation"


def recorded(method: str, name: str) -> Recorded:
    return Recorded(GOLDEN / method, name, torch.float64)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_entropy() -> None:
    case = recorded("select_entropy", "entropy")
    # skada adds 1e-7 inside the logarithm.
    case.compare("mean_per_image", number(target_free.entropy(case.arrays["input.target_logits"])), limit=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_soft_neighborhood_density(temperature: float) -> None:
    case = recorded("select_snd", "snd")
    found = number(target_free.soft_neighborhood_density(case.arrays["input.target_logits"], temperature))
    case.compare(f"snd_T{temperature}", found, limit=1e-9)
    if temperature == 0.05:  # 1e-5 inside the logarithm there
        case.compare(f"snd_official_T{temperature}", found, limit=1e-3)


@pytest.mark.parametrize("scale", ["0.3", "3.0", "12.0"])
def test_matrix_norm_equals_the_authors(scale: str) -> None:
    case = recorded("select_mano", "mano")
    logits = case.arrays["input.target_logits"] * float(scale)
    case.compare(f"criterion_x{scale}", number(target_free.mean_loss(logits)), limit=1e-6)
    assert (target_free.mean_loss(logits) <= target_free.TAYLOR) == bool(case.arrays[f"f64.taylor_x{scale}"])
    case.compare(f"official_x{scale}", number(target_free.matrix_norm(logits)), limit=1e-6)  # theirs is float32


def test_deep_embedded_validation_equals_the_authors() -> None:
    case = recorded("select_dev", "dev")
    features, labels = case.arrays["input.features"], case.arrays["input.labels"]
    train, held = case.arrays["input.train_index"], case.arrays["input.validation_index"]
    count = case.meta["config"]["source"]
    rows = np.concatenate([features[train], features[count:]])
    domains = torch.tensor([1] * len(train) + [0] * (len(features) - count))  # source 1, target 0
    fitted = fit_logistic(torch.from_numpy(rows), domains, (0, 1), strength=1.0)
    asked = torch.from_numpy(features[held])
    shares = (asked @ fitted.weight.T + fitted.bias).softmax(dim=1)
    case.compare("domain_probability", shares, limit=1e-3)  # scikit-learn stops earlier
    weights = target_free.classifier_weights(
        case.arrays["f64.domain_probability"][:, 0], len(train), len(rows) - len(train)
    )
    case.compare("weights", torch.from_numpy(weights.values[:, None]), limit=1e-9)
    logits = torch.from_numpy(case.arrays["input.logits"][held])
    truth = torch.from_numpy(labels[held])
    errors = {
        "zero_one": (logits.argmax(dim=1) != truth).double(),
        "cross_entropy": torch.nn.functional.cross_entropy(logits, truth, reduction="none"),
    }
    for name, values in errors.items():
        case.compare(f"error_{name}", values[:, None], limit=1e-6)
        risk = target_free.deep_embedded_risk(values.numpy(), weights)
        case.compare(f"official_risk_{name}", number(risk), limit=1e-6)
    assert abs(risk - float(case.arrays["f64.skada_score"])) > 1  # what skada returns is another number


def test_weights_that_do_not_vary_are_no_division_by_zero() -> None:
    equal = target_free.Weights(np.full(5, 2.0))
    assert target_free.deep_embedded_risk([0, 1, 0, 1, 1], equal) == pytest.approx(1.2)
    certain = target_free.classifier_weights([0.0, 1.0], 10, 10)
    assert np.isfinite(certain.values).all()
    assert certain.effective == pytest.approx(1.0)


def test_importance_weighting() -> None:
    case = recorded("select_iwv", "iwv")
    source, target = case.arrays["input.source"], case.arrays["input.target"]
    for name, points in (("source", source), ("target", target)):
        found = target_free.log_density(points, source)
        case.compare(f"log_density_{name}", torch.from_numpy(found), limit=1e-9)
    weights = target_free.density_weights(target, source, source)
    case.compare("weights", torch.from_numpy(weights.values), limit=1e-9)
    wrong = case.arrays["input.source_predictions"] != case.arrays["input.source_labels"]
    case.compare("score", number(1 - target_free.importance_weighted(wrong, weights)), limit=1e-9)


@pytest.mark.parametrize(("share", "names"), [(0.55, ("intra", "inter")), (0.3, ())])
def test_mixing_consistency(share: float, names: tuple[str, ...]) -> None:
    case = recorded("select_mixval", "mixval")
    target, order = case.arrays["input.target"], case.arrays["input.permutation"]

    def predicted(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = (rows @ case.arrays["method.coef"].T + case.arrays["method.intercept"]).argmax(axis=1)
        return found

    own = predicted(target)
    assert np.array_equal(own, case.arrays["input.target_predictions"])
    mixed = predicted(share * target + (1 - share) * target[order])
    # Below a half the partner prevails.
    scores = target_free.mixing_consistency(own, order, mixed) if share > 0.5 else None
    if scores is None:
        back = np.argsort(order)
        scores = target_free.mixing_consistency(own, back, mixed[back])
        case.compare("both_alpha0.3", number(sum(scores) / 2))
        return
    case.compare("both", number(sum(scores) / 2))
    for name, score in zip(names, scores, strict=True):
        case.compare(name, number(score))


def test_pairs_that_do_not_occur_have_no_score() -> None:
    within, between = target_free.mixing_consistency([1, 1], [1, 0], [1, 1])
    assert within == 1.0
    assert np.isnan(between)


def test_circular_validation_is_the_mean_recall_of_the_backward_model() -> None:
    case = recorded("select_circular", "circular")
    found = mean_class_acc(case.arrays["input.source_labels"], case.arrays["f64.backward_predictions"])
    case.compare("score", number(found))
    fitted = fit_logistic(
        torch.from_numpy(case.arrays["input.target"]),
        torch.from_numpy(case.arrays["input.target_predictions"]),
        sorted(set(case.arrays["input.target_predictions"].tolist())),
        strength=1.0,
    )
    classes = np.array(sorted(set(case.arrays["input.target_predictions"].tolist())))
    logits = torch.from_numpy(case.arrays["input.source"]) @ fitted.weight.T + fitted.bias
    assert np.array_equal(classes[logits.argmax(dim=1).numpy()], case.arrays["f64.backward_predictions"])


def test_a_collapsed_model_has_the_best_scores_and_is_recognised() -> None:
    generator = np.random.default_rng(0)
    good = generator.normal(size=(40, 4)) * 3
    bad = good.copy()
    bad[:, 0] += 60.0
    assert target_free.entropy(bad) < target_free.entropy(good)
    assert target_free.soft_neighborhood_density(bad) > target_free.soft_neighborhood_density(good)
    assert_allclose(target_free.soft_neighborhood_density(bad), np.log(39), atol=1e-6)
    assert target_free.collapsed(bad)
    assert not target_free.collapsed(good)


def test_open_set_metrics_equal_the_official_confusion_matrix() -> None:
    case = recorded("uda_metrics", "confusion")
    labels, predictions = case.arrays["input.labels"], case.arrays["input.predictions"]
    found = open_set(labels, predictions)
    for theirs, ours in (("known", "known_acc"), ("unknown", "unknown_acc"), ("h_score", "h_score")):
        case.compare(theirs, number(100 * found[ours]), limit=1e-4)  # the authors' matrix is float32
    case.compare("mean_per_class", number(mean_class_acc(labels, predictions)), limit=1e-4)
    present = labels != 2  # a class without images is left out of the mean; it is NaN there
    left = [float((predictions[labels == one] == one).mean()) for one in sorted(set(labels[present].tolist()))]
    assert mean_class_acc(labels[present], predictions[present]) == pytest.approx(np.mean(left))
