"""Features of frozen networks that a run knows already (`benchmark.backbones.frozen`).

They are computed once for each set of samples as it is read at test time, in memory and, where a run may keep files,
for the runs after it. What depends on what:

- *which bits*: a set is computed in its own order, in nearly equal parts of at most ``eval_batch_size``, whoever asks
  and in whichever batches. So it makes no difference whether features were computed now, in an earlier evaluation, or
  by another run. Whether last bits equal those of the batch that asks is up to the matrix library. oneMKL computes
  fewer than 16 rows in another way than more, and more of them alike; so smaller batches are not answered, and
  smaller sets are filled up.
- *of which network*: by its structure and weights as they are now. A network that has changed is another one.
- *what is kept*: test sets for the run, training sets until the experience is over. What does not fit into `MEMORY` is
  mapped from a file that nobody else sees. Augmented views (`benchmark.api.FeatureConfig`) are kept in files only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.backbones import frozen
from benchmark.inputs.pipeline import Inputs
from benchmark.run import networks
from benchmark.run.feature_files import FeatureFiles
from benchmark.run.rules import Rules
from benchmark.samples import Samples

FEWEST = 16
"""Rows: smaller batches are computed as they are, and no set is computed with fewer."""
WORTH_A_FILE = 64
"""Samples: smaller sets are computed as fast as they are found."""
MEMORY = 512 << 20
"""Bytes of features in memory; what is more lies in files."""
_NETWORKS = 4  # whose names are remembered


class _Handed(NamedTuple):
    """Inputs that the method has just been given, and which samples they are."""

    inputs: Inputs
    sets: Sequence[Samples]
    rows: Tensor  # of the sets, one behind the other
    again: bool
    drawn: tuple[int | str, ...]


class _Table(NamedTuple):
    """Features of a whole set."""

    samples: Samples
    features: Tensor  # (N, d), on the CPU
    taken: int  # bytes of memory; what is mapped takes none


class Keeper:
    """The features that one run knows.

    Args:
        rules: Of the run.
        files: Where features are kept for other runs, or None.
        memory: Bytes of features in memory.
    """

    def __init__(self, rules: Rules, files: FeatureFiles | None = None, *, memory: int = MEMORY) -> None:
        self._rules = rules
        self._files = files
        self._memory = memory
        self._handed: _Handed | None = None
        self._tables: dict[tuple[str, int], _Table] = {}
        self._names: dict[tuple[object, ...], tuple[nn.Module, str]] = {}
        self._series: tuple[str, int, tuple[int | str, ...]] | None = None
        self._coming: list[Tensor] = []  # features of its first batches
        self._mapped: Tensor | None = None  # features of the whole

    @contextlib.contextmanager
    def handing(
        self,
        inputs: Inputs,
        sets: Sequence[Samples],
        rows: Tensor,
        *,
        again: bool = True,
        drawn: tuple[int | str, ...] = (),
    ) -> Iterator[None]:
        """Inside, whoever asks a frozen network about ``inputs`` is told what is known of them.

        Args:
            inputs: Of B samples, as they are read at test time.
            sets: That they are in.
            rows: Where in these, one behind the other, int64 ``(B,)``.
            again: Whether this run will read sets of them once more. If not, what is not known yet is only worth
                computing for the runs to come.
            drawn: Where the inputs are augmented at random: what they follow from, besides the samples. Then there is
                one set, which is handed out in its order, always in the same batches; only files are of use.
        """
        if len(rows) < FEWEST and not drawn:
            yield
            return
        before, self._handed = self._handed, _Handed(inputs, sets, rows, again, drawn)
        try:
            with frozen.asking(self):
                yield
        finally:
            self._handed = before

    def look_again(self) -> None:
        """Asks every network anew which one it is: weights can be changed without leaving a trace on the tensors."""
        self._names.clear()

    def keep_only(self, sets: Iterable[Samples]) -> None:
        """Forgets what is known of all other sets than these, and of networks that are not there any more."""
        kept, asked = {id(samples) for samples in sets}, {name for _, name in self._names.values()}
        self._tables = {key: table for key, table in self._tables.items() if key[0] in asked and key[1] in kept}

    def __call__(self, function: Callable[[Any, Any], Tensor], network: nn.Module, inputs: Any, /) -> Tensor | None:
        """See `benchmark.backbones.frozen.Keeper`."""
        handed = self._handed
        if handed is None or inputs is not handed.inputs or (state := frozen.still(network)) is None:
            return None
        asked = self._name(function, network, state)
        if handed.drawn:
            return self._of_series(asked, function, network, handed)
        met = any((asked, id(samples)) in self._tables for samples in handed.sets)
        if not (met or handed.again or self._files):
            return None
        lengths = torch.tensor([len(samples) for samples in handed.sets])
        ends = lengths.cumsum(0)
        which = torch.bucketize(handed.rows, ends, right=True)
        found: Tensor | None = None
        for place in which.unique().tolist():
            table = self._table(asked, function, network, handed.sets[place])
            here = which == place
            part = table[handed.rows[here] - (ends - lengths)[place]]
            if len(part) == len(handed.rows):
                found = part
                break
            found = part.new_empty(len(handed.rows), part.shape[1]) if found is None else found
            found[here] = part
        return None if found is None else found.to(self._rules.device, non_blocking=True)

    def _of_series(
        self, asked: str, function: Callable[[Any, Any], Tensor], network: nn.Module, handed: _Handed
    ) -> Tensor | None:
        """Features of a batch that is augmented, from a file or on their way into one."""
        (samples,) = handed.sets
        if self._files is None or len(samples) < WORTH_A_FILE:
            return None
        series = (asked, id(samples), handed.drawn)
        if self._series != series:
            self._series, self._coming = series, []
            self._mapped = self._files.get(asked, samples, *handed.drawn)
        if self._mapped is not None:
            return self._mapped[handed.rows].to(self._rules.device)
        with frozen.asking(None), torch.no_grad():
            features = function(network, handed.inputs)
        self._coming.append(features.cpu())
        if sum(map(len, self._coming)) == len(samples):
            self._mapped = self._files.put(torch.cat(self._coming), asked, samples, *handed.drawn)
            self._coming = []
        return features

    def _table(
        self, asked: str, function: Callable[[Any, Any], Tensor], network: nn.Module, samples: Samples
    ) -> Tensor:
        """Features of a whole set, ``(N, d)``, on the CPU."""
        key = (asked, id(samples))
        if key not in self._tables:
            files = self._files if len(samples) >= WORTH_A_FILE else None
            mapped = None if files is None else files.get(asked, samples)
            if mapped is None:
                features = self._compute(function, network, samples)
                mapped = None if files is None else files.put(features, asked, samples)
            self._tables[key] = self._placed(samples, features) if mapped is None else _Table(samples, mapped, 0)
        return self._tables[key].features

    def _compute(self, function: Callable[[Any, Any], Tensor], network: nn.Module, samples: Samples) -> Tensor:
        rows = torch.arange(max(len(samples), FEWEST)) % len(samples)
        batches = torch.tensor_split(rows, math.ceil(len(rows) / self._block))
        with frozen.asking(None), torch.no_grad():
            parts = [function(network, inputs).cpu() for inputs in self._rules.tests(samples, batches)]
        return torch.cat(parts)[: len(samples)]

    @property
    def _block(self) -> int:
        """Most samples that are computed at once."""
        return max(self._rules.eval_batch_size, 2 * FEWEST)  # so that no part has fewer than `FEWEST`

    def _placed(self, samples: Samples, features: Tensor) -> _Table:
        """In memory, or in a file of this process alone where there is no room."""
        size = features.numel() * features.element_size()
        if sum(table.taken for table in self._tables.values()) + size <= self._memory:
            return _Table(samples, features, size)
        with tempfile.TemporaryFile() as file:
            file.write(features.reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            content = np.memmap(file, np.uint8, mode="c")
        return _Table(samples, torch.from_numpy(content).view(features.dtype).view(features.shape), 0)

    def _name(self, function: Callable[[Any, Any], Tensor], network: nn.Module, state: tuple[int, ...]) -> str:
        """The name of what is computed: of the function, and a hash of all that the bits depend on besides samples."""
        arithmetic = networks.arithmetic(self._rules.device)
        key = (function, json.dumps(arithmetic), state)
        if key not in self._names:
            while len(self._names) >= _NETWORKS:
                del self._names[next(iter(self._names))]
            pipeline = self._rules.pipeline
            facts = {
                **networks.function_facts(function),
                **arithmetic,
                "network": networks.digest(network),
                "compiled": self._rules.computing.compile,
                # Whether training images are augmented is no matter here.
                "inputs": {"kind": pipeline.kind, **pipeline.facts(), "augment": None},
                "at once": [self._block, FEWEST],
            }
            hashed = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
            self._names[key] = (network, f"{function.__name__}-{hashed[:24]}")
        return self._names[key][1]


def handing(
    keeper: Keeper | None,
    inputs: Inputs,
    sets: Sequence[Samples],
    rows: Tensor,
    *,
    again: bool,
    drawn: tuple[int | str, ...] = (),
) -> contextlib.AbstractContextManager[None]:
    """`Keeper.handing`, where there may be none."""
    return contextlib.nullcontext() if keeper is None else keeper.handing(inputs, sets, rows, again=again, drawn=drawn)
