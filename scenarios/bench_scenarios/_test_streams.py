"""Orders of a stream of test batches: what test-time adaptation calls its settings.

========================  ==============================================================================================
``reset``                 domain after domain, the method is put back before each (``reset_each_shift``)
``continual``             the same without that
``gradual``               per domain severities 1 2 3 4 5 4 3 2 1
``mixed``                 all domains pooled and shuffled (``mixed_domains``, ``mix_shifts``)
``correlated``            within each domain sorted by class, or by a Dirichlet draw (``label_shifts``)
``mixed-correlated``      pooled, then sorted likewise
``gradual-correlated``    as ``gradual``, sorted within every severity
``reset-correlated``      as ``reset``, sorted
========================  ==============================================================================================

Sources: mariodoebler/test-time-adaptation at 8b2ed632 (``conf.py``, ``datasets/data_loading.py``), qinenergy/cotta at
c212a204 (``cifar10c_gradual.py``), mr-eggplant/SAR at 20f6e24b (``main.py``). Differs: every segment has a shuffle of
its own, while the first source shows all corruptions the same images in the same order; the Dirichlet rule gives up
after `TRIES` draws, not after 120 seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from benchmark.config import Range, check_ranges
from benchmark.samples import Samples
from benchmark.scenario import Segment, TestStream

Setting = Literal[
    "continual", "reset", "gradual", "mixed", "correlated", "mixed-correlated", "gradual-correlated", "reset-correlated"
]
RISING_FALLING = (1, 2, 3, 4, 5, 4, 3, 2, 1)
TRIES = 1000
LEAST = 10  # images of a chunk of the Dirichlet rule

Draw = Callable[[str, int], Samples]
"""The test images of a domain at a severity, ids unique among all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """Options of a stream of test batches.

    Attributes:
        setting: Order of the stream, see above.
        severity: Of the corruptions, 1..5; ``gradual`` has all of them.
        batch_size: Images of a batch. It belongs to the scenario, as methods that see other batches do not compare.
        order_seed: Of the order of images, beside the run's seed.
        dirichlet: Parameter of the Dirichlet draw of the correlated settings; 0 sorts by class.
    """

    setting: Setting = "continual"
    severity: Annotated[int, Range(min=1, max=5)] = 5
    batch_size: Annotated[int, Range(min=1, max=10_000)] = 50
    order_seed: Annotated[int, Range(min=0, max=2**31)] = 0
    dirichlet: Annotated[float, Range(min=0)] = 0.0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ValueError: A value is out of range, or a draw is asked for where nothing is sorted.
        """
        check_ranges(self)
        if self.dirichlet and "correlated" not in self.setting:
            raise ValueError(
                f"dirichlet: {self.dirichlet} has no effect with setting={self.setting}; use a correlated setting"
            )


def stream(config: StreamConfig, domains: Sequence[str], draw: Draw, *, seed: int) -> TestStream:
    """The stream of test batches of a setting.

    Args:
        config: Setting, batch size, severity and order.
        domains: In their order.
        draw: Gives the images of one.
        seed: Of the run's class order and splits.

    Raises:
        ValueError: ``dirichlet: ...`` where no draw gives every chunk enough images.
    """
    sorts = "correlated" in config.setting
    if config.setting.startswith("mixed"):
        parts = [draw(name, config.severity) for name in domains]
        pooled = Samples.concat(
            [
                Samples(part.source, part.rows, part.labels, part.ids, part.labels.new_full((len(part),), place))
                for place, part in enumerate(parts)
            ]
        )
        images = _ordered(pooled, config, sorts, (seed, 0))
        segments = [Segment(name="mixed", images=images, domains=tuple(domains))]
        return TestStream(segments=tuple(segments), batch_size=config.batch_size)
    gradual = config.setting.startswith("gradual")
    segments = []
    for place, name in enumerate(domains):
        for step, severity in enumerate(RISING_FALLING if gradual else (config.severity,)):
            images = draw(name, severity)
            if gradual:  # severities come twice: other ids, as of other images
                images = Samples(images.source, images.rows, images.labels, images.ids + step * 10**9)
            falling = " falling" if step > RISING_FALLING.index(5) else ""
            segments.append(
                Segment(
                    name=f"{name} {severity}{falling}" if gradual else name,
                    images=_ordered(images, config, sorts, (seed, place, step)),
                    reset=config.setting.startswith("reset") and step == 0,
                )
            )
    return TestStream(segments=tuple(segments), batch_size=config.batch_size)


def _ordered(images: Samples, config: StreamConfig, sorts: bool, place: tuple[int, ...]) -> Samples:
    import torch

    generator = np.random.RandomState([config.order_seed, *place])
    order = generator.permutation(len(images))
    if sorts:
        order = order[correlated(images.labels.numpy()[order], config.dirichlet, generator)]
    return images.subset(torch.from_numpy(order))


def correlated(labels: npt.NDArray[np.int64], delta: float, generator: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Positions of labels in an order in which classes come in runs.

    Args:
        labels: In their shuffled order, ``(N,)``.
        delta: 0: sorted by class, equal ones in their order. Else as many chunks as classes; each class is cut by
            proportions from a Dirichlet distribution of this parameter, chunks that have N / C images get no more, and
            in every chunk classes follow one another in random order.
        generator: Is drawn from.

    Raises:
        ValueError: ``dirichlet: ...`` where no chunks came out that have `LEAST` images each.
    """
    if delta == 0:
        return np.argsort(labels, kind="stable")
    classes = int(labels.max()) + 1
    for _ in range(TRIES):
        chunks: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(classes)]
        for label in range(classes):
            own = np.flatnonzero(labels == label)
            generator.shuffle(own)
            shares = generator.dirichlet(np.repeat(delta, classes))
            full = np.array([sum(map(len, chunk)) >= len(labels) / classes for chunk in chunks])
            shares = np.where(full, 0.0, shares)
            if not shares.sum():
                break
            cuts = (np.cumsum(shares / shares.sum()) * len(own)).astype(int)[:-1]
            for chunk, part in zip(chunks, np.split(own, cuts), strict=True):
                chunk.append(part)
        else:
            if min(sum(map(len, chunk)) for chunk in chunks) >= LEAST:
                order = []
                for chunk in chunks:
                    places = list(range(classes))
                    generator.shuffle(places)
                    order += [chunk[place] for place in places]
                return np.concatenate(order)
    raise ValueError(
        f"dirichlet: {delta} leaves a chunk of fewer than {LEAST} images in {TRIES} draws; use a larger one"
    )
