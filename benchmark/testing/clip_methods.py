"""Methods on the tiny CLIP of `benchmark.testing.closed_form`, and the plain way through its text tower."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmark.api import Context, ExperienceView, Manifest, Method
from benchmark.backbones.backbone import Backbone
from benchmark.inputs.images import ImagePipeline
from benchmark.specs import MethodSpec
from benchmark.testing.closed_form import ARCHITECTURE, tiny_clip, tiny_clip_state
from benchmark.testing.recorded import Recorded
from benchmark.testing.toys import toy_scenario

CLASSES = ("dog", "sea_turtle", "aircraft_carrier")


def clip_method(
    spec: MethodSpec,
    *,
    dtype: torch.dtype = torch.float32,
    family: str = "few-shot",
    names: tuple[str, ...] = CLASSES,
    backbone: Backbone | None = None,
    **options: Any,
) -> Method:
    """A method on the tiny CLIP, in training mode at the start of its only experience.

    Args:
        spec: Of a method with ``text``.
        dtype: float64 to compare with tighter figures.
        family: Of the scenario.
        names: The classes; of each there is one training image (and domain).
        backbone: Instead of the tiny CLIP, e.g. `benchmark.testing.recorded.Recorded.clip`.
        **options: What differs from the defaults of the method's configuration.
    """
    scenario = toy_scenario(family=family, classes=len(names), train=1, test=1)
    scenario = dataclasses.replace(scenario, class_names=names + scenario.class_names[len(names) :])
    config, backbone = spec.config(**options), tiny_clip() if backbone is None else backbone
    uses = spec.uses_of(config)
    context = Context(
        pretrained=backbone,
        device=torch.device("cpu"),
        scenario=scenario,
        pipeline=ImagePipeline("plain", size=backbone.image_size, mean=(0.0,) * 3, std=(1.0,) * 3),
        manifest=Manifest(spec.name, uses),
    )
    method = spec.build(config, context).to(dtype)
    method.begin_experience(ExperienceView(scenario, 0, context.manifest))
    return method.train()


def full_texts(embeddings: Tensor, ends: Tensor) -> Tensor:
    """Text features ``(R, d)`` of the tiny CLIP the plain way: all 77 positions through open_clip's own modules.

    Args:
        embeddings: ``(R, 77, 48)``, without positions.
        ends: Positions of the end-of-text tokens, int64 ``(R,)``.
    """
    model = _original(embeddings.dtype)
    tokens = model.transformer(embeddings + model.positional_embedding, attn_mask=model.attn_mask)
    features: Tensor = model.ln_final(tokens)[torch.arange(len(tokens)), ends] @ model.text_projection
    return features


@cache
def _original(dtype: torch.dtype) -> Any:
    import open_clip

    with torch.random.fork_rng(devices=[]):
        model = open_clip.CLIP(**ARCHITECTURE)
    model.load_state_dict(tiny_clip_state())
    return model.to(dtype).eval().requires_grad_(False)


def recorded_method(spec: MethodSpec, case: Recorded, *, names: str = "classnames", **options: Any) -> Method:
    """A method on the CLIP of a recorded case, with its classes, in its precision.

    Args:
        spec: Of a method with ``text``.
        case: The case.
        names: Key of the classes in the case's configuration.
        **options: Of the method's configuration.
    """
    told = tuple(case.meta["config"][names])
    return clip_method(spec, dtype=case.dtype, names=told, backbone=case.clip(), **options)
