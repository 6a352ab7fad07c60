"""Checks of methods that adapt to a stream of test batches; the others skip them.

They run on the toy stream of the family: three segments, the second with a reset before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmark.api import Samples, Scenario
from benchmark.families import FAMILIES
from benchmark.run import checkpoint
from benchmark.run.seeds import derive
from benchmark.scenario import Segment, TestStream
from benchmark.test_time import TestTimeMethod
from benchmark.testing import raw
from benchmark.testing.comparisons import close
from benchmark.testing.laboratory import MethodSubject, Outcome
from benchmark.testing.observation import CheckFailed, CheckSkipped, state_of


def _stream_of(subject: MethodSubject) -> tuple[Scenario, TestStream]:
    """The toy scenario and its stream.

    Raises:
        CheckSkipped: The method does not adapt to one.
    """
    if not FAMILIES[subject.family].adapts:
        raise CheckSkipped("it does not adapt to a stream of test batches")
    scenario = subject.scenario()
    if scenario.test_stream is None:
        raise CheckFailed("the toy scenario has no stream")
    return scenario, scenario.test_stream


def _with(scenario: Scenario, segments: Sequence[Segment], batch_size: int) -> Scenario:
    return dataclasses.replace(scenario, test_stream=TestStream(segments=tuple(segments), batch_size=batch_size))


def _answers(run: Outcome, stream: TestStream) -> Tensor:
    """Logits of the stream in its order, ``(N, C)``."""
    if run.predictions.logits is None:
        raise CheckFailed("the run kept no logits")
    return torch.from_numpy(run.predictions.logits[: sum(len(part.images) for part in stream.segments)].copy())


def causal(subject: MethodSubject) -> None:
    """Stream: an answer does not depend on later batches, bit for bit; nor on hidden labels."""
    scenario, stream = _stream_of(subject)
    first, second, last = stream.segments
    kept = stream.batch_size  # the first batch of the second segment
    half = torch.arange(len(second.images)) < kept
    noisy = raw.altered(second.images.subset((~half).nonzero().flatten()))
    mixed = Samples.concat([second.images.subset(half.nonzero().flatten()), noisy])
    changed = [
        dataclasses.replace(first, images=raw.other_answers(first.images)),
        dataclasses.replace(second, images=raw.other_answers(mixed)),
        dataclasses.replace(last, images=raw.altered(last.images)),
    ]
    other = subject.run(_with(scenario, changed, stream.batch_size))
    count = len(first.images) + kept
    one, two = (_answers(run, stream)[:count] for run in (subject.baseline, other))
    if not torch.equal(one, two):
        raise CheckFailed(
            "with other batches to come, and other hidden labels, answers differ",
            hint="`adapt` may use the batches so far, and no label",
        )


def reset(subject: MethodSubject) -> None:
    """Stream: after `reset_stream` the first batch is answered as at the beginning, bit for bit, again and again."""
    _, stream = _stream_of(subject)
    run = subject.baseline
    method = run.method
    if not isinstance(method, TestTimeMethod):
        raise CheckFailed("its MethodSpec says `adapts`, but it is no TestTimeMethod")
    images = [
        run.prepared.pipeline.eval(
            stream.segments[0].images.read(slice(start, start + stream.batch_size)), run.prepared.device
        )
        for start in (0, stream.batch_size)
    ]
    seed = derive(run.prepared.plan.seeds["init"], "stream", 0, 0)
    random, grad = checkpoint.random_state(), torch.is_grad_enabled()
    expected = _answers(run, stream)[: stream.batch_size]
    state = checkpoint.snapshot(method)
    kept = {name: tensor.clone() for name, tensor in state_of(method).items()}
    try:
        torch.set_grad_enabled(True)
        for turn in ("once", "twice"):
            method.reset_stream()
            checkpoint.seed_everything(seed)
            method.stepper.part()
            found = method.adapt(images[0]).detach()
            if not torch.equal(found, expected):
                raise CheckFailed(
                    f"reset {turn}, it answers the first batch otherwise than at the beginning of the stream",
                    hint="`reset_stream` puts back parameters, statistics, averages, caches and a new optimiser",
                )
            method.stepper.part()
            method.adapt(images[1])
    finally:
        torch.set_grad_enabled(grad)
        checkpoint.set_random_state(random)
        _put_back(method, state, kept)


def _put_back(method: TestTimeMethod, state: dict[str, object], kept: dict[str, Tensor]) -> None:
    """The method as it was: other checks look at it, too."""
    with torch.no_grad():
        for name, tensor in method.state_dict(keep_vars=True).items():
            if name in kept:
                tensor.copy_(kept[name])
        for name, tensor in method.context.pretrained.module.state_dict(keep_vars=True).items():
            tensor.copy_(kept[f"backbone.{name}"])
    optimizer = state["optimizer"]
    if method.optimizer is not None and isinstance(optimizer, dict):
        method.optimizer.load_state_dict(optimizer)
    extra = state["extra"]
    if isinstance(extra, dict):
        method.load_extra_state(extra)


def declared(subject: MethodSubject) -> None:
    """Stream: without `test_stream` the order of batches does not matter, without `test_batch` their size neither."""
    scenario, stream = _stream_of(subject)
    if "test_stream" in subject.uses:
        raise CheckSkipped("it declares `test_stream`")
    size = stream.batch_size if "test_batch" in subject.uses else 1
    other = subject.run(_with(scenario, stream.segments[::-1], size))
    lengths = [len(part.images) for part in stream.segments]
    turned = torch.cat(_answers(other, stream).split(lengths[::-1])[::-1])
    close(
        turned,
        _answers(subject.baseline, stream),
        f"with segments in another order and batches of {size}, answers differ",
        "declare `test_stream` or `test_batch`, or let an answer depend on its image alone; "
        "draw random numbers from the image",
    )


def small(subject: MethodSubject) -> None:
    """Stream: a last batch of one image is answered, and leaves no NaN behind."""
    scenario, stream = _stream_of(subject)
    segments = stream.segments[:2]
    run = subject.run(_with(scenario, segments, len(segments[0].images) - 1))
    for name, tensor in state_of(run.method).items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckFailed(f"after a batch of one image `{name}` is not finite")


def frozen(subject: MethodSubject) -> None:
    """Stream: what does not adapt is bit for bit as training has left it."""
    _stream_of(subject)
    method, before = subject.baseline.method, subject.baseline.watcher.sights[-1].state
    named = {f"backbone.{name}": p for name, p in method.context.pretrained.module.named_parameters()}
    for name, parameter in {**dict(method.named_parameters()), **named}.items():
        if not parameter.requires_grad and name in before and not torch.equal(parameter, before[name]):
            raise CheckFailed(f"`{name}` asks for no gradient, but changed in the stream", hint="let it ask for one")


CHECKS: dict[str, Callable[[MethodSubject], None]] = {
    "stream-causal": causal,
    "stream-reset": reset,
    "stream-declared": declared,
    "stream-small": small,
    "stream-frozen": frozen,
}
