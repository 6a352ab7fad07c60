"""What an input pipeline is, whatever it reads: from raw samples to model input, whole batches at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

import torch

from benchmark.inputs import images, texts
from benchmark.inputs.presets import InputPreset

Inputs: TypeAlias = Any
"""What a model of one kind is given: normalised images ``(B, 3, S, S)``, or B texts."""


class Pipeline(Protocol):
    """Turns raw samples into model input."""

    @property
    def kind(self) -> Literal["image", "text"]:
        """What it reads."""

    @property
    def random(self) -> bool:
        """Whether `train` draws anything, so that two passes over a sample differ."""

    def train(self, raw: Any, generator: torch.Generator, device: torch.device | None = None) -> Inputs:
        """Training input.

        Args:
            raw: Samples as their source has them.
            generator: On the CPU; the same state gives the same batch on every device.
            device: Where the input goes; None: where the samples are.
        """

    def eval(self, raw: Any, device: torch.device | None = None) -> Inputs:
        """Input as at test time, which depends on each sample alone."""

    def nothing(self, device: torch.device | None = None) -> Inputs:
        """Input of no sample: what stands beside features that were computed before."""

    def facts(self) -> Mapping[str, Any]:
        """What the record keeps: every value that changes the input."""


def make(preset: InputPreset | None, *, options: Any, pretrained: Any) -> tuple[Pipeline, str]:
    """The pipeline of a run.

    Args:
        preset: Input preset that the scenario names for its track; None: it holds texts, which have none.
        options: Of the method; images ask for ``normalize`` and ``augment``.
        pretrained: The model; images ask for ``name``, ``image_size``, ``mean`` and ``std``.

    Returns:
        The pipeline, and what to warn of, or "".
    """
    if preset is None:
        return texts.TextPipeline(tokenizer=getattr(pretrained, "tokenizer_sha256", "")), ""
    own = (tuple(pretrained.mean), tuple(pretrained.std))
    mean, std = own if options.normalize == "backbone" else images.NORMALIZATIONS[options.normalize]
    warning = ""
    if (tuple(mean), tuple(std)) != own:
        warning = (
            f"normalises with `{options.normalize}` (mean {list(mean)}, std {list(std)}), "
            f"but {pretrained.name} was trained with mean {list(own[0])}, std {list(own[1])}"
        )
    pipeline = images.ImagePipeline(
        preset,
        size=pretrained.image_size,
        mean=tuple(mean),
        std=tuple(std),
        augment=options.augment,
        normalization=options.normalize,
    )
    return pipeline, warning
