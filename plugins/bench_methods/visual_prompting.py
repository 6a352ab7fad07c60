"""Visual prompting: one pattern of pixels, added to every image, trains; the model and its classifier are frozen.

Paper: Bahng, Jahanian, Sankaranarayanan, Isola. Exploring Visual Prompts for Adapting Large-Scale Models, 2022, arXiv
2203.17274; mapping by frequency: Chen et al. (ILM-VP), CVPR 2023, arXiv 2211.11635.
Official code: hjbahng/visual_prompting at 679e71f; OPTML-Group/ILM-VP at 84ca042. Prompted images, mapped logits,
losses, gradients, learning rates and three steps equal theirs to 1e-9 in float64
(tests/unit/methods/test_visual_prompting_golden.py). Written anew, no code taken.

There is no trained head, so a frozen classifier must say what the prompt shall achieve:
- `visual-prompting-clip` is the main form of the paper: the texts of the classes seen.
- ``readout=mapping`` (recipes ``vision``, ``random-mapping``, ``flm``, ``ilm``) is its form for vision models: the
  checkpoint's own classifier, whose logits are read as those of the target classes. It needs a checkpoint with a
  head, e.g. ``timm:vit_base_patch16_224.augreg_in21k_ft_in1k``; the bundled backbones have none.
- ``readout=prototypes``, the default, is adaptbench's, for backbones without head: cosines to the mean features of the
  *unprompted* training images of each class, taken once when the class comes. With ``prompts=off`` it is
  `nearest-mean`, so the difference is what the prompt adds.
- ``readout=linear`` is adaptbench's too, and no visual prompting in the narrow sense: a head trains as well.

Differences from the paper and the official code:
- In a stream the experiences are trained in turn with the same pattern; the paper has one task.
- A random patch has one place per training step, as there. At test time the official code draws a place per batch,
  which makes predictions random: here the patch is in the middle (``test_position``). ``random-patch-official`` takes
  a place that follows from the content of the test batch: it leaks, and is marked.
- Random numbers come from torch's generator; the official script does not seed numpy's.
- The checkpoint that is best on the *test* set is kept there; here the last state counts. No mixed precision.
- ``prompt_size`` 0 scales the 30 of 224 pixels to the backbone's input. ``expansive`` shrinks the transformed image.
- Not here: adversarial reprogramming (tanh, small image on a black canvas).

Trainable: 69,840 (padding 30, 224 px), 2,700 (patch). Expected: ResNet-18, pad + ILM: CIFAR-10 65.5, CIFAR-100 24.8
(SMM, ICML 2024, Table 1). No figure for streams or plain ViTs is published; not yet reproduced here on the paper track.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bench_methods._pixel_prompting import OFFICIAL, PROMPTS, SOURCES, PixelConfig, PixelPrompting, uses
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView
from benchmark.backbones.heads import ClassHead, HeadInit
from benchmark.backbones.label_mapping import LabelMapping, at_random, count_matrix, frequent, in_order
from benchmark.backbones.prompted_vit import check_promptable, cls_feature, freeze
from benchmark.backbones.prototypes import ClassMeans
from benchmark.config import Range
from benchmark.errors import UsageError
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class VisualPromptingConfig(PixelConfig):
    """Options of visual prompting of a ViT.

    Attributes:
        readout: Frozen classifier: ``prototypes`` or ``mapping``; or a ``linear`` head that trains.
        scale: Factor on the cosines of ``prototypes``.
        mapping: Source class that each target class reads: ``fixed``: class i that of number i. ``random``.
            ``frequency``: for which its images are taken most often at the start of its experience. ``iterative``:
            the same, anew in every epoch.
        multiplicity: Source classes per target class; their logits are averaged.
        head_lr: Learning rate of the ``linear`` head.
        head_init: How its rows are drawn.
    """

    readout: Literal["prototypes", "mapping", "linear"] = "prototypes"
    scale: Annotated[float, Range(above=0)] = 20.0
    mapping: Literal["fixed", "random", "frequency", "iterative"] = "fixed"
    multiplicity: Annotated[int, Range(min=1)] = 1
    head_lr: Annotated[float, Range(above=0, log=True)] = 0.01
    head_init: HeadInit = "trunc_normal"

    def __post_init__(self) -> None:
        PixelConfig.__post_init__(self)
        if self.readout != "mapping" and (self.mapping != "fixed" or self.multiplicity != 1):
            raise ValueError(f"mapping: has no effect with readout `{self.readout}`; use readout `mapping`")


class VisualPrompting(PixelPrompting):
    """A ViT's class token, and a classifier as `VisualPromptingConfig.readout` says."""

    config: VisualPromptingConfig

    def __init__(self, config: VisualPromptingConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = context.backbone.model
        check_promptable(self.backbone)
        freeze(self.backbone)
        self.source = context.backbone.classifier if config.readout == "mapping" else None
        if config.readout == "mapping" and self.source is None:
            raise UsageError(
                f"readout: the checkpoint of backbone `{context.backbone.name}` has no classifier to map",
                hint="use --backbone timm:vit_base_patch16_224.augreg_in21k_ft_in1k, or readout=prototypes",
            )
        self.classifier: LabelMapping | ClassMeans | ClassHead
        if config.readout == "mapping":
            self.classifier = LabelMapping(config.multiplicity)
        elif config.readout == "prototypes":
            self.classifier = ClassMeans(context.backbone.width)
        else:
            self.classifier = ClassHead(context.backbone.width, init=config.head_init)
        self._view: ExperienceView | None = None
        self.to(context.device)

    def encode(self, images: Tensor) -> Tensor:
        """Class token ``(B, D)``."""
        return cls_feature(self.backbone, images)

    def classify(self, features: Tensor) -> Tensor:
        """Mapped source logits, scaled cosines, or those of the head."""
        if self.source is not None:
            features = self.source(features)
        logits: Tensor = self.classifier(features)
        return self.config.scale * logits if self.config.readout == "prototypes" else logits

    def groups(self) -> list[dict[str, Any]]:
        """The prompt, and the head where one trains."""
        lr = self.config.head_lr
        head = list(self.classifier.parameters())
        return super().groups() + ([{"params": head, "lr": lr, "base_lr": lr}] if head else [])

    def meet(self, experience: ExperienceView) -> None:
        """New rows, class means, or source classes."""
        if isinstance(self.classifier, ClassHead):
            self.classifier.grow(experience.seen)
        elif isinstance(self.classifier, ClassMeans):
            with torch.no_grad():
                for images, labels in self.whole(experience):
                    self.classifier.add(self.encode(images), labels)
        else:
            self._view = experience if self.config.mapping == "iterative" else None
            self._map(experience)

    def _map(self, experience: ExperienceView) -> None:
        """Gives the classes of an experience their source classes; those of other classes are taken."""
        if self.source is None or not isinstance(self.classifier, LabelMapping):
            raise TypeError("only a classifier of source classes is mapped")
        kind, many, classes = self.config.mapping, self.config.multiplicity, experience.classes
        known = self.source.out_features
        taken = self.classifier.taken(without=classes)
        if known < many * experience.seen:
            raise UsageError(
                f"mapping: {experience.seen} classes need {many * experience.seen} source classes, "
                f"the checkpoint's classifier has {known}",
                hint="lower multiplicity, or use readout=prototypes",
            )
        if kind == "fixed":
            found = in_order(classes, many)
        elif kind == "random":
            found = at_random(len(classes), known, many, taken)
        else:
            place = {label: row for row, label in enumerate(classes)}
            counts = torch.zeros(known, len(classes), dtype=torch.int64, device=taken.device)
            with torch.no_grad():
                for images, labels in self.whole(experience):
                    guess = self.source(self.encode(self.prompted(images, training=False))).argmax(dim=1)
                    rows = torch.tensor([place[label] for label in labels.tolist()], device=guess.device)
                    counts += count_matrix(guess, rows, sources=known, targets=len(classes))
            found = frequent(counts, many, taken)
        self.classifier.assign(classes, found)

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Maps anew at the start of an epoch, where the mapping is iterative; then as in all forms."""
        if self._view is not None and batch.place.epoch > 0 and batch.place.epoch_step == 0:
            self._map(self._view)
        return super().train_step(batch)

    def end_experience(self, experience: ExperienceView) -> None:
        """Lets go of the training images."""
        self._view = None


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``visual-prompting``."""
    return [
        MethodSpec(
            name="visual-prompting",
            build=VisualPrompting,
            config=VisualPromptingConfig,
            summary="a pattern of pixels on every image trains; the ViT and its classifier are frozen",
            uses=uses,
            recipes={
                **PROMPTS,
                "linear": {"readout": "linear"},
                "vision": {**OFFICIAL, "readout": "mapping", "normalize": "imagenet", "batch_size": 128},
                "random-mapping": {"readout": "mapping", "mapping": "random"},
                "flm": {"readout": "mapping", "mapping": "frequency"},
                "ilm": {
                    "readout": "mapping",
                    "mapping": "iterative",
                    "prompt": "expansive",
                    "optimizer": "adam",
                    "lr": 0.01,
                    "epochs": 200,
                    "drops": (0.5, 0.72),
                    "normalize": "imagenet",
                },
            },
            tracks={
                "nano": {"batch_size": 32, "lr": 0.03, "epochs": 2},
                "mini": {"batch_size": 64, "lr": 0.03, "epochs": 1},
            },
            rule="results/search.py: best on held-out training images of the first experiences",
            sources={
                **SOURCES,
                "linear": "adaptbench: no visual prompting in the narrow sense",
                "vision": "hjbahng/visual_prompting main_vision.py; last instead of best test epoch",
                "random-mapping": "ILM-VP: RLM",
                "flm": "ILM-VP algorithms/flm_calculation.py, mapping at the start",
                "ilm": "ILM-VP, its recipe for ResNets: expansive prompt, mapping in every epoch",
                "readout": "adaptbench: bundled backbones have no classifier",
            },
            paper="arXiv:2203.17274",
            reference="hjbahng/visual_prompting@679e71f",
            published="visual-prompting",
        ),
    ]
