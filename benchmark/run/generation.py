"""Evaluation where texts are generated: the texts of one state of a method, in the place of its logits.

What holds for `benchmark.run.evaluation` holds here. Samples are shown without references, labels, ids or experience.
Unless a method declares ``test_batch``, some are asked for once more, alone. Greedy and beam search decide between
candidates by scores that differ in the last digits from batch to batch, so one text that comes out otherwise may be a
tie; half of those asked are none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmark.api import Method, Samples
from benchmark.errors import PluginError, RunFailed
from benchmark.guard import Guard
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.run.rules import Rules

PROBES = 4


def generate(
    method: Method, tests: Sequence[tuple[int, Samples]], rules: Rules, *, experience: int, guard: Guard
) -> Predictions:
    """Lets a method in eval mode write a text for every sample of the test sets once.

    Args:
        method: The learner.
        tests: Pairs of (index, test set).
        rules: Of the run.
        experience: Training experience after which this is.
        guard: Stands around its functions.

    Raises:
        PluginError: An exception out of the method, something else than one text per sample, or texts that depend on
            their batch.
        RunFailed: There is no sample.
    """
    joined = Samples.concat([test for _, test in tests])
    if joined.references is None or not len(joined):
        raise RunFailed(f"{rules.name}: there is no test sample with references to evaluate")
    batches = rules.test_batches([len(test) for _, test in tests])
    texts = [""] * len(joined)
    for part in batches:
        for place, text in zip(part.tolist(), written(method, joined, part, rules, guard), strict=True):
            texts[place] = text
    if rules.per_sample:
        _probe(method, joined, texts, torch.cat(batches), rules, guard)
    return predictions.generated(
        experience,
        test_set=torch.cat([torch.full((len(test),), index) for index, test in tests]),
        sample_id=joined.ids,
        label=joined.labels,
        text=texts,
        references=joined.references,
        inputs=joined.fields(),
    )


def written(
    method: Method, samples: Samples, places: Tensor, rules: Rules, guard: Guard, *, half: bool = True
) -> list[str]:
    """The texts for the samples at some places of a set; without ``half`` in full precision, whatever the run's is.

    Raises:
        PluginError: The method fails, or returns something else.
    """
    inputs = rules.tested(samples, places)
    with guard("generate"), rules.computing.forward(half=half):
        found = method.generate(inputs)
    hint = f"return {len(places)} texts, one for each input"
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise guard.refuse("generate", found, hint=hint)
    if len(found) != len(places):
        raise PluginError(
            f"method `{rules.name}`: `generate` returned {len(found)} texts for {len(places)} inputs", hint=hint
        )
    for text in found:
        if not isinstance(text, str):
            raise guard.refuse("generate", text, hint=hint)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PluginError(
                f"method `{rules.name}`: `generate` returned a text with half a character ({error.reason})",
                hint="decode whole characters, e.g. with errors='replace'",
            ) from error
    return [str(text) for text in found]


def _probe(method: Method, joined: Samples, texts: Sequence[str], places: Tensor, rules: Rules, guard: Guard) -> None:
    """Asks for a few texts alone and compares them with those of the batch.

    In half precision words are equally likely too often: then both are asked for anew, in full.
    """
    asked = places[:: max(1, len(places) // PROBES)][:PROBES].tolist()
    together = [texts[place] for place in asked]
    if rules.computing.mixed:
        together = written(method, joined, torch.tensor(asked), rules, guard, half=False)
    alone = [written(method, joined, torch.tensor([place]), rules, guard, half=False) for place in asked]
    other = [place for place, one, found in zip(asked, together, alone, strict=True) if found != [one]]
    if 2 * len(other) >= len(asked):
        raise PluginError(
            f"method `{rules.name}`: the text for a sample depends on the others of its batch ({len(other)} of "
            f"{len(asked)} come out otherwise when asked for alone)",
            hint="pad on the side and mask what is padded, or declare `test_batch` and be marked as leaking in tables",
        )
