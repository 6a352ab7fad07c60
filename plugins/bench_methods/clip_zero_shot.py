"""CLIP zero-shot: each class is a text, an image goes to the closest one; nothing is trained.

Paper: Radford et al. Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020; one
template per data set: Zhou, Yang, Loy, Liu, arXiv 2109.01134.
Official code: openai/CLIP at d05afc43 (``data/prompts.md``, ``notebooks/Prompt_Engineering_for_ImageNet.ipynb``);
KaiyangZhou/CoOp at ff61507c (``trainers/zsclip.py``). Logits on a CLIP whose weights are a formula equal theirs to 2e-5
in float32 (tests/unit/methods/test_clip_zero_shot_golden.py). Written anew, no code taken.

``logit_c = exp(s) cos(f_img(x), t_c)``, where t_c is the normalised mean of the normalised features of the class's
texts, one per template.

Sentences of a language model about each class (CuPL: Pratt, Covert, Liu, Farhadi, ICCV 2023, arXiv 2209.03320;
sarahpratt/CuPL at 719619c8, ``classify_imagenet.py``) are read from a JSON file of the user's, ``{name: [sentence,
...]}``: ``--set method.sentences=FILE.json``. They are texts as they are, cut to what the tower takes. Every text of
a class weighs the same, so 50 sentences and 80 templates weigh 50 to 80; ``templates=`` (nothing) leaves the sentences
alone. None are shipped: the official files belong to that repository, under its names of the classes.

Differences from the official code:
- float32 throughout; official weights run in half precision on a GPU.
- ``clip-zero-shot@coop-ensemble`` has 8 templates; the official class adds the 8th to a list that all its instances
  share, so that a second instance has 9.
- Class names are the scenario's. OpenAI's edited names of ImageNet and EuroSAT give other figures.

Templates: ``--set templates="a photo of a {}, a type of pet."``; several are joined by ``|``, ``[a/the]`` stands for
either word, and a name of `TEMPLATES` for all of its templates: ``--set templates="imagenet-7|a photo of a {}."``.
The default is what CoOp has for most data sets, Office-Home, VisDA-17 and PACS among them.

Expected (ViT-B/16 of OpenAI): CIFAR-100 66.95 with an ensemble (open_clip ``docs/openclip_results.csv`` at 89fb801f);
Office-Home 82.4 and VisDA-17 88.7 per class with one template (LeapLabTHU/DAPrompt README). Not yet reproduced here
on the paper track.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods._templates import expand
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Transform
from benchmark.backbones.dual import dual_of, spoken
from benchmark.errors import UsageError
from benchmark.files import user_path
from benchmark.specs import MethodSpec

KEPT = 4  # sets of classes whose text features are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipZeroShotConfig(MethodConfig):
    """Options of zero-shot classification.

    Attributes:
        templates: What a class is called, ``{}`` being its name: `expand`; may be empty where there are `sentences`.
        sentences: A JSON file with a list of sentences for each class name; empty: none.
    """

    epochs: int = 0
    augment: bool = False
    templates: str = "a photo of a {}."
    sentences: str = ""

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.epochs:
            raise ValueError(f"epochs: {self.epochs} passes change nothing, because nothing is trained; use 0")
        if self.templates or not self.sentences:
            expand(self.templates)

    @property
    def texts(self) -> tuple[str, ...]:
        """The templates."""
        return expand(self.templates) if self.templates else ()

    @property
    def template_count(self) -> int:
        """Number of templates per class."""
        return len(self.texts)


class ClipZeroShot(Method):
    """Text features of the classes seen so far, or of any others; the dual encoder is as it was."""

    config: ClipZeroShotConfig

    def __init__(self, config: ClipZeroShotConfig, context: Context) -> None:
        super().__init__(config, context)
        self.dual = dual_of(context.backbone)
        self.names: tuple[str, ...] = ()
        self._features: dict[tuple[str, ...], Tensor] = {}
        self._sentences = read_sentences(config.sentences) if config.sentences else {}
        self.to(context.device)

    def passes(self) -> Sequence[Transform]:
        """None: training images are not read."""
        return ()

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Not called: there is no pass.

        Raises:
            TypeError: Always.
        """
        raise TypeError("clip-zero-shot trains nothing; the engine makes no pass")

    def begin_experience(self, experience: ExperienceView) -> None:
        """Takes the names of the classes seen so far."""
        self.names = experience.class_names
        self.text_features(self.names)

    @torch.no_grad()
    def text_features(self, names: Sequence[str]) -> Tensor:
        """Normalised text features ``(C, d)`` of classes, computed once."""
        key = tuple(names)
        if key not in self._features:
            while len(self._features) >= KEPT:
                del self._features[next(iter(self._features))]
            self._features[key] = self._computed(key)
        return self._features[key]

    def _computed(self, names: Sequence[str]) -> Tensor:
        templates = self.config.texts
        if not self.config.sentences:
            return self.dual.class_features(names, templates)
        rows = []
        for name in names:
            told = self._sentences.get(spoken(name))
            if not told:
                raise UsageError(
                    f"{self.config.sentences}: no sentences for class `{name}`",
                    hint="every class name of the scenario needs a list of sentences in the file",
                )
            texts = [*told, *(template.replace("{}", spoken(name)) for template in templates)]
            each = F.normalize(self.dual.text_features(texts, truncate=True), dim=1)
            rows.append(F.normalize(each.mean(dim=0), dim=0))
        return torch.stack(rows)

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` for normalised images."""
        return self.predict_named(images, self.names)

    def predict_named(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Logits ``(B, len(names))`` among classes of any name."""
        return self.dual.logits(self.dual.image_features(images), self.text_features(names))

    def extra_state(self) -> Mapping[str, Any]:
        """Names of the classes seen so far."""
        return {"names": list(self.names)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts the names back."""
        self.names = tuple(state["names"])
        self.text_features(self.names)


def read_sentences(file: str) -> Mapping[str, list[str]]:
    """Sentences by class name, underscores as blanks.

    Raises:
        UsageError: It cannot be read, or is no mapping of names to lists of texts.
    """
    path = user_path(file)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: {error}", hint='give a JSON file {"class name": ["sentence", ...], ...}') from error
    good = isinstance(found, dict) and all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in found.values()
    )
    if not good:
        raise UsageError(
            f"{file}: it is no mapping of class names to lists of sentences",
            hint='give a JSON file {"class name": ["sentence", ...], ...}',
        )
    return {spoken(name): texts for name, texts in found.items()}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``clip-zero-shot``."""
    return [
        MethodSpec(
            name="clip-zero-shot",
            build=ClipZeroShot,
            config=ClipZeroShotConfig,
            summary="CLIP with text templates or ensembles of them; trains nothing",
            uses=frozenset({"class_names", "open_vocabulary"}),
            recipes={
                "imagenet-7": {"templates": "imagenet-7"},
                "imagenet-80": {"templates": "imagenet-80"},
                "cifar": {"templates": "cifar"},
                "coop-ensemble": {"templates": "imagenet-7|a photo of a {}."},
                "promptsrc-60": {"templates": "promptsrc-60"},
            },
            default_recipe="single",
            tracks={"nano": {"templates": "a drawing of {}."}},
            rule="nano: what the pictures are; elsewhere the published template",
            sources={
                "templates": "CoOp trainers/zsclip.py at ff61507c: ImageNet, Caltech101, Cars, SUN397",
                "single": "CoOp trainers/zsclip.py at ff61507c, ZeroshotCLIP",
                "imagenet-7": "openai/CLIP at d05afc43, notebook: the best 7 of the 80",
                "imagenet-80": "openai/CLIP at d05afc43, notebook",
                "cifar": "openai/CLIP at d05afc43, data/prompts.md",
                "promptsrc-60": "muzairkhattak/PromptSRC at bb95c77b: its texts, there averaged before normalising",
                "sentences": "sarahpratt/CuPL at 719619c8; none are shipped",
                "coop-ensemble": "CoOp trainers/zsclip.py at ff61507c, ZeroshotCLIP2",
            },
            paper="arXiv:2103.00020",
            reference="openai/CLIP@d05afc43",
            control=True,
            text=True,
            published="clip-zero-shot",
        )
    ]
