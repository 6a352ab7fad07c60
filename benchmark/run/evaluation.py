"""Evaluation: predictions of one state of a method on the test sets that may be shown to it.

The firewall of the test side is here. Samples are shown without labels, ids or experience; logits are
cut to the classes seen, or to the names that the test set is classified among; and
unless a method declares ``test_batch``, a few samples are predicted once more, alone, and must come out
the same. Where classes come with experiences, the best label among those of the sample's experience is told apart; the
method learns of that experience in task-incremental runs only, and only if it declares ``task_id``. Where texts are
generated, `benchmark.run.generation` asks for them instead. Where test images may be of unknown classes, logits may
have one column more, the answer ``unknown``; for methods that give none `benchmark.run.unknown` tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmark.api import Method, Samples
from benchmark.choices import Chooses
from benchmark.errors import PluginError, RunFailed
from benchmark.guard import Guard
from benchmark.inputs.pipeline import Inputs
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.run import generation, unknown
from benchmark.run.keeper import Keeper, handing
from benchmark.run.rules import Rules
from benchmark.run.streams import Task

PROBES = 4
# Batched and single matrix products differ by about 1e-5, in half precision by a few of its steps; a leak by far more.
PROBE_TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 0.1}


@dataclass(frozen=True)
class Vocabulary:
    """The names that a test set is classified among, which the method is told with each batch.

    Attributes:
        labels: Their labels; column k of the logits is ``labels[k]``.
        names: Their names.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]


def evaluate(
    method: Method,
    tests: Sequence[tuple[int, Samples]],
    rules: Rules,
    *,
    experience: int,
    seen: int,
    vocabularies: Mapping[int, Vocabulary] | None = None,
    tasks: Mapping[int, Task] | None = None,
    strange: unknown.Unknown | None = None,
    guard: Guard | None = None,
    keeper: Keeper | None = None,
    again: bool = True,
) -> Predictions:
    """Predicts every sample of the test sets once.

    Args:
        method: The learner; must not be changed by evaluation.
        tests: Pairs of (index, test set).
        rules: Of the run.
        experience: Training experience after which this is.
        seen: Number of classes seen; the logits may have this many columns.
        vocabularies: For test sets that are classified among names; by index.
        tasks: For test sets that belong to one experience of a stream whose classes grow; by index.
        strange: The label of unknown classes, where there are some.
        guard: Stands around its functions; default: one that knows its name.
        keeper: Knows features of frozen networks; default: nobody does.
        again: Whether some of the test sets are evaluated once more in this run.

    Raises:
        PluginError: An exception out of the method, logits of a wrong kind or shape, a prediction that depends
            on its batch, or a state that evaluation has changed.
        RunFailed: Logits that are not finite.
    """
    named = vocabularies or {}
    guard = guard or Guard(f"method `{rules.name}`")
    versions = _versions(method)
    was_training = method.training
    with guard("train"):
        method.eval()
    parts = []
    if keeper is not None:
        keeper.look_again()
    with torch.no_grad():
        if rules.generates and tests:
            written = generation.generate(method, tests, rules, experience=experience, guard=guard)
            none = np.empty((len(written), 0), dtype=np.int32) if rules.keep_choices else None
            parts.append(replace(written, choices=none))
        for group in [] if rules.generates else _groups(tests, named, one_by_one=rules.told_task):
            first = group[0][0]
            task = tasks.get(first) if tasks and rules.told_task else None
            judge = _Judge(method, guard, rules, seen, named.get(first), task, strange, keeper, again)
            parts.append(_predict_group(judge, group, tasks or {}, experience))
    with guard("train"):
        method.train(was_training)
    if _versions(method) != versions:
        raise PluginError(
            f"method `{rules.name}` changes its parameters or buffers in `{rules.asked}`",
            hint="evaluation must leave the state as it is; compute without in-place updates",
        )
    if not parts:
        raise RunFailed(f"{rules.name}: there is no test sample to evaluate")
    return predictions.concat(parts)


def _groups(
    tests: Sequence[tuple[int, Samples]], named: Mapping[int, Vocabulary], *, one_by_one: bool
) -> list[list[tuple[int, Samples]]]:
    """Test sets predicted together: those of the classes seen (unless the task is told), those of a vocabulary."""
    groups = []
    for vocabulary in [None, *named.values()]:
        group = [(index, test) for index, test in tests if named.get(index) is vocabulary]
        groups += [[one] for one in group] if one_by_one else [group]
    return [group for group in groups if group]


