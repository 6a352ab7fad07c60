"""PROOF: projections of CLIP's features for every experience, fused by attention with texts and class means.

Paper: Zhou, Zhang, Wang, Ning, Ye, Zhan, Liu. Learning without Forgetting for Vision-Language Models, TPAMI 2025, arXiv
2305.19270.
Restated: no official code ran. The description is that of LAMDA-CL/C3Box at 1378ab21 (``models/proof.py``,
``utils/inc_net.py``, ``backbone/projections.py``, ``exps/proof.json``), by the authors' group. Written anew, no code
taken; fusion, losses and what trains are compared with their formulas (tests/unit/methods/test_proof.py).

With sums over the experiences b so far ``v = sum P_i^b f(x)``, ``t_k = sum P_t^b g(name k)``,
``q_k = unit(sum P_i^b p_k)``, where p_k is the mean of ``unit(v)`` over class k as its experience begins, with the new
projection untrained, and then fixed. One head of attention with a residual sum and LayerNorm goes over the sequence
``[v, t_1 .. t_C, q_1 .. q_C, c^1 .. c^b]`` of an image, c^b being 3 vectors of an experience. What it makes of texts
and class means, t' and q', is averaged over the **batch**::

    L = CE(v' t'^T, y) + CE(v' q'^T, y) + L_clip(v, t_y)      v and t of length one; L_clip: symmetric, within the batch
    z = v t^T + v' t'^T + v' q'^T                             at test time; v is not normalised

So a prediction depends on the other images of its test batch, and `test_batch` is declared; batches are of 64 images.
``proof@alone`` averages nothing: every image is compared with its own t' and q', in training as well.

Trained in an experience: its P_i, c, attention, the scale of L_clip and **all** P_t, as in C3Box, where a loop that by
its comment freezes the old ones lets them train; ``old_texts=frozen`` does what the comment says.

What the description leaves open, and what stands here: projections start as torch's linear layers; the output layer of
the attention has a bias that starts so, too; the texts are those of CLIP for CIFAR, the first of which trains; their
features are projected, normalised, averaged and normalised again, as in CLIP's ensembles; herding is on unit features
of the frozen tower.

Differences from C3Box:
- Exemplars are kept as features of the frozen image tower, without augmentation. Each joins one batch of an epoch,
  beside `batch_size` new images.
- A class that comes again keeps its first mean, and its exemplars are chosen anew.
- float32; sums of class means float64.

Trainable in experience b: 4 e^2 of the attention, (b + 1) (e^2 + e) of projections (e = 512: 1.6 million in the first).
No figures are in the sources read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._templates import expand
from bench_methods.icarl import herd
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView, FeatureConfig, FeatureMethod, Place, Transform
from benchmark.backbones.dual import spoken
from benchmark.backbones.prototypes import ClassMeans
from benchmark.backbones.task_modules import TaskModules
from benchmark.config import Range
from benchmark.learners.named import NamedMethod, TextFeatures, features_of
from benchmark.specs import MethodSpec

_AT_ONCE = 256  # images per pass that only reads features
_CONTEXT = 3  # free vectors of an experience


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofConfig(FeatureConfig):
    """Options of PROOF; the defaults are C3Box's.

    Attributes:
        epochs: Passes that train; one before them reads the images for the class means.
        batch_size: New images of a batch; exemplars join them.
        templates: Texts of a class, see ``clip-zero-shot``; the first one trains, all of them are used at test time.
        lr: Learning rate of SGD in the first epoch; it falls along a cosine from epoch to epoch.
        momentum: Of SGD.
        weight_decay: Of SGD, on everything that trains.
        exemplars: Images of each class whose features are kept.
        dropout: Of the attention: of its weights, and of what it gives.
        averaged: What t' and q' are averaged over: the ``batch``, or nothing (``image``).
        old_texts: Whether text projections of earlier experiences are ``trained`` on or ``frozen``.
    """

    epochs: int = 10
    batch_size: int = 64
    templates: str = "cifar"
    lr: Annotated[float, Range(above=0, log=True, search=(1e-4, 1e-1))] = 0.001
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    weight_decay: Annotated[float, Range(min=0, log=True)] = 0.05
    exemplars: Annotated[int, Range(min=1)] = 20
    dropout: Annotated[float, Range(min=0, below=1)] = 0.1
    averaged: Literal["batch", "image"] = "batch"
    old_texts: Literal["trained", "frozen"] = "trained"

    def __post_init__(self) -> None:
        FeatureConfig.__post_init__(self)
        expand(self.templates)


class Fusion(nn.Module):
    """One head of attention over sequences, with a residual sum and LayerNorm.

    Args:
        width: Of the features, e.
        dropout: Of the weights, and of the output.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        for part in (self.query, self.key, self.value):
            nn.init.normal_(part.weight, std=math.sqrt(2 / (2 * width)))
        self.output = nn.Linear(width, width)
        nn.init.xavier_normal_(self.output.weight)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """Sequences ``(B, n, e)`` that know of one another."""
        scores = self.query(rows) @ self.key(rows).mT / math.sqrt(rows.shape[-1])
        mixed = self.dropout(scores.softmax(dim=-1)) @ self.value(rows)
        found: Tensor = self.norm(rows + self.dropout(self.output(mixed)))
        return found


