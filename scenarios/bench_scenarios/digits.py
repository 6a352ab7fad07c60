"""Digits by hand, from letters and of house fronts, labelled in one set, unlabelled in another.

Sources: MNIST, USPS and SVHN (`bench_scenarios._mnist`, `_usps`, `_svhn`). Published pairs are ``mnist-usps``,
``usps-mnist`` and ``svhn-mnist``; the others, and several sources (``rest-mnist``), are there too. All training images
of the source with labels, all training images of the target without, tested on the official test images of the target
(SHOT, CDAN); what is kept on those of the source. ADDA's samples of 2,000 and 1,800 images are another protocol. Images
are resized to 28x28 pixels (32x32 where SVHN is one of the sets), bilinear. The classes of partial and open sets
(``label_set``) are the user's choice (``shared``, ``unknown``). Version 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench_scenarios import _digit_files, _mnist, _shifts, _svhn, _usps
from benchmark import ScenarioSpec, builders, hookimpl
from benchmark.derived import Derived
from benchmark.samples import Samples
from benchmark.scenario import Scenario, ScenarioRequest

DOMAINS = ("mnist", "usps", "svhn")
_IDS = 200_000  # of one data set


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsConfig(_shifts.SharedPairConfig):
    """Options of ``digits``, see `bench_scenarios._shifts.SharedPairConfig`."""

    CLASSES: ClassVar[int] = 10
    DOMAINS: ClassVar[tuple[str, ...]] = DOMAINS

    pair: str = "mnist-usps"


def _read(domain: str, request: ScenarioRequest) -> builders.Cut:
    if domain == "mnist":
        return _mnist.cut(_mnist.DIGITS, request)
    return _usps.cut(request) if domain == "usps" else _svhn.cut(request)


def build(config: DigitsConfig, request: ScenarioRequest) -> Scenario:
    """Builds the pair.

    Raises:
        DataMissing: One of the data sets is absent or not what it should be.
    """
    sources, target = config.sides()
    domains = [domain for domain in DOMAINS if domain in (*sources, target)]
    cuts = {domain: _read(domain, request) for domain in domains}
    side = 32 if "svhn" in domains else 28
    train, test = (
        {domain: _placed(getattr(cut, part), side, DOMAINS.index(domain)) for domain, cut in cuts.items()}
        for part in ("train", "test")
    )
    notes = {f"{domain} {key}": value for domain, cut in cuts.items() for key, value in cut.notes.items()}
    parts = _shifts.Parts(
        train=train, test=test, class_names=_digit_files.NAMES, notes={**notes, "pixels": f"{side}x{side}"}
    )
    return _shifts.pair(SPEC, config, parts)


def _placed(samples: Samples, side: int, place: int) -> Samples:
    """The samples at ``side`` pixels, with ids of their data set."""
    source = samples.source
    if samples.image_shape[-1] != side:
        source = Derived(source, functools.partial(_resized, side), f"resized to {side}x{side}, bilinear")
    return Samples(source, samples.rows, samples.labels, samples.ids + place * _IDS)


def _resized(side: int, images: Any, _: Any) -> Any:
    import torch
    from PIL import Image

    if not len(images):
        return images.new_zeros(0, 3, side, side)
    # The images that are resized are grey: three equal channels.
    grey = [
        np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR)) for one in images[:, 0].numpy()
    ]
    return torch.from_numpy(np.stack(grey))[:, None].expand(-1, 3, -1, -1)


def miniature(root: Path) -> None:
    """A few images of every class of the three (`benchmark.specs.ScenarioSpec.miniature`)."""
    _mnist.miniature(root)
    _usps.miniature(root)
    _svhn.miniature(root)


SPEC = ScenarioSpec(
    name="digits",
    build=build,
    config=DigitsConfig,
    summary="MNIST, USPS and SVHN, labelled in one, unlabelled in another; the three published pairs",
    family="uda",
    tracks={"mini": "plain", "paper": "plain"},
    variant="pair",
    variants=("mnist-usps", "usps-mnist", "svhn-mnist"),
    source=f"{_mnist.SOURCE}; {_usps.SOURCE}; {_svhn.SOURCE}",
    licence="those of the three data sets",
    data_by_variant=True,
    size_mb=260.0,
    data=(_mnist.MNIST, _usps.USPS, _svhn.SVHN),
    miniature=miniature,
)


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``digits``."""
    return [SPEC]
