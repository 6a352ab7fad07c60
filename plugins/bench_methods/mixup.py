"""Mixup between domains: images of two source domains are mixed, and so are their losses.

Paper: Yan, Song, Li, Zou, Ren. Improve Unsupervised Domain Adaptation with Mixup Training, arXiv 2001.00677, after
Zhang et al., ICLR 2018.
Official code: compared with facebookresearch/DomainBed at b93c22a1 (``Mixup``) on recorded numbers.

The domains of a batch are put in random order, each is paired with the next and the last with the first. A pair is cut
to the smaller of the two; with lambda of Beta(alpha, alpha), one for a pair, ``lambda x_i + (1 - lambda) x_j`` goes
through the network, and its loss is mixed in the same way. The loss is the mean over pairs.

Differences from DomainBed:
- Batches hold images of the domains in proportion to their numbers; a batch of one domain is paired with itself. Passes
  are whole, the last epoch counts.
- Images are mixed after augmentation and normalisation, as there.
- The default has optimiser, schedule and rates of the other yardsticks; DomainBed's Adam is the recipe ``domainbed``.
  Draws come from torch's generator alone (DomainBed: torch and numpy).

Expected (ResNet-50, ``mixup@domainbed``, selected on the training domains): PACS 84.6, Office-Home 68.1, VLCS 77.4
(DomainBed, 20 draws, 3 trials). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods._recipes import DOMAINBED, DOMAINBED_ADAM
from benchmark import hookimpl
from benchmark.api import Batch
from benchmark.config import Range
from benchmark.learners.adaptation import PlainConfig
from benchmark.learners.generalisation import SeveralDomains, needs_sources
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MixupConfig(PlainConfig):
    """Options of mixup.

    Attributes:
        mixup_alpha: Of the Beta distribution of lambda.
    """

    mixup_alpha: Annotated[float, Range(above=0, log=True)] = 0.2


class Mixup(SeveralDomains):
    """Training on mixtures of two source domains."""

    config: MixupConfig

    def draw(self, domains: int) -> tuple[list[int], list[float]]:
        """A random order of so many domains, and lambda for each of them and the next."""
        order: list[int] = torch.randperm(domains).tolist()
        shares = torch.distributions.Beta(self.config.mixup_alpha, self.config.mixup_alpha).sample((domains,))
        return order, [float(share) for share in shares]

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over the pairs of domains."""
        rows = [part for _, part in self.parts(batch)]
        order, shares = self.draw(len(rows))
        losses = []
        for place, share in enumerate(shares):
            one, other = rows[order[place]], rows[order[(place + 1) % len(rows)]]
            size = min(len(one), len(other))
            one, other = one[:size], other[:size]
            logits = self.head(self.features(share * batch.images[one] + (1 - share) * batch.images[other]))
            both = [
                F.cross_entropy(logits, batch.labels[part], label_smoothing=self.config.label_smoothing)
                for part in (one, other)
            ]
            losses.append(share * both[0] + (1 - share) * both[1])
        return {"loss": torch.stack(losses).mean()}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``mixup``."""
    return [
        MethodSpec(
            name="mixup",
            display="Mixup",
            build=Mixup,
            config=MixupConfig,
            summary="images of two source domains are mixed, and so are their losses",
            uses=frozenset({"boundaries", "domains"}),
            waits=1,  # how many images each domain has in the batch: pairs are cut to the smaller one
            recipes={"domainbed": {**DOMAINBED_ADAM, "mixup_alpha": 0.2}},
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.1},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.03},
            },
            rule="nano, lr: results/search.py, within the noise of the best on held-out source images; mixup_alpha as "
            "published; mini: the values of source-only, not searched",
            toy={"iterations": 5},
            sources={
                "mixup_alpha": DOMAINBED,
                "lr": "as source-only",
                "schedule": "as source-only",
                "domainbed": DOMAINBED,
            },
            paper="arXiv:2001.00677",
            reference="facebookresearch/DomainBed@b93c22a1",
            supports=needs_sources,
            published="mixup",
        )
    ]