@dataclass(frozen=True)
class _Judge:
    """Asks a method for logits and checks what they are."""

    method: Method
    guard: Guard
    rules: Rules
    seen: int
    vocabulary: Vocabulary | None
    task: Task | None
    strange: unknown.Unknown | None = None
    keeper: Keeper | None = None
    again: bool = True

    @property
    def name(self) -> str:
        """Of the method."""
        return self.rules.name

    def __call__(self, inputs: Inputs, places: Tensor) -> Tensor:
        """Logits ``(B, K)``, float32 on the CPU, for the samples at B places of a set, as they are read."""
        seen, more = self.seen, self.rules.open_head
        what = "predict" if self.task is None else "predict_task"
        what = what if self.vocabulary is None else "predict_named"
        with self.guard(what), self.rules.computing.forward():
            if self.vocabulary is None and self.task is not None:
                scores = self.method.predict_task(inputs, self.task.index)
            elif self.vocabulary is None:
                scores = self.method.predict(inputs)
            else:
                seen, more = len(self.vocabulary.names), False
                scores = self.method.predict_named(inputs, self.vocabulary.names)
        most = seen if self.vocabulary is not None or self.strange is None else self.strange.label + 1
        scores = shaped(
            scores,
            len(places),
            self.guard,
            what,
            name=self.name,
            least=seen,
            most=None if more else most,
            known="were seen" if self.vocabulary is None else "were named",
        )
        return finite(scores, what, name=self.name)

    def chosen(self, inputs: Inputs) -> Tensor:
        """Which parts `Method.predict` uses for B samples, ``(B, k)`` on the CPU; k is 0 where the method cannot tell.

        Raises:
            PluginError: It tells something else.
        """
        nothing = torch.zeros(len(inputs), 0, dtype=torch.int64)
        if not isinstance(self.method, Chooses) or self.vocabulary is not None or self.task is not None:
            return nothing  # of other functions than `predict` nothing is told
        with self.guard("chosen_parts"), self.rules.computing.forward():
            found = self.method.chosen_parts(inputs)
        if found is None:
            return nothing
        whole = isinstance(found, Tensor) and not (found.is_floating_point() or found.is_complex())
        if not whole or found.ndim != 2 or len(found) != len(inputs) or bool((found < 0).any()):
            raise self.guard.refuse(
                "chosen_parts",
                found,
                hint=f"return numbers from 0, an int64 tensor of shape ({len(inputs)}, k), or None",
            )
        return found.detach().to("cpu", torch.int64)


def shaped(
    scores: object,
    count: int,
    guard: Guard,
    what: str,
    *,
    name: str,
    least: int,
    most: int | None,
    known: str = "were seen",
) -> Tensor:
    """What a method answered, if it has the shape ``(B, K)`` of logits; nothing waits for the device.

    Args:
        scores: Its answer.
        count: B, the number of samples it was asked about.
        guard: Stands around its functions.
        what: The function that was asked.
        name: Of the method.
        least: Columns that there must be: the classes seen, or named.
        most: Columns that there may be; None: any number.
        known: What became of these classes, for the message.

    Raises:
        PluginError: It is of another kind or shape.
    """
    if not isinstance(scores, Tensor):
        raise guard.refuse(what, scores, hint=f"return logits, a tensor of shape ({count}, {least})")
    if scores.layout != torch.strided or scores.is_complex() or scores.is_quantized:
        raise PluginError(
            f"method `{name}`: `{what}` returned logits of dtype {scores.dtype}, layout {scores.layout}",
            hint="return a dense tensor of real numbers",
        )
    if scores.ndim != 2 or len(scores) != count:
        raise PluginError(
            f"method `{name}`: `{what}` returned shape {tuple(scores.shape)} for {count} inputs",
            hint=f"return logits of shape ({count}, {least})",
        )
    if scores.shape[1] < least or (most is not None and scores.shape[1] > most):
        hints = ("grow the head in `begin_experience`", "cut the logits to the classes seen")
        raise PluginError(
            f"method `{name}`: `{what}` returned {scores.shape[1]} columns, but {least} classes {known}",
            hint=hints[scores.shape[1] > least] if known == "were seen" else "return one column per name",
        )
    return scores


def finite(scores: Tensor, what: str, *, name: str) -> Tensor:
    """Logits, float32 on the CPU.

    Args:
        scores: ``(B, K)``.
        what: The function of the method that gave them.
        name: Of the method.

    Raises:
        RunFailed: They are not finite.
    """
    scores = scores.detach().to("cpu", torch.float32)
    # -inf rules a class out; there must be one that is not ruled out, and nothing else may be infinite.
    if not (torch.isfinite(scores) | (scores == -torch.inf)).all() or not torch.isfinite(scores).any(dim=1).all():
        raise RunFailed(
            f"method `{name}`: logits are not finite at evaluation (`{what}`)", hint="lower the learning rate"
        )
    return scores


