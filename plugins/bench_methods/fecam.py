"""FeCAM: Mahalanobis distances to class means, with a normalised covariance for each class, on frozen features.

Paper: Goswami, Liu, Twardowski, van de Weijer. FeCAM: Exploiting the Heterogeneity of Class Distributions in
Exemplar-Free Continual Learning, NeurIPS 2023, arXiv 2309.14062.
Official code: dipamgoswami/FeCAM at d2479b7 (``FeCAM_vit_*.py`` for ViTs, ``models/fecam.py`` for ResNets);
LAMDA-CL/LAMDA-PILOT at 5240714, ``models/fecam.py``. Means, covariances and distances of its ViT script and of its
learner (a covariance per class, and a common one) equal theirs to 1e-9 in float64
(tests/unit/methods/test_closed_form_golden.py); `pilot` is restated from the text. Written anew, no code taken.

There are three arithmetics; `variant` says which:

- ``vit``: normalised features, ``M = corr(shrink(cov(u)))``.
- ``tukey`` (features of a ReLU network): ``S = shrink(cov(T(f)))`` with ``T(x) = x^power``, ``M = corr(shrink(S))``,
  shrunk twice; distances between normalised ``T(x)`` and ``T(mean)``. With ``covariance=common`` one matrix, ``S <- r
  S + (1 - r) shrink(cov(T(f)))`` with r the share of known classes, not normalised.
- ``pilot``: ``M = corrcoef(cov(f) + 100 I)``, where rows of the covariance are correlated as if they were variables.

Differences from the official code:
- In the first experience the learner measures distances to the weights of a classifier that was trained in it; here
  nothing is trained, and distances are those of every other experience.
- A class that comes again: means are those of all its images, shrunk covariances are averaged, the old one and the new
  one with a half each, as in the CORe50 script, here in every variant.
- A class of a single image has no covariance: I instead.
- ``tukey`` is no recipe, as it has no meaning on a ViT: ``--set variant=tukey --set alpha2=1`` with a ResNet.
- float64; distances row by row instead of the diagonal of an N x N product.

Nothing trains by gradients. Kept: C (D + D^2) numbers and the inverses, C D^2 more.
Expected: no figure of the paper was accessible as text. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods._first_session import Adaptation, FirstSession, FirstSessionConfig
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.backbones.gaussian import ClassGaussians, correlation, mahalanobis, shrink, tukey
from benchmark.backbones.prototypes import ClassMeans
from benchmark.config import Range
from benchmark.specs import MethodSpec

PILOT_RIDGE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FeCAMConfig(FirstSessionConfig):
    """Options of FeCAM; those of training matter where `adaptation` is not ``none``.

    Attributes:
        adaptation: What trains in the first experience; ``none``: nothing.
        variant: Which arithmetic: ``vit``, ``tukey`` or ``pilot``, see the head of this file.
        alpha1: Shrinkage: how often the mean variance is added to the diagonal.
        alpha2: How often the mean of the other entries is added to them.
        power: Of Tukey's transform, variant ``tukey``; 0: logarithm, 1: none.
        covariance: ``class``, or ``common`` in variant ``tukey``.
    """

    adaptation: Adaptation = "none"
    variant: Literal["vit", "tukey", "pilot"] = "vit"
    alpha1: Annotated[float, Range(min=0, log=True, search=(0.1, 100))] = 1.0
    alpha2: Annotated[float, Range(min=0)] = 0.0
    power: Annotated[float, Range(min=0)] = 0.5
    covariance: Literal["class", "common"] = "class"

    def __post_init__(self) -> None:
        FirstSessionConfig.__post_init__(self)
        if self.covariance == "common" and self.variant != "tukey":
            raise ValueError(f"covariance: common has no meaning with variant `{self.variant}`; use variant `tukey`")


class FeCAM(FirstSession):
    """Class means, shrunk covariances, and their inverses."""

    config: FeCAMConfig
    covariances: Tensor  # shrunk once, (C, D, D), or (1, D, D) for all classes
    precisions: Tensor

    def __init__(self, config: FeCAMConfig, context: Context) -> None:
        super().__init__(config, context)
        width = context.backbone.width
        self.class_means = ClassMeans(width, normalise=config.variant == "vit")
        self.register_buffer("covariances", torch.zeros(0, width, width, dtype=torch.float64))
        self.register_buffer("precisions", torch.zeros(0, width, width, dtype=torch.float64))
        self.to(context.device)

    def features(self, images: Tensor) -> Tensor:
        """Class tokens ``(B, D)`` of the adapted model."""
        return self.tuned(images)

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Means and covariances of the experience."""
        features = features.to(torch.float64)
        known = self.class_means.classes
        self.class_means.add(features, labels)
        spread = self._spread(features)
        if self.config.covariance == "common":
            self._share(torch.cov(spread.T), known)
        else:
            self._collect(spread, labels)
        self.precisions = torch.linalg.pinv(self.normalised(), hermitian=True)

    def _spread(self, features: Tensor) -> Tensor:
        """What covariances are computed of."""
        if self.config.variant == "tukey":
            return tukey(features, self.config.power)
        return F.normalize(features, dim=1) if self.config.variant == "vit" else features

    def _shrunk(self, covariances: Tensor) -> Tensor:
        if self.config.variant == "pilot":  # one shrinkage of its own, in `normalised`
            return covariances
        return shrink(covariances, diagonal=self.config.alpha1, off_diagonal=self.config.alpha2)

    def _collect(self, spread: Tensor, labels: Tensor) -> None:
        """A covariance for each class of the experience, averaged with the one that it has."""
        own = ClassGaussians(spread.shape[1]).to(spread.device)
        own.add(spread, labels)
        shrunk, present = self._shrunk(own.covariances()), own.counts > 0
        new = self.class_means.classes - len(self.covariances)
        before = len(self.covariances)
        kept = torch.cat([self.covariances, self.covariances.new_zeros(new, *self.covariances.shape[1:])])
        for label in present.nonzero().flatten().tolist():
            again = label < before and bool(kept[label].any())
            kept[label] = (kept[label] + shrunk[label]) / 2 if again else shrunk[label]
        self.covariances = kept

    def _share(self, covariance: Tensor, known: int) -> None:
        """One covariance of all classes, moved by the share of new ones; the first is not shrunk."""
        if len(self.covariances) == 0:
            self.covariances = covariance.unsqueeze(0)
            return
        share = known / self.class_means.classes
        self.covariances = share * self.covariances + (1 - share) * self._shrunk(covariance.unsqueeze(0))

    def normalised(self) -> Tensor:
        """The matrices that are inverted, ``(C, D, D)``, or ``(1, D, D)``."""
        config, found = self.config, self.covariances
        if config.covariance == "common":
            return found
        identity = torch.eye(found.shape[1], dtype=found.dtype, device=found.device)
        if config.variant == "pilot":
            return torch.stack([torch.corrcoef(one + PILOT_RIDGE * identity) for one in found])
        flat = found.diagonal(dim1=1, dim2=2).amax(dim=1) == 0  # of a single image
        again = self._shrunk(found) if config.variant == "tukey" else found
        return correlation(torch.where(flat[:, None, None], identity, again))

    def distances(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distances, float64 ``(B, C)``, of features ``(B, D)``."""
        features, means = features.to(torch.float64), self.class_means.means
        if self.config.variant == "tukey":
            features = tukey(features / (features.norm(dim=1, keepdim=True) + 1e-8), self.config.power)
            means = tukey(means, self.config.power)
        if self.config.variant != "vit":
            means = F.normalize(means, dim=1)
        common = self.config.covariance == "common"
        return mahalanobis(F.normalize(features, dim=1), means, self.precisions[0] if common else self.precisions)

    def predict(self, images: Tensor) -> Tensor:
        """Distances, negative, ``(B, classes seen)``; -inf for a class without images."""
        features = self.tuned(images)
        far = -self.distances(features)
        return far.masked_fill(self.class_means.counts == 0, -torch.inf).to(features.dtype)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``fecam``."""
    return [
        MethodSpec(
            name="fecam",
            build=FeCAM,
            config=FeCAMConfig,
            summary="Mahalanobis distances with a normalised covariance for each class, on frozen features",
            display="FeCAM",
            tokens=lambda config: config.adaptation not in ("none", "finetune"),
            uses=frozenset({"boundaries"}),
            recipes={
                "few-images": {"alpha1": 10.0, "alpha2": 10.0},
                "pilot": {"variant": "pilot", "adaptation": "adapter"},
            },
            default_recipe="vit",
            tracks={"nano": {"batch_size": 32, "epochs": 3}, "mini": {"batch_size": 16, "epochs": 3}},
            rule="nano, alpha1: results/search.py, best on held-out training images; pilot: values of aper's first "
            "session",
            toy={"bottleneck": 8},
            sources={
                "alpha1": "FeCAM at d2479b7, FeCAM_vit_cifar100.py",
                "alpha2": "FeCAM at d2479b7, FeCAM_vit_cifar100.py",
                "power": "FeCAM at d2479b7, exps/FeCAM_cifar100.json",
                "vit": "FeCAM at d2479b7, FeCAM_vit_cifar100.py",
                "few-images": "FeCAM at d2479b7, FeCAM_vit_imagenetr.py",
                "pilot": "LAMDA-PILOT at 5240714, models/fecam.py",
            },
            paper="arXiv:2309.14062",
            reference="dipamgoswami/FeCAM@d2479b7",
        )
    ]
