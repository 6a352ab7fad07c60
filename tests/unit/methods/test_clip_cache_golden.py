"""Tip-Adapter, Tip-Adapter-F and GDA against numbers recorded from their official code (``tests/golden/newer_clip``).

See the ``reference`` field of each json. ``pytest -s`` prints the deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import gda, tip_adapter, tip_adapter_f
from bench_methods._tip_adapter import steps
from benchmark.api import Batch
from benchmark.backbones.feature_cache import FeatureCache
from benchmark.errors import UsageError
from benchmark.testing.by_hand import place
from benchmark.testing.clip_methods import recorded_method
from benchmark.testing.recorded import Recorded

GOLDEN = Path(__file__).parents[2] / "golden" / "newer_clip"
(TIP,), (TIP_F,), (GDA,) = (module.bench_register_methods() for module in (tip_adapter, tip_adapter_f, gda))
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def batch(method: Any, images: Tensor, labels: Tensor, rows: Tensor, step: int = 0, *, each: int = 1) -> Batch:
    """Some images of a pass as the engine brings them: features, labels, positions."""
    return Batch(
        torch.empty(0, 3, 32, 32),
        labels[rows],
        features=method.encode(images[rows]),
        index=rows,
        place=place(step, each=each, epochs=len(method.passes())),
    )


def unit(method: Any, images: Tensor) -> Tensor:
    return F.normalize(method.encode(images), dim=1)


# --- Tip-Adapter ------------------------------------------------------------------------------------


def cached(spec: Any, case: Recorded, **more: Any) -> Any:
    """A method whose experience has the recorded images, before the first pass."""
    told = case.meta["config"]
    method: Any = recorded_method(
        spec,
        case,
        epochs=told["augment_epoch"],
        templates="|".join(told["templates"]),
        alpha=float(told["init_alpha"]),
        beta=float(told["init_beta"]),
        beta_end=float(told["search_scale"][0]),
        alpha_end=float(told["search_scale"][1]),
        beta_steps=told["search_step"][0],
        alpha_steps=told["search_step"][1],
        **more,
    )
    labels, trained = case.tensor("input.labels"), method.cache.keys.requires_grad
    method.cache = FeatureCache(method.dual.feature_width, trained=trained).to(case.dtype)
    method.fresh = method.cache.grow(labels)
    method.sums = method.cache.keys.new_zeros(method.cache.keys.shape)
    return method


@both
@pytest.mark.parametrize("name", ["two_shots_seven_templates", "imbalanced_beta55"])
def test_tip_adapter_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "tip_adapter", name, dtype)
    method = cached(TIP, case)
    views, labels = case.tensor("input.views"), case.tensor("input.labels")
    for view in views:  # in any order of images, two batches a pass
        for rows in torch.tensor_split(torch.arange(len(labels)).flip(0), 2):
            method.train_step(batch(method, view, labels, rows))
    method.fill()
    case.compare("clip_weights", method.texts(method.names).T)
    case.compare("cache_keys", method.cache.keys.T)
    case.compare("cache_values", method.columns(method.names)[method.cache.labels].to(dtype))
    tests, held = case.images("input.test_index"), case.images("input.val_index")
    case.compare("test_features", unit(method, tests))
    case.compare("val_features", unit(method, held))
    zero_shot, affinity = method.parts(method.encode(tests), method.names)
    votes = method.cache.votes(affinity, method.columns(method.names), sharpness=method.config.beta)
    for key, found in (("affinity", affinity), ("cache_logits", votes), ("clip_logits", zero_shot)):
        case.compare(key, found)
    case.compare("tip_logits", method.predict(tests))
    method.search(method.encode(held), case.tensor("input.val_labels"))
    case.compare("search.beta_alpha", torch.tensor(method.chosen, dtype=torch.float64))
    case.compare("tip_logits_searched", method.predict(tests))
    case.report()


@both
@pytest.mark.parametrize("name", ["two_shots_seven_templates", "imbalanced_beta55"])
def test_tip_adapter_f_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "tip_adapter", name, dtype)
    told, adam = case.meta["config"], case.meta["optimizer"]
    options = {"train_epochs": told["train_epoch"], "batch_size": told["batch_F"], "lr": adam["lr"]}
    method = cached(TIP_F, case, **options, eps=adam["eps"], weight_decay=adam["weight_decay"])
    method.optimizer = torch.optim.AdamW(
        [method.cache.keys], lr=adam["lr"], eps=adam["eps"], weight_decay=adam["weight_decay"]
    )
    views, labels = case.tensor("input.views"), case.tensor("input.labels")
    parts = torch.split(torch.arange(len(labels)), told["batch_F"])
    for number, view in enumerate(views):
        for step, rows in enumerate(parts):
            method.train_step(batch(method, view, labels, rows, number * len(parts) + step, each=len(parts)))
    losses, rates = [], []
    first = told["augment_epoch"] * len(parts)
    for step in range(told["train_epoch"] * len(parts)):
        some = batch(method, views[0], labels, parts[step % len(parts)], first + step, each=len(parts))
        if step == 0:
            method.fill()
            with torch.no_grad():
                case.compare("F.logits_step1", method.logits(some.features, method.names))
        losses.append(method.train_step(some)["loss"])
        rates.append(method.optimizer.param_groups[0]["lr"])
        if step == 0:
            case.compare("F.grad_step1", method.cache.keys.grad)
        if step in (0, 2):
            case.compare(f"F.weight_step{step + 1}", method.cache.keys)
    case.compare("F.loss", torch.stack(losses))
    case.compare("F.lr", torch.tensor(rates, dtype=torch.float64))
    case.compare("F.weight_last", method.cache.keys)
    with torch.no_grad():
        case.compare("F.test_logits_last", method.predict(case.images("input.test_index")))
    case.report()


def test_the_grid_of_the_search() -> None:
    assert steps(7.0, 200)[:2] == pytest.approx([0.1, 0.1345])
    assert steps(7.0, 200)[-1] < 7.0
    assert TIP_F.recipes["eurosat"]["train_epochs"] == 100
    assert TIP.recipes["imagenet"]["templates"] == "imagenet-7"


# --- GDA --------------------------------------------------------------------------------------------


def estimated(case: Recorded, estimator: str) -> Any:
    told = case.meta["config"]
    method: Any = recorded_method(
        GDA,
        case,
        epochs=told["augment_epoch"],
        templates="|".join(told["templates"]),
        estimator=estimator,
        **({"neighbours": told["k"], "repeats": told["repeats_of_text_weight"]} if told["k"] else {}),
    )
    labels = case.tensor("input.labels")
    for view in case.tensor("input.views"):
        for rows in torch.tensor_split(torch.arange(len(labels)).flip(0), 2):
            method.train_step(batch(method, view, labels, rows))
    return method


@both
@pytest.mark.parametrize("name", ["two_shots_three_views", "one_view_unbalanced"])
def test_gda_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "gda", name, dtype)
    method = estimated(case, "shrunk")
    # The official sums are of the run's precision: the smaller their eigenvalues, the less of it is left.
    limit = 1e-9 if dtype == torch.float64 else 1e-4
    tests, held = case.images("input.test_index"), case.images("input.val_index")
    case.compare("features", unit(method, case.tensor("input.views").flatten(0, 1)))
    case.compare("clip_weights", method.texts(method.names).T)
    case.compare("means", method.gaussians.means)
    case.compare("precision", method.precision(), limit=limit)
    weight, bias = method.weights()
    case.compare("W", weight.T, limit=limit)
    case.compare("b", bias, limit=limit)
    case.compare("val_features", unit(method, held))
    case.compare("test_features", unit(method, tests))
    method.search(method.encode(held), case.tensor("input.val_labels"))
    case.compare("search.alpha", torch.tensor(method.alpha, dtype=torch.float64))
    case.compare("test_logits", method.predict(tests), limit=limit)
    case.report()


@both
def test_gda_from_base_to_new_equals_the_official_code(dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "gda", "two_shots_three_views", dtype)
    method = estimated(case, "class-mean")
    limit = 1e-9 if dtype == torch.float64 else 1e-4
    tests, names = case.images("input.test_index"), tuple(case.meta["config"]["new_classnames"])
    case.compare("base.precision", method.precision(), limit=limit)
    method.search(method.encode(case.images("input.val_index")), case.tensor("input.val_labels"))
    case.compare("base.search.alpha", torch.tensor(method.alpha, dtype=torch.float64))
    case.compare("base.test_logits", method.predict(tests), limit=limit)
    case.compare("new.clip_weights", method.texts(names).T)
    means, precision, rows = method.unseen(method.texts(names))
    case.compare("new.means", means)
    case.compare("new.precision", precision, limit=limit)
    case.compare("new.W", rows[:, :-1].T, limit=limit)
    case.compare("new.b", rows[:, -1], limit=limit)
    case.compare("new.test_logits", method.predict_named(tests, names), limit=limit)
    mixed = method.predict_named(tests, (names[1], method.names[2]))
    torch.testing.assert_close(mixed[:, 1], method.predict(tests)[:, 2])
    case.report()


def test_new_classes_need_neighbours() -> None:
    case = Recorded(GOLDEN / "gda", "two_shots_three_views", torch.float64)
    method = recorded_method(GDA, case, estimator="class-mean", templates="a photo of a {}.")
    assert isinstance(method, gda.Gda)
    with pytest.raises(UsageError, match="a new class takes its 64 nearest training samples, and there are 0"):
        method.unseen(method.texts(("river",)))