class Proof(NamedMethod, FeatureMethod):
    """Projections and free vectors of every experience, one attention, class means and exemplars."""

    config: ProofConfig

    def __init__(self, config: ProofConfig, context: Context) -> None:
        super().__init__(config, context)
        width = self.dual.feature_width
        self.image_projections = TaskModules(lambda: nn.Linear(width, width))
        self.text_projections = TaskModules(lambda: nn.Linear(width, width))
        self.contexts = TaskModules(lambda: nn.ParameterList([torch.randn(_CONTEXT, width)]))
        self.fusion = Fusion(width, config.dropout)
        self.scale = nn.Parameter(self.dual.logit_scale.detach().clone())
        self.prototypes = ClassMeans(width, normalise=True)
        self.exemplars: dict[int, Tensor] = {}  # by class, first choice first: features (m, e)
        self.order = torch.zeros(0, dtype=torch.int64)  # in which they join batches, this epoch
        self.fresh: frozenset[int] = frozenset()  # classes that no earlier experience had
        templates = expand(config.templates)
        self.texts = TextFeatures(
            lambda names: torch.stack(
                [self.dual.text_features([text.replace("{}", spoken(name)) for name in names]) for text in templates]
            )
        )
        self.to(context.device)

    def encode(self, images: Tensor) -> Tensor:
        """Features ``(B, e)`` of the frozen image tower, not normalised."""
        return self.dual.image_features(images)

    def begin_experience(self, experience: ExperienceView) -> None:
        """Opens projections and free vectors, and makes SGD."""
        super().begin_experience(experience)
        counts = self.prototypes.counts.tolist()
        self.fresh = frozenset(label for label in experience.classes if label >= len(counts) or not counts[label])
        for kept in (self.image_projections, self.text_projections, self.contexts):
            kept.open()
        if self.config.old_texts == "trained":
            self.text_projections.requires_grad_(True)
        self.texts(self.names)  # all texts now, none within a step
        parts = (self.image_projections, self.text_projections, self.contexts, self.fusion)
        trained = [one for part in parts for one in part.parameters() if one.requires_grad]
        self.optimizer = torch.optim.SGD(
            [*trained, self.scale],
            lr=self.config.lr,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )

    def passes(self) -> Sequence[Transform]:
        """One for the class means, then those that train."""
        once: tuple[Transform, ...] = ("train",)
        return ("test", *once * self.config.epochs)

    def rate(self, place: Place) -> float:
        """Learning rate of an epoch; the first one, of the class means, does not count."""
        return self.config.lr * (1 + math.cos(math.pi * (place.epoch - 1) / self.config.epochs)) / 2

    @property
    def coupled(self) -> str | None:
        """See `Method.coupled`."""
        return "texts and class means are averaged over the batch, which also holds exemplars"

    def project_images(self, features: Tensor) -> Tensor:
        """Sum of all projections of image features ``(B, e)``."""
        return torch.stack([part(features) for part in self.image_projections]).sum(dim=0)

    def project_texts(self, features: Tensor) -> Tensor:
        """Sum of all projections of text features ``(..., e)``."""
        return torch.stack([part(features) for part in self.text_projections]).sum(dim=0)

    def fused(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the attention makes of images, texts and class means.

        Args:
            images: v, ``(B, e)``.
            texts: t of the classes seen, ``(C, e)``.

        Returns:
            v' ``(B, e)``, then t' and q', ``(C, e)`` as means over the batch, or ``(B, C, e)``.
        """
        means = self.prototypes.means.to(images.dtype)
        means = F.normalize(self.project_images(means), dim=1)
        free = torch.cat([part[0] for part in self.contexts])
        rest = torch.cat([texts, means, free])
        rows = torch.cat([images.unsqueeze(1), rest.expand(len(images), -1, -1)], dim=1)
        found, count = self.fusion(rows), len(texts)
        each = found[:, 1 : 1 + count], found[:, 1 + count : 1 + 2 * count]
        if self.config.averaged == "batch":
            return found[:, 0], each[0].mean(dim=0), each[1].mean(dim=0)
        return found[:, 0], each[0], each[1]

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of SGD, or class means of a batch; then there is no loss: the entry is 0."""
        features, labels = features_of(batch), batch.labels
        if batch.place.epoch == 0:
            with torch.no_grad():
                new = torch.isin(labels, torch.tensor(sorted(self.fresh), dtype=labels.dtype).to(labels.device))
                self.prototypes.add(self.project_images(features[new]), labels[new])
            return {"loss": 0.0}
        for group in self.active_optimizer.param_groups:
            group["lr"] = self.rate(batch.place)
        terms = self.losses(*self._with_exemplars(features, labels, batch.place))
        self.descend(terms["loss"])
        return {name: term.detach() for name, term in terms.items()}

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The three terms of a batch, and their sum under ``loss``.

        Args:
            features: Of the frozen tower, ``(B, e)``.
            labels: ``(B,)``.
        """
        images = F.normalize(self.project_images(features), dim=1)
        texts = F.normalize(self.project_texts(self.texts(self.names)[0]), dim=1)
        fused, own, means = self.fused(images, texts)
        pairs = self.scale.exp() * images @ texts[labels].T
        diagonal = torch.arange(len(labels), device=labels.device)
        terms = {
            "loss_text": F.cross_entropy(_products(fused, own), labels),
            "loss_mean": F.cross_entropy(_products(fused, means), labels),
            "loss_pairs": (F.cross_entropy(pairs, diagonal) + F.cross_entropy(pairs.T, diagonal)) / 2,
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _with_exemplars(self, features: Tensor, labels: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """A batch and as many exemplars as bring each of them once into an epoch, in a new order."""
        places = [(label, row) for label, kept in self.exemplars.items() for row in range(len(kept))]
        part, steps = place.epoch_step, place.epoch_steps
        if part == 0:
            self.order = torch.randperm(len(places))
        chosen = self.order[len(places) * part // steps : len(places) * (part + 1) // steps].tolist()
        if not chosen:
            return features, labels
        more = torch.stack([self.exemplars[label][row] for label, row in (places[one] for one in chosen)])
        told = torch.tensor([places[one][0] for one in chosen])
        more, told = (found.to(labels.device, non_blocking=True) for found in (more, told))
        return torch.cat([features, more.to(features.dtype)]), torch.cat([labels, told])

    @torch.no_grad()
    def end_experience(self, experience: ExperienceView) -> None:
        """Chooses exemplars by herding; their features are kept."""
        train = experience.train
        for label in experience.classes:
            raw = train.images(torch.nonzero(train.labels == label).flatten())
            parts = [
                self.encode(self.context.pipeline.eval(part.to(self.context.device)).to(self.scale.dtype))
                for part in torch.split(raw, _AT_ONCE)
            ]
            found = torch.cat(parts)
            chosen = herd(F.normalize(found, dim=1), self.config.exemplars)
            self.exemplars[label] = found[chosen.to(found.device)].cpu()

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)``."""
        return self.logits(self.encode(images))

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` of frozen features, with all templates."""
        texts = F.normalize(self.project_texts(self.texts(self.names)), dim=-1).mean(dim=0)
        texts = F.normalize(texts, dim=1)
        images = self.project_images(features)
        fused, own, means = self.fused(images, texts)
        return images @ texts.T + _products(fused, own) + _products(fused, means)

    def extra_state(self) -> Mapping[str, Any]:
        """Names, exemplars, and their order in this epoch."""
        return {**super().extra_state(), "exemplars": self.exemplars, "order": self.order}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        super().load_extra_state(state)
        self.exemplars, self.order = dict(state["exemplars"]), state["order"]


def _products(images: Tensor, rows: Tensor) -> Tensor:
    """Products ``(B, C)`` of ``(B, e)`` with rows ``(C, e)`` of all, or ``(B, C, e)`` of each."""
    return images @ rows.T if rows.ndim == 2 else torch.einsum("be,bce->bc", images, rows)


def uses(config: ProofConfig) -> frozenset[str]:
    """What a configuration sees beyond images and labels."""
    more = {"test_batch"} if config.averaged == "batch" else set[str]()
    return frozenset({"boundaries", "class_names", "memory", *more})


_SOURCE = "LAMDA-CL/C3Box at 1378ab21, models/proof.py and exps/proof.json"
_FIELDS = ("c3box", "lr", "momentum", "weight_decay", "epochs", "batch_size", "exemplars", "dropout", "old_texts")


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``proof``."""
    return [
        MethodSpec(
            name="proof",
            build=Proof,
            config=ProofConfig,
            display="PROOF",
            summary="PROOF: projections of CLIP's features per experience, fused by attention (restated)",
            uses=uses,
            default_recipe="c3box",
            recipes={"alone": {"averaged": "image"}},
            engine={"c3box": {"eval_batch_size": 64}},
            tracks={
                "nano": {"augment": False, "batch_size": 32, "templates": "a drawing of {}."},
                "mini": {"views": 2, "epochs": 5},
            },
            rule="nano, lr: results/search.py, within the noise of the best on held-out training images; else guesses",
            toy={"epochs": 1, "exemplars": 2},
            waits=8,  # class means: which classes a batch holds, and how many of each were met
            sources={name: _SOURCE for name in _FIELDS}
            | {
                "views": "adaptbench; 0 is C3Box's way",
                "templates": "adaptbench: those of C3Box are not in the description",
                "alone": "adaptbench: predictions that depend on their image alone",
            },
            paper="arXiv:2305.19270",
            reference="LAMDA-CL/C3Box@1378ab21",
            text=True,
        )
    ]
