"""SLDA: class means and one covariance, updated image by image; a linear discriminant on frozen features.

Paper: Hayes, Kanan. Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis, CVPR Workshops 2020,
arXiv 1909.01520.
Official code: tyler-hayes/Deep_SLDA at bc15797, ``SLDA_Model.py``. Means, covariance, its inverse and scores after the
first image and after all images of every task equal theirs to 1e-9 in float64
(tests/unit/methods/test_closed_form_golden.py). Written anew, no code taken.

Each image updates with the mean before it, ``Sigma <- (n Sigma + n / (n + 1) z z^T) / (n + 1)``; a batch is the same
recursion in the order of its images, with one product of matrices. ``slda@base-init`` learns the first experience as
one block, with OAS shrinkage. ``slda@first-session`` adapts a light module in the first experience (as RanPAC does;
first-session adaptation: Panos et al., ICCV 2023, arXiv 2303.13199), which the paper's ResNet is trained for.

Differences from the official code:
- Classes that were never seen cannot win. There they score 0, which can be the highest score: ``slda@official``.
- The first image of a class counts against a mean of zero there, kept here: Sigma is not quite the pooled covariance.
- Sums are float64. A batch given to the official ``fit`` at once is something else (repeated labels are lost).
- CLS token of a ViT instead of ResNet-18's mean over positions.

Nothing trains by gradients. Kept: C (D + 1) + D^2 + 1 numbers.
Expected: CORe50 class-incremental, online 0.79 (continual-learning-baselines); the paper's ImageNet figures are of a
ResNet trained on its first 100 classes. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_methods._first_session import Adaptation, FirstSessionConfig, StreamingSession
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.gaussian import linear_discriminant, oracle_approximating
from benchmark.config import Range
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SLDAConfig(FirstSessionConfig):
    """Options of SLDA; those of training matter where `adaptation` is not ``none``.

    Attributes:
        adaptation: What trains in the first experience; ``none``: nothing.
        shrinkage: s of ``((1 - s) Sigma + s I)^+``.
        plastic: Whether the covariance goes on changing.
        base_init: Learn the first experience as one block: means, and the covariance by OAS.
        unseen: Score of a class without images: ``masked``, or ``zero`` for all classes of the scenario.
    """

    adaptation: Adaptation = "none"
    shrinkage: Annotated[float, Range(min=0, max=1, log=True)] = 1e-4
    plastic: bool = True
    base_init: bool = False
    unseen: Literal["masked", "zero"] = "masked"


class StreamingDiscriminant(nn.Module):
    """What SLDA keeps, in float64.

    Args:
        width: D.
        shrinkage: s.
        plastic: Whether `add` changes the covariance.

    Attributes:
        means: ``(C, D)``, C the largest label met plus 1.
        counts: ``(C,)``.
        covariance: Sigma, ``(D, D)``; at first all ones, which the first update forgets.
        updates: n, images in the covariance.
        precision: Inverse of the shrunk covariance, of the last `settle`.
    """

    means: Tensor
    counts: Tensor
    covariance: Tensor
    updates: Tensor
    precision: Tensor

    def __init__(self, width: int, *, shrinkage: float = 1e-4, plastic: bool = True) -> None:
        super().__init__()
        self.shrinkage, self.plastic = shrinkage, plastic
        self.register_buffer("means", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("covariance", torch.ones(width, width, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("precision", torch.zeros(width, width, dtype=torch.float64))

    def _prepare(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Features in float64 and which images are of the same class, ``(B, B)``; rows for new classes."""
        new = int(labels.max()) + 1 - len(self.counts)
        if new > 0:
            self.means, self.counts = F.pad(self.means, (0, 0, 0, new)), F.pad(self.counts, (0, new))
        features = features.to(self.means.dtype)
        return features, (labels.unsqueeze(1) == labels).to(features.dtype)

    @torch.no_grad()
    def initialise(self, features: Tensor, labels: Tensor) -> None:
        """Means and shrunk covariance of a block of images ``(B, D)``, instead of what there was."""
        features, same = self._prepare(features, labels)
        means = (same @ features) / same.sum(dim=1, keepdim=True)  # of the class of each image
        self.means.index_copy_(0, labels, means)
        self.counts.zero_().index_add_(0, labels, torch.ones_like(labels))
        self.covariance.copy_(oracle_approximating(features - means))
        self.updates.fill_(len(labels))

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        """One update for each image of ``(B, D)``, in their order."""
        if len(labels) == 0:
            return
        features, same = self._prepare(features, labels)
        earlier = same.tril(-1)
        before = self.counts[labels].to(features.dtype).unsqueeze(1)  # images of its class before the batch
        known = (before + earlier.sum(dim=1, keepdim=True)).clamp(min=1)
        residuals = features - (before * self.means[labels] + earlier @ features) / known
        if self.plastic:
            updates = self.updates.to(features.dtype)
            n = updates + torch.arange(len(labels), device=labels.device)
            weights = (n / (n + 1)).unsqueeze(1)
            total = updates + len(labels)
            self.covariance.mul_(updates / total).addmm_((weights * residuals).T, residuals / total)
        sums = (self.means * self.counts.unsqueeze(1)).index_add_(0, labels, features)
        self.counts.index_add_(0, labels, torch.ones_like(labels))
        self.means.copy_(sums / self.counts.clamp(min=1).unsqueeze(1))
        self.updates += len(labels)

    @torch.no_grad()
    def settle(self) -> None:
        """Inverts the shrunk covariance."""
        shrunk = (1 - self.shrinkage) * self.covariance
        shrunk.diagonal().add_(self.shrinkage)
        self.precision.copy_(torch.linalg.pinv(shrunk))

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(B, C)``; 0 for classes without images."""
        weight, bias = linear_discriminant(self.means, self.precision)
        return (features.to(weight.dtype) @ weight.T + bias).to(features.dtype)


class SLDA(StreamingSession):
    """A streaming discriminant on frozen, or once adapted, features."""

    config: SLDAConfig

    def __init__(self, config: SLDAConfig, context: Context) -> None:
        super().__init__(config, context)
        self.discriminant = StreamingDiscriminant(
            context.backbone.width, shrinkage=config.shrinkage, plastic=config.plastic
        ).to(context.device)

    @property
    def collects(self) -> bool:
        """Also where the first experience is learnt as one block."""
        return super().collects or (self.config.base_init and len(self.discriminant.counts) == 0)

    def absorb(self, features: Tensor, labels: Tensor) -> None:
        """Initialises, where this is the first block, or updates image by image."""
        first = len(self.discriminant.counts) == 0
        learn = self.discriminant.initialise if self.config.base_init and first else self.discriminant.add
        learn(features, labels)

    def settle(self) -> None:
        """Inverts the covariance once for all predictions."""
        self.discriminant.settle()

    def predict(self, images: Tensor) -> Tensor:
        """Scores ``(B, largest label met + 1)``, or of all classes, for normalised images."""
        scores: Tensor = self.discriminant(self.tuned(images))
        if self.config.unseen == "zero":
            return F.pad(scores, (0, self.context.num_classes - scores.shape[1]))
        return scores.masked_fill(self.discriminant.counts == 0, -math.inf)


def uses(config: SLDAConfig) -> frozenset[str]:
    """A first block must know where it ends, scores of unseen classes how many there are; else nothing."""
    block = {"boundaries"} if config.base_init or config.adaptation != "none" else set()
    return frozenset(block | ({"num_classes"} if config.unseen == "zero" else set()))


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``slda``."""
    return [
        MethodSpec(
            name="slda",
            build=SLDA,
            config=SLDAConfig,
            summary="class means and one covariance, updated image by image; a linear discriminant",
            display="SLDA",
            tokens=lambda config: config.adaptation not in ("none", "finetune"),
            uses=uses,
            recipes={
                "base-init": {"base_init": True},
                "first-session": {"adaptation": "adapter"},
                "official": {"base_init": True, "unseen": "zero"},
            },
            default_recipe="streaming",
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "shrinkage": 0.0037},
                "mini": {"batch_size": 16, "epochs": 3},
            },
            rule="nano, shrinkage: results/search.py, best on held-out training images; first-session: values of "
            "ranpac's first session",
            toy={"bottleneck": 8},
            waits=1,  # which label is the largest: without boundaries it is not told how many classes there are
            sources={
                "shrinkage": "Deep_SLDA at bc15797, experiment.py",
                "plastic": "Deep_SLDA at bc15797, experiment.py",
                "streaming": "Deep_SLDA at bc15797, without base initialisation",
                "base-init": "Deep_SLDA at bc15797, SLDA_Model.py fit_base",
                "first-session": "adaptbench: module and values of RanPAC at 012927f",
                "official": "Deep_SLDA at bc15797, SLDA_Model.py predict",
            },
            paper="arXiv:1909.01520",
            reference="tyler-hayes/Deep_SLDA@bc15797",
            published="slda",
        )
    ]