def _predict_group(
    judge: _Judge, tests: Sequence[tuple[int, Samples]], tasks: Mapping[int, Task], experience: int
) -> Predictions:
    """Predicts test sets that share their classes."""
    rules = judge.rules
    sets = [test for _, test in tests]
    joined = Samples.concat(sets)
    test_set = torch.cat([torch.full((len(test),), index) for index, test in tests])
    count = len(joined)
    logits: Tensor | None = None
    choices: list[Tensor] = []
    batches = rules.test_batches([len(test) for test in sets])
    for part, inputs in zip(batches, rules.tests(joined, batches), strict=True):
        with handing(judge.keeper, inputs, sets, part, again=judge.again):
            scores = judge(inputs, part)
            choices += [judge.chosen(inputs)] if rules.keep_choices else []
        if logits is None:
            logits = torch.empty(count, scores.shape[1])
        elif logits.shape[1] != scores.shape[1]:
            raise PluginError(
                f"method `{judge.name}`: its logits have {logits.shape[1]} columns, then {scores.shape[1]}",
                hint="return the same columns for every batch of an evaluation",
            )
        logits[part] = scores
    if logits is None:
        raise RunFailed(f"{judge.name}: there is no test sample to evaluate")
    if rules.per_sample:
        _probe(judge, joined, logits, torch.cat(batches))
    in_task: Tensor | None = None
    if tasks and rules.task_known:
        logits = _within(judge.name, logits, test_set, tasks)
    elif tasks:
        in_task = _best_within(logits, test_set, tasks)
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    best = logits.argmax(dim=1)
    if judge.strange is not None and judge.vocabulary is None and logits.shape[1] <= judge.strange.label:
        for index in judge.strange.sets:
            rows = (test_set == index).nonzero().flatten()
            rows = rows[unknown.by_entropy(logits[rows])]
            best[rows] = judge.strange.label
            top[rows] = torch.cat([best[rows, None], top[rows, :-1]], dim=1)
    confidence = logits.softmax(dim=1).amax(dim=1)
    if judge.vocabulary is not None:
        labels = torch.tensor(judge.vocabulary.labels)
        top, best = labels[top], labels[best]
        wide = torch.full((count, int(labels.max()) + 1), -torch.inf)
        wide[:, labels] = logits
        logits = wide
    if rules.task_known:
        top = torch.where(logits.gather(1, top) == -torch.inf, -1, top)
    return predictions.table(
        experience,
        test_set=test_set,
        sample_id=joined.ids,
        label=joined.labels,
        prediction=best,
        top5=top,
        confidence=confidence,
        logits=logits if rules.keep_logits else None,
        prediction_in_task=in_task,
        choices=_in_order(choices, batches) if rules.keep_choices else None,
    )


def _in_order(choices: Sequence[Tensor], batches: Sequence[Tensor]) -> Tensor:
    """Choices of all samples at their places, ``(N, K)``, -1 where one has fewer."""
    width = max(part.shape[1] for part in choices)
    found = torch.full((sum(map(len, batches)), width), -1)
    for part, places in zip(choices, batches, strict=True):
        found[places, : part.shape[1]] = part
    return found


def _best_within(logits: Tensor, test_set: Tensor, tasks: Mapping[int, Task]) -> Tensor:
    """The best label among the classes of each sample's experience, ``(N,)``; -1 where it belongs to none."""
    best = torch.full((len(logits),), -1)
    for index, task in tasks.items():
        rows, classes = test_set == index, torch.tensor(task.classes)
        best[rows] = classes[logits[rows][:, classes].argmax(dim=1)]
    return best


def _within(name: str, logits: Tensor, test_set: Tensor, tasks: Mapping[int, Task]) -> Tensor:
    """The logits with ``-inf`` for classes of other experiences than that of the sample.

    Raises:
        PluginError: Nothing is left of them.
    """
    ruled_out = torch.zeros_like(logits, dtype=torch.bool)
    for index, task in tasks.items():
        others = torch.ones(logits.shape[1], dtype=torch.bool)
        others[list(task.classes)] = False
        ruled_out |= (test_set == index)[:, None] & others
    left = logits.masked_fill(ruled_out, -torch.inf)
    if not torch.isfinite(left).any(dim=1).all():
        raise PluginError(
            f"method `{name}`: its logits rule out every class of a sample's experience",
            hint="in task-incremental runs a class of that experience must stay possible",
        )
    return left


def _probe(judge: _Judge, joined: Samples, logits: Tensor, places: Tensor) -> None:
    """Predicts a few samples alone and compares with their logits in the batch."""
    for place in places[:: max(1, len(places) // PROBES)][:PROBES].tolist():
        one = torch.tensor([place])
        alone = judge(judge.rules.tested(joined, one), one)[0]
        batched = logits[place]
        finite = torch.isfinite(batched)
        gap = (alone[finite] - batched[finite]).abs().max()
        tolerance = PROBE_TOLERANCE[judge.rules.computing.precision]
        if not torch.equal(finite, torch.isfinite(alone)) or gap > tolerance * batched[finite].abs().max().clamp(min=1):
            raise PluginError(
                f"method `{judge.name}`: the prediction of a sample depends on the others of its batch "
                f"(logits differ by {gap:.2g})",
                hint="predict each by itself, or declare `test_batch` and be marked as leaking in tables",
            )


def _versions(method: Method) -> list[tuple[int, int]]:
    """Identity and in-place-change counter of every parameter and buffer."""
    tensors = [*method.parameters(), *method.buffers(), *method.context.pretrained.module.parameters()]
    return [(id(tensor), tensor._version) for tensor in tensors]
