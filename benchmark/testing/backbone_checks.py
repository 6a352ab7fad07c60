"""Checks that every backbone must pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from benchmark import loading
from benchmark.backbones.backbone import Backbone, Pretrained
from benchmark.errors import UsageError
from benchmark.run import checkpoint
from benchmark.specs import BackboneSpec
from benchmark.testing.observation import CheckFailed, CheckSkipped

SAMPLES = 3


@dataclass(frozen=True, slots=True)
class BackboneSubject:
    """A backbone under test.

    Attributes:
        name: Its full name, ``library:TAG`` for one of a library.
        spec: What its plugin registered.
        weights: Local weight file, or None.
    """

    name: str
    spec: BackboneSpec
    weights: Path | None = None

    def load(self) -> Pretrained:
        """As runs load it; nothing is downloaded."""
        return loading.load(self.name, weights=self.weights, offline=True)

    def load_vision(self) -> Backbone:
        """The same, where it reads images.

        Raises:
            CheckSkipped: It does not.
        """
        if not isinstance(model := self.load(), Backbone):
            raise CheckSkipped(f"it is {model.what}")
        return model


def backbone_subject(name: str, weights: Path | None = None) -> BackboneSubject:
    """The subject for a registered backbone.

    Raises:
        UsageError: No such backbone.
        PluginError: Its plugin is broken.
    """
    return BackboneSubject(name, cast("BackboneSpec", loading.find(name).spec), weights)


def facts(subject: BackboneSubject) -> None:
    """Name, hash, mean and deviation are stated, and are those that `describe` promises."""
    backbone = subject.load()
    if backbone.name != subject.name:
        raise CheckFailed(f"its name is `{backbone.name}`", hint="keep the name that `load` was given")
    if not re.fullmatch("[0-9a-f]{64}", backbone.sha256):
        raise CheckFailed(f"sha256 is {backbone.sha256!r:.100}", hint="give the SHA-256 of the weights, 64 hex digits")
    if isinstance(backbone, Backbone) and not (len(backbone.mean) == len(backbone.std) == 3 and min(backbone.std) > 0):
        raise CheckFailed("mean and std are not of three channels", hint="give three numbers each, std above 0")
    promised = loading.describe(subject.name)["sha256"]
    if subject.weights is None and promised is not None and promised != backbone.sha256:
        raise CheckFailed(f"`describe` promises weights {promised:.12}, loaded were {backbone.sha256:.12}")


def frozen(subject: BackboneSubject) -> None:
    """It is in eval mode, no weight asks for a gradient, every weight is a number."""
    module = subject.load().module
    if any(part.training for part in module.modules()):
        raise CheckFailed("it is in training mode", hint="its `train` must keep to what it is told")
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            raise CheckFailed(f"weight `{name}` asks for a gradient", hint="`requires_grad_(False)` must do it")
        if not bool(torch.isfinite(weight).all()):
            raise CheckFailed(f"weight `{name}` holds NaN or infinity")


def repeat(subject: BackboneSubject) -> None:
    """Loaded twice it has the same hash and the same weights, whatever the seed."""
    one = subject.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() + 1)
        two = subject.load()
    if one.sha256 != two.sha256:
        raise CheckFailed("two loads have different hashes", hint="hash the weights, not the file's name or time")
    second = two.module.state_dict()
    for name, value in one.module.state_dict().items():
        if not torch.equal(value, second[name]):
            raise CheckFailed(f"weight `{name}` differs between two loads", hint="nothing may stay at random values")


def surroundings(subject: BackboneSubject) -> None:
    """Loading leaves random generators, default type, gradients and threads as they are."""
    before = checkpoint.random_state()
    settings = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    subject.load()
    after = checkpoint.random_state()
    if before["python"] != after["python"]:
        raise CheckFailed("Python's global generator was used", hint="make a random.Random of your own")
    if not np.array_equal(before["numpy"][1], after["numpy"][1]) or before["numpy"][2] != after["numpy"][2]:
        raise CheckFailed("numpy's global generator was used", hint="make a numpy Generator of your own")
    if settings != (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()):
        raise CheckFailed("torch's default type, gradients or threads were changed")


def batch(subject: BackboneSubject) -> None:
    """Features of a picture are numbers and depend on that picture alone."""
    backbone = subject.load_vision()
    side = backbone.image_size
    images = torch.randn(SAMPLES, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = backbone.model(images)
        alone = torch.cat([backbone.model(images[place : place + 1]) for place in range(SAMPLES)])
    if together.ndim < 2 or len(together) != SAMPLES or not bool(torch.isfinite(together).all()):
        raise CheckFailed(f"features of {SAMPLES} pictures are {tuple(together.shape)} or no numbers")
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4):
        raise CheckFailed("features depend on the batch", hint="no layer may mix samples, e.g. batch norm in training")


def size(subject: BackboneSubject) -> None:
    """Another image size is honoured or refused."""
    backbone = subject.load_vision()
    wanted = 2 * backbone.image_size
    try:
        other = loading.load(subject.name, weights=subject.weights, offline=True, image_size=wanted)
    except UsageError as error:
        raise CheckSkipped(f"refused: {error.message}") from error
    if not isinstance(other, Backbone) or other.image_size != wanted:
        raise CheckFailed(f"asked for {wanted} px, it takes another", hint="refuse by a UsageError")


BACKBONE_CHECKS: dict[str, Callable[[BackboneSubject], None]] = {
    "facts": facts,
    "frozen": frozen,
    "repeat": repeat,
    "surroundings": surroundings,
    "batch": batch,
    "size": size,
}
