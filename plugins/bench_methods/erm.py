"""ERM: empirical risk minimisation on all labelled domains at once, the yardstick of domain generalisation.

Paper: Gulrajani, Lopez-Paz. In Search of Lost Domain Generalization, ICLR 2021, arXiv 2007.01434; after Vapnik 1998.
Official code: facebookresearch/DomainBed at b93c22a1 (``ERM``), compared on recorded numbers.

Loss: mean cross-entropy over the images of all source domains. The training step is that of `source-only`, under the
name that tables of domain generalisation have.

Differences from DomainBed:
- Batches hold images of the domains in proportion to their numbers (DomainBed: equally many of each), passes are whole,
  and the last epoch counts (``engine.select=source-validation`` is its first rule; ``bench tune --protocol domainbed``
  has the search and all three).
- The default has optimiser, schedule and rates of the other yardsticks of adaptation; DomainBed's Adam is the recipe
  ``domainbed``. BatchNorm trains where the backbone does, as by DomainBed's default at this commit; the paper froze it.

Expected (ResNet-50, ``erm@domainbed``, selected on the training domains): PACS 85.5, Office-Home 66.5, VLCS 77.5
(DomainBed, 20 draws, 3 trials). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from bench_methods._recipes import DOMAINBED, DOMAINBED_ADAM
from benchmark import hookimpl
from benchmark.learners.adaptation import Adaptation, PlainConfig
from benchmark.learners.generalisation import generalises
from benchmark.specs import MethodSpec


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``erm``."""
    return [
        MethodSpec(
            name="erm",
            display="ERM",
            build=Adaptation,
            config=PlainConfig,
            summary="fine-tuning on all source domains at once (control of domain generalisation)",
            uses=frozenset({"boundaries"}),
            recipes={"domainbed": DOMAINBED_ADAM},
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.1},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.03},
            },
            rule="nano, lr: results/search.py, best on held-out source images; mini: the values of source-only, whose "
            "training step it is",
            toy={"iterations": 5},
            sources={"lr": "as source-only", "schedule": "as source-only", "domainbed": DOMAINBED},
            paper="arXiv:2007.01434",
            reference="facebookresearch/DomainBed@b93c22a1",
            control=True,
            supports=generalises,
            published="erm",
        )
    ]
