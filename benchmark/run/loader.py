"""Reads the samples of a run: in its own process, or ahead of their use in worker processes.

Only images that stay in their files are worth a worker. Requests are made in the run's process, random numbers and all,
and answered in their order, so that results are the same for any number of workers.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmark.errors import DataMissing, RunFailed
from benchmark.inputs.cuts import Drawn
from benchmark.readers.images import choose_decoder
from benchmark.readers.kept import Place
from benchmark.run import machine
from benchmark.samples import Part, Raw, Samples, assembled, in_files, parts_of, sources_of

FEW = 512
"""Images that are read faster than a worker is started."""
MOST_WORKERS = 8
_AHEAD = 4  # batches per worker


class Request(NamedTuple):
    """What is read at once.

    Attributes:
        samples: A set.
        rows: Positions in it, int64 ``(B,)``.
        cut: How files are cut; None: as at test time, or samples that are in memory.
    """

    samples: Samples
    rows: Tensor
    cut: Drawn | None = None

    def read(self) -> Raw:
        """Here and now."""
        return self.samples.read(self.rows, self.cut)


def automatic() -> int:
    """Workers where none are asked for: the cores that training leaves."""
    return min(max(machine.cores() - 1, 1), MOST_WORKERS)


def ahead(
    requests: Iterable[Request],
    sets: Sequence[Samples],
    *,
    count: int,
    workers: int | None,
    device: torch.device | None = None,
) -> Iterator[Raw]:
    """Answers requests in their order.

    Args:
        requests: Made while the answers are used; a few are asked for ahead.
        sets: The sets that they may name.
        count: Samples that all of them ask for.
        workers: Processes; None: as many as are of use.
        device: Where the answers go next. On the way to a CUDA device those of workers lie in page-locked memory, from
            which a copy runs beside what the device computes.

    Raises:
        DataMissing: A file is gone or no image.
        RunFailed: A worker died.
    """
    number = automatic() if workers is None else workers
    if not number or (workers is None and count < FEW) or not all(in_files(one.source) for one in sets):
        return (request.read() for request in requests)
    return _with_workers(requests, sets, number, pin=device is not None and device.type == "cuda")


def _with_workers(requests: Iterable[Request], sets: Sequence[Samples], workers: int, *, pin: bool) -> Iterator[Raw]:
    choose_decoder()
    shelf = _Shelf()
    for samples in sets:
        for source in sources_of(samples.source):
            shelf.add(source)
    loader: DataLoader[Any] = DataLoader(
        shelf,
        sampler=(shelf.task(request) for request in requests),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        generator=torch.Generator(),  # its own: the global one belongs to the method
        pin_memory=pin,
    )
    answers = iter(loader)
    with contextlib.closing(_Closing(answers)):
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                reason = str(error).splitlines()[0]
                raise RunFailed(
                    f"a process that reads images ended: {reason}", hint="--set engine.workers=0"
                ) from error
            if isinstance(answer, _Problem):
                raise DataMissing(answer.message, hint=answer.hint)
            answer, notes = answer
            shelf.tell(notes)
            yield answer


class _Closing:
    """Ends the workers when nobody asks any more."""

    def __init__(self, answers: Any) -> None:
        self._answers = answers

    def close(self) -> None:
        self._answers._shutdown_workers()
        _give_back()


def _give_back() -> None:
    """Gives free memory back to the system: glibc keeps what batches took, some 200 MiB after a few epochs.

    The next workers are forks of this process, so each would hold it too.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class _Problem(NamedTuple):
    message: str
    hint: str | None


class _Shelf(Dataset[Any]):
    """The sources that workers read, by number."""

    def __init__(self) -> None:
        self._sources: list[Any] = []

    def add(self, source: Any) -> None:
        if all(known is not source for known in self._sources):
            self._sources.append(source)

    def task(self, request: Request) -> tuple[Any, ...]:
        """A request as what can be sent to a worker cheaply: numbers and arrays."""
        number = {id(source): place for place, source in enumerate(self._sources)}
        parts = parts_of(request.samples.source, request.samples.rows[request.rows])
        told = [(number[id(part.source)], part.rows.numpy(), part.places.numpy()) for part in parts]
        return told, request.cut

    def __getitem__(self, task: Any) -> Any:
        told, cut = task
        try:
            parts = [
                Part(self._sources[number], torch.from_numpy(rows), torch.from_numpy(places))
                for number, rows, places in told
            ]
            return assembled(parts, cut), [note for place in self._places() for note in place.fetch_notes()]
        except DataMissing as error:
            return _Problem(error.message, error.hint)

    def tell(self, notes: Sequence[str]) -> None:
        """Says what a worker had to say of kept images; once for all workers of a run."""
        for note in notes:
            for place in self._places():
                place.tell(note)

    def _places(self) -> list[Place]:
        """Where the sources keep decoded images: one for all of a run, if any."""
        caches = [source.cache for source in self._sources if getattr(source, "cache", None) is not None]
        return list({id(cache.place): cache.place for cache in caches}.values())
