"""CDAN: DANN whose discriminator sees features and predictions together, by their outer product.

Paper: Long, Cao, Wang, Jordan. Conditional Adversarial Domain Adaptation, NeurIPS 2018, arXiv 1705.10667.
Official code: thuml/Transfer-Learning-Library at c4aa59eb (``cdan.py``, ``tllib/alignment/cdan.py``), by the
authors' group; it took the place of thuml/CDAN.

The discriminator's input is T(f, g) with g the softmax of the logits, without gradient: the outer product, C x d
numbers, or, where that is wider than `widest`, its random projection (R_f f) * (R_g g) / sqrt(m) with fixed normal
matrices. With ``entropy`` (CDAN+E) an image counts with weight 1 + exp(-H(g)), scaled to mean 1 over source and
target.

Differences from the paper and the library:
- Learning rate and lambda follow the share of the training that is done, as in `dann` and in the authors' first
  code; the library's clocks are the recipe ``tll``.
- The library projects only when told to (``randomized=never`` in ``tll``; 51,200 numbers in ``tll-domainnet``); the
  default follows equation 7 of the paper, which projects where C x d is more than 4,096, to 1,024 numbers.
- The weights of CDAN+E are without gradient and scaled over both domains together, as in the library; the authors'
  first code reverses a gradient through them and scales each domain by itself.
- Loss of the discriminator: mean over all images, as in the library. The last batch of a pass, with fewer source
  than target images, is kept; the library drops it.
- Nothing is done where there is no target: DomainBed's CDANN, with class embeddings, is another method.

Expected (ViT-B/16, Office-Home, ``cdan@tll``): 80.9 on average over 12 pairs, DANN 78.6, source only 75.0 (the
library's README, best epoch on the target). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from bench_methods._adversarial import Conditional, ConditionalConfig
from bench_methods._recipes import TLL, TLL_VIT
from benchmark import hookimpl
from benchmark.learners.adaptation import needs_target
from benchmark.specs import MethodSpec

_TLL: dict[str, object] = {
    "batch_size": 24,
    "lr": 0.01,
    "backbone_lr_scale": 0.1,
    "schedule": "steps",
    "lr_gamma": 0.001,
    "warmup_alpha": 1.0,
    "warmup_steps": 1000,
    "hidden": 1024,
    "randomized": "never",
    "normalize": "imagenet",
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``cdan``."""
    return [
        MethodSpec(
            name="cdan",
            build=Conditional,
            config=ConditionalConfig,
            summary="adversarial alignment of features together with predictions",
            uses=frozenset({"boundaries", "unlabelled"}),
            recipes={
                "entropy": {"entropy": True},
                "tll": {**_TLL, "iterations": 30_000},
                "tll-domainnet": {
                    **_TLL,
                    "iterations": 75_000,
                    "batch_size": 32,
                    "bottleneck": 1024,
                    "randomized": "always",
                    "randomized_dim": 51_200,
                },
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.1, "hidden": 256},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.01, "hidden": 256},
            },
            rule="nano and mini, lr: results/search.py, best on held-out source images",
            toy={"iterations": 7, "hidden": 32, "bottleneck": 16, "randomized_dim": 32},
            sources={
                "entropy": "paper, section 3.3 (CDAN+E)",
                "randomized": "paper, equation 7",
                "lr": f"{TLL}, cdan.py; likewise backbone_lr_scale, momentum, weight_decay, bottleneck, hidden",
                "schedule": "DANN paper, section 5.2.2, to which the paper refers",
                "warmup_alpha": "DANN paper, section 5.2.2, to which the paper refers",
                "tll": TLL_VIT + "; cdan.sh",
                "tll-domainnet": f"{TLL}, cdan.sh: ResNet-101 on DomainNet, 30 x 2,500 iterations",
            },
            paper="arXiv:1705.10667",
            reference=TLL,
            supports=needs_target,
            published="cdan",
        )
    ]
