"""Source only: fine-tuning on the labelled source, the target is never seen. The control of every adaptation table.

Official code: thuml/Transfer-Learning-Library at c4aa59eb,
``examples/domain_adaptation/image_classification/erm.py``; where domains are held out it is empirical risk
minimisation, facebookresearch/DomainBed at b93c22a1 (Gulrajani, Lopez-Paz, In Search of Lost Domain Generalization,
ICLR 2021, arXiv 2007.01434), here the recipe ``domainbed``.

Differences from the official code:
- All methods of a table take the same steps, so the default has the schedule, learning rate and decay of the other
  yardsticks; those of ``erm.py`` are the recipe ``tll``. Their bottleneck is in ``source-only@bottleneck``: what
  `dann` and `cdan` do beyond it is owed to the target (which their BatchNorm sees, too).
- The last epoch counts; the library keeps the one that is best on the target's labels
  (``engine.select=target-oracle``).
- Passes are whole and keep their last, smaller batch. Images of several source domains are drawn in proportion to
  their numbers; DomainBed draws equally many of each.

Expected (ViT-B/16, Office-Home, ``source-only@tll``): 75.0 on average over 12 pairs (the library's README, best
epoch on the target). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from bench_methods._recipes import DOMAINBED, DOMAINBED_ADAM, TLL, TLL_VIT
from benchmark import families, hookimpl
from benchmark.api import Scenario
from benchmark.learners.adaptation import Adaptation, PlainConfig
from benchmark.specs import MethodSpec


def supports(scenario: Scenario) -> str | None:
    """Where training and test domains differ."""
    if families.get(scenario.family).shift:
        return None
    return "it is tested on the domains that it is trained on, so there is no source apart from a target; use finetune"


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``source-only``."""
    return [
        MethodSpec(
            name="source-only",
            build=Adaptation,
            config=PlainConfig,
            summary="fine-tuning on the labelled source alone (control of adaptation)",
            uses=frozenset({"boundaries"}),
            recipes={
                "bottleneck": {"bottleneck": 256},
                "tll": {
                    "iterations": 20_000,
                    "batch_size": 24,
                    "lr": 0.001,
                    "backbone_lr_scale": 0.1,
                    "weight_decay": 0.0005,
                    "schedule": "steps",
                    "lr_gamma": 0.0003,
                    "bottleneck": 0,
                    "normalize": "imagenet",
                },
                "domainbed": DOMAINBED_ADAM,
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.1},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.03},
            },
            rule="nano and mini, lr: results/search.py, best on held-out source images",
            toy={"iterations": 5},
            sources={
                "bottleneck": "thuml/Transfer-Learning-Library at c4aa59eb, dann.py: that of dann and cdan",
                "lr": "as dann",
                "schedule": "as dann",
                "tll": TLL_VIT + "; erm.sh and the defaults of erm.py",
                "domainbed": DOMAINBED,
            },
            paper="arXiv:2007.01434",
            reference=TLL,
            control=True,
            supports=supports,
            published="source-only",
        )
    ]
