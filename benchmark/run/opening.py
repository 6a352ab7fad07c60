"""A trained method taken out of its file (`benchmark.run.saving`), and asked as the evaluation of its run asked it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmark import families, loading
from benchmark.api import Method, Scenario
from benchmark.backbones.backbone import Nothing, Pretrained
from benchmark.errors import DataMissing
from benchmark.files import user_path
from benchmark.guard import Guard
from benchmark.inputs.cuts import Fit
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.pipeline import Inputs, Pipeline
from benchmark.readers.source import reduced
from benchmark.run import checkpoint, models, preparation, saving
from benchmark.run.computing import Computing
from benchmark.run.plan import Plan

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A trained method and what stands around its predictions.

    Attributes:
        plan: Of its run.
        scenario: Its classes and experiences, without samples.
        about: The description (`benchmark.run.saving.description`).
        method: The method, in eval mode.
        pretrained: Its pretrained model.
        pipeline: Its input transform.
        device: Where it computes.
        computing: In which precision.
    """

    plan: Plan
    scenario: Scenario
    about: Mapping[str, Any]
    method: Method
    pretrained: Pretrained
    pipeline: Pipeline
    device: torch.device
    computing: Computing

    @property
    def uses(self) -> frozenset[str]:
        """What the method declares."""
        return self.method.context.uses

    @property
    def task_known(self) -> bool:
        """Whether samples are classified among the classes of their experience."""
        return families.get(self.scenario.family).task_id

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says."""
        files = self.about["stored"].get("files")
        return True if files is None else bool(files["upright"])

    def fitted(self, image: Image) -> Image:
        """A whole image as the scenario's source gives it."""
        from PIL import Image as pil

        stored = self.about["stored"]
        if "files" in stored:
            assert isinstance(self.pipeline, ImagePipeline)  # what reads images
            return self.pipeline.fit()(0, reduced(image, stored["files"]["short"]))
        height, width = stored["size"]
        if image.size == (width, height):
            return image
        if height == width:
            return Fit(height, height, "bicubic")(0, image)
        return image.resize((width, height), pil.Resampling.BICUBIC)

    def logits(self, raw: Any, *, task: int | None = None, names: Sequence[str] | None = None) -> Tensor:
        """Logits ``(B, K)``, float32 on the CPU, of samples as their source has them.

        Args:
            raw: uint8 images ``(B, 3, H, W)``, or B texts.
            task: Experience that they belong to; classes of others get ``-inf``.
            names: Names among which they are classified; None: the classes seen.

        Raises:
            PluginError: The method fails, or returns something else.
        """
        what = "predict_named" if names is not None else "predict"
        if names is None and task is not None and "task_id" in self.uses:
            what = "predict_task"
        more = () if what == "predict" else (names if what == "predict_named" else task,)
        found = []
        for inputs in self._batches(raw):
            with self._asked(what):
                scores = getattr(self.method, what)(inputs, *more)
            if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(inputs):
                raise self._guard.refuse(what, scores, hint=f"return logits, a tensor of shape ({len(inputs)}, K)")
            found.append(scores.detach().to("cpu", torch.float32))
        logits = torch.cat(found)
        if task is not None and names is None:
            others = torch.ones(logits.shape[1], dtype=torch.bool)
            others[list(self.scenario.experiences[task].classes)] = False
            logits = logits.masked_fill(others, -torch.inf)
        return logits

    def generate(self, raw: Any) -> list[str]:
        """What is written about each of some samples.

        Raises:
            PluginError: The method fails.
        """
        found: list[str] = []
        for inputs in self._batches(raw):
            with self._asked("generate"):
                found += self.method.generate(inputs)
        return found

    def _batches(self, raw: Any) -> Iterator[Inputs]:
        size = self.plan.engine.eval_batch_size
        for first in range(0, len(raw), size):
            yield self.pipeline.eval(raw[first : first + size], self.device)

    @property
    def _guard(self) -> Guard:
        return Guard(f"method `{self.plan.method_spec.name}` of `{self.plan.method.entry.distribution}`")

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """As in an evaluation: no gradients, the run's precision; random state and algorithms as found."""
        computing = self.computing
        with checkpoint.isolated(), computing.installed(), self._guard(what), torch.no_grad(), computing.forward():
            yield


def opened(plan: Plan, about: Mapping[str, Any], snapshot: Mapping[str, Any], weights_sha256: str) -> Opened:
    """Loads the pretrained model of a run and puts the trained method on it.

    Args:
        plan: Of the run.
        about: The description.
        snapshot: What was kept of the method.
        weights_sha256: Hash of the weights that it was trained on.

    Raises:
        DataMissing: The weights are absent, damaged or others.
        UsageError: The device does not exist.
        PluginError: The method cannot be built, or does not take its state.
    """
    spec, job = plan.method_spec, plan.job
    models.check_backbone(plan)
    scenario = saving.hollow(about, plan.scenario_name)
    device = preparation.pick_device(job.device)
    weights = None if job.weights is None else user_path(job.weights)
    size = plan.engine.image_size
    pretrained = loading.load(plan.backbone, weights=weights, image_size=size) if spec.pretrained else Nothing()
    if pretrained.sha256 != weights_sha256:
        raise DataMissing(
            f"the weights of `{pretrained.name}` are {pretrained.sha256[:8] or 'none'}, the run's were "
            f"{weights_sha256[:8] or 'none'}: the model does not fit them",
            hint="give the weights of the run (--weights FILE, or the version of the package that brought them)",
        )
    pretrained.module.to(device).requires_grad_(False)
    pipeline, _ = preparation.make_pipeline(plan, scenario, pretrained)
    return Opened(
        plan=plan,
        scenario=scenario,
        about=about,
        method=saving.rebuilt(plan, scenario, snapshot, pretrained, pipeline, device),
        pretrained=pretrained,
        pipeline=pipeline,
        device=device,
        computing=Computing.of(plan.engine, device, pretrained),
    )
