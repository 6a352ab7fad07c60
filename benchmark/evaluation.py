"""Evaluation: predictions of one state of a method on the test sets that may be shown to it.

The firewall of the test side is here. Images are shown without labels, ids or experience; logits are
cut to the classes seen; and unless a method declares ``test_batch``, a few images are predicted once
more, alone, and must come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.api import ImageSet, Method
from benchmark.errors import PluginError, RunFailed
from benchmark.transforms import InputPipeline

PROBES = 4
PROBE_TOLERANCE = 1e-3  # batched and single matrix products differ by about 1e-5; a leak by far more


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions on several test sets, in the order of the test sets.

    Attributes:
        test_set: Index of the test set, ``(N,)``.
        sample_id: Ids of the samples, ``(N,)``.
        label: True labels, ``(N,)``.
        prediction: Predicted labels, ``(N,)``.
        top5: The five best labels (fewer when there are fewer classes), ``(N, 5)``.
        confidence: Softmax probability of the prediction among the allowed classes, ``(N,)``.
        logits: ``(N, K)``, or None.
    """

    test_set: Tensor
    sample_id: Tensor
    label: Tensor
    prediction: Tensor
    top5: Tensor
    confidence: Tensor
    logits: Tensor | None


def evaluate(
    method: Method,
    tests: Sequence[tuple[int, ImageSet]],
    *,
    pipeline: InputPipeline,
    seen: int,
    open_head: bool,
    per_image: bool,
    batch_size: int,
    order: str,
    seed: int,
    device: torch.device,
    keep_logits: bool = False,
    name: str = "method",
) -> Predictions:
    """Predicts every image of the test sets once.

    Args:
        method: The learner; must not be changed by evaluation.
        tests: Pairs of (index, test set).
        pipeline: Input transform.
        seen: Number of classes seen; the logits may have this many columns.
        open_head: Whether logits of unseen classes are allowed (``num_classes`` declared).
        per_image: Whether a prediction must depend on its image alone (``test_batch`` not declared).
        batch_size: Images per forward pass.
        order: ``shuffled`` or ``natural``.
        seed: Of the shuffle.
        device: Where to compute.
        keep_logits: Whether to return the logits.
        name: Name of the method for messages.

    Raises:
        PluginError: Logits of a wrong shape, a prediction that depends on its batch, or a state
            that evaluation has changed.
        RunFailed: Logits that are not finite.
    """
    joined = ImageSet.concat([test for _, test in tests])
    test_set = torch.cat([torch.full((len(test),), index) for index, test in tests])
    count = len(joined)
    if order == "shuffled":
        places = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    else:
        places = torch.arange(count)
    versions = _versions(method)
    was_training = method.training
    method.eval()
    logits: Tensor | None = None
    with torch.no_grad():
        for start in range(0, count, batch_size):
            part = places[start : start + batch_size]
            scores = _predict(method, joined.images(part), pipeline, device, seen, open_head, name)
            if logits is None:
                logits = torch.empty(count, scores.shape[1])
            logits[part] = scores
        if logits is None:
            raise RunFailed(f"{name}: there is no test image to evaluate")
        if per_image:
            _probe(method, joined, logits, places, pipeline, device, seen, open_head, name)
    method.train(was_training)
    if _versions(method) != versions:
        raise PluginError(
            f"method `{name}` changes its parameters or buffers in `predict`",
            hint="evaluation must leave the state as it is; compute without in-place updates",
        )
    if not torch.isfinite(logits).any(dim=1).all() or torch.isnan(logits).any():
        raise RunFailed(f"method `{name}`: logits are not finite at evaluation", hint="lower the learning rate")
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return Predictions(
        test_set=test_set,
        sample_id=joined.ids,
        label=joined.labels,
        prediction=logits.argmax(dim=1),
        top5=top,
        confidence=logits.softmax(dim=1).amax(dim=1),
        logits=logits if keep_logits else None,
    )


def _predict(
    method: Method, raw: Tensor, pipeline: InputPipeline, device: torch.device, seen: int, open_head: bool, name: str
) -> Tensor:
    images = pipeline.eval(raw.to(device))
    scores = method.predict(images)
    if scores.ndim != 2 or len(scores) != len(raw):
        raise PluginError(
            f"method `{name}`: `predict` returned shape {tuple(scores.shape)} for {len(raw)} images",
            hint=f"return logits of shape ({len(raw)}, {seen})",
        )
    if scores.shape[1] < seen or (scores.shape[1] > seen and not open_head):
        raise PluginError(
            f"method `{name}`: `predict` returned {scores.shape[1]} columns, but {seen} classes were seen",
            hint="cut the logits to the classes seen"
            if scores.shape[1] > seen
            else "grow the head in `begin_experience`",
        )
    return scores.detach().to("cpu", torch.float32)


def _probe(
    method: Method,
    joined: ImageSet,
    logits: Tensor,
    places: Tensor,
    pipeline: InputPipeline,
    device: torch.device,
    seen: int,
    open_head: bool,
    name: str,
) -> None:
    """Predicts a few images alone and compares with their logits in the batch."""
    for place in places[:: max(1, len(places) // PROBES)][:PROBES].tolist():
        alone = _predict(method, joined.images(torch.tensor([place])), pipeline, device, seen, open_head, name)[0]
        batched = logits[place]
        finite = torch.isfinite(batched)
        gap = (alone[finite] - batched[finite]).abs().max()
        if not torch.equal(finite, torch.isfinite(alone)) or gap > PROBE_TOLERANCE * batched[finite].abs().max().clamp(
            min=1
        ):
            raise PluginError(
                f"method `{name}`: the prediction of an image depends on the other images of its batch "
                f"(logits differ by {gap:.2g})",
                hint="predict per image, or declare `test_batch` and be marked as leaking in tables",
            )


def _versions(method: Method) -> list[tuple[int, int]]:
    """Identity and in-place-change counter of every parameter and buffer."""
    tensors = [*method.parameters(), *method.buffers(), *method.context.backbone.pretrained.parameters()]
    return [(id(tensor), tensor._version) for tensor in tensors]
