"""TPT and TDA against numbers recorded from azshue/TPT at 63ecbace and kdiAAA/TDA at e697fb0c.

The dual encoder is ``tiny_a`` of ``tests/golden/newer_clip``; views are rolls of an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench_methods import tda, tpt
from benchmark.testing.clip_methods import recorded_method
from benchmark.testing.recorded import Recorded

GOLDEN = Path(__file__).parents[2] / "golden" / "newer_clip"
(TPT,), (TDA,) = (module.bench_register_methods() for module in (tpt, tda))
both = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def rolls(image: Tensor, count: int) -> Tensor:
    """View v is the image, rolled by 3 v rows and -2 v columns."""
    return torch.stack([image.roll((3 * number, -2 * number), dims=(-2, -1)) for number in range(count)])


@both
@pytest.mark.parametrize("name", ["words_one_step", "random_three_steps"])
def test_tpt_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "tpt", name, dtype)
    told: dict[str, Any] = case.meta["config"]
    options = {"views": told["views"], "share": told["p"], "steps": told["steps"], "lr": told["lr"]}
    words = (told["ctx_init"] or "").replace("_", " ")
    method = recorded_method(TPT, case, names="names", words=words, vectors=told["n_ctx"], **options)
    assert isinstance(method, tpt.Tpt)
    if words:
        torch.testing.assert_close(method.start, case.tensor("method.ctx"), atol=0, rtol=0)
    method.start.copy_(case.tensor("method.ctx"))
    method.view = rolls  # type: ignore[method-assign]
    method.begin_stream()
    losses, gradients, contexts = list[Tensor](), list[Tensor](), list[Tensor]()
    descend, put_back = method.descend, method.reset_stream

    def noting(loss: Tensor, **how: Any) -> None:
        losses.append(loss.detach())
        descend(loss, **how)
        if len(losses) % told["steps"] == 1 % told["steps"]:
            assert method.ctx.grad is not None
            gradients.append(method.ctx.grad.clone())

    def reset() -> None:
        contexts.append(method.ctx.detach().clone())
        put_back()

    method.descend, method.reset_stream = noting, reset  # type: ignore[method-assign,assignment]
    images = case.images("input.stream")
    with torch.no_grad():
        start = method.texts().features(method.start)
        before = [method.dual.logits(method.dual.image_features(rolls(one, told["views"])), start) for one in images]
    case.compare("logits_before", torch.stack(before))
    case.compare("logits_after", method.adapt(images))
    case.compare("loss", torch.stack(losses).view(len(images), told["steps"]))
    case.compare("grad_step1.ctx", torch.stack(gradients))
    case.compare("ctx_after", torch.stack(contexts))
    case.report()


@both
@pytest.mark.parametrize("name", ["one_view", "twenty_views"])
def test_tda_equals_the_official_code(name: str, dtype: torch.dtype) -> None:
    case = Recorded(GOLDEN / "tda", name, dtype)
    told: dict[str, Any] = case.meta["config"]
    positive, negative = told["positive"], told["negative"]
    method = recorded_method(
        TDA,
        case,
        templates="|".join(told["templates"]),
        scale=float(told["logit_scale"]),
        views=told["views"],
        positive=positive["shot_capacity"],
        alpha=positive["alpha"],
        beta=positive["beta"],
        negative=negative["shot_capacity"],
        lower=negative["entropy_threshold"]["lower"],
        upper=negative["entropy_threshold"]["upper"],
    )
    assert isinstance(method, tda.Tda)
    method.view = rolls  # type: ignore[method-assign]
    method.begin_stream()
    case.compare("clip_weights", method.texts().T)
    images = case.images("input.stream_index")
    with torch.no_grad():
        seen = [method.seen(one) for one in images]
    limit = {torch.float64: 1e-9, torch.float32: 2e-5}[dtype]  # logits of scale 100
    case.compare("features", torch.stack([entry.feature for entry, _ in seen]))
    case.compare("clip_logits", torch.stack([logits for _, logits in seen]), limit=limit)
    case.compare("prob_map", torch.stack([entry.shares for entry, _ in seen]), limit=limit)
    case.compare("entropy", torch.tensor([entry.entropy for entry, _ in seen], dtype=dtype), limit=limit)
    case.compare("final_logits", method.adapt(images), limit=limit)
    for cache, which in ((method.positive, "pos_cache"), (method.negative, "neg_cache")):
        entries, labels = tda._entries(cache)
        assert labels == case.arrays[f"out.{which}.labels"].tolist()
        case.compare(f"{which}.keys", torch.stack([entry.feature for entry in entries]))
    case.report()
