"""Sequential fine-tuning with a slow backbone: the control that makes much of what is done against forgetting needless.

Paper: the rows "Seq FT with SL" of Zhang, Wang, Kang, Chen, Wei. SLCA: Slow Learner with Classifier Alignment for
Continual Learning on a Pre-trained Model, ICCV 2023, arXiv 2303.05118.
Official code: GengDavid/SLCA at 169d4e6, ``models/slca.py``, stage 1. Losses, gradients and parameters after every
task equal theirs to 1e-9 in float64 (tests/unit/methods/test_slca_golden.py, where `slca` runs the same stage).
Written anew, no code taken.

It differs from `finetune` in three points: the backbone learns 100 times slower than the head; only classes of the
experience compete, each experience has a head of its own, and old heads rest, without weight decay; SGD is made anew.

Differences from the official code:
- Where classes come again (domains, blurry streams) the heads that have them train on.

Trainable: the whole backbone and the heads of the experience. Nothing is kept besides them.
Expected (ViT-B/16 ImageNet-21k, CIFAR-100, 10 tasks): 88.86 "averaged accuracy", 71.80 on ImageNet-R; `finetune` 33.61
and 28.87 (bar chart of the repository). Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from bench_methods._slow_learner import SlowLearner, SlowLearnerConfig
from benchmark import hookimpl
from benchmark.specs import MethodSpec


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``slow-finetune``."""
    return [
        MethodSpec(
            name="slow-finetune",
            build=SlowLearner,
            config=SlowLearnerConfig,
            summary="sequential fine-tuning with a slow backbone and a head for each experience",
            display="Slow FT",
            uses=frozenset({"boundaries"}),
            recipes={
                "long": {"epochs": 50, "milestones": (40,)},
                "moco": {"epochs": 90, "milestones": (80,)},
            },
            default_recipe="slca",
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.03},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.01},
            },
            rule="nano and mini, lr: results/search.py, best on held-out training images",
            sources={
                "lr": "SLCA at 169d4e6, models/slca.py",
                "backbone_lr_scale": "SLCA at 169d4e6, exps/slca/*.json",
                "weight_decay": "SLCA at 169d4e6, models/slca.py: fixed there, the configuration's is not read",
                "slca": "SLCA at 169d4e6, exps/slca, CIFAR-100: 20 epochs, milestone 18",
                "long": "SLCA at 169d4e6, exps/slca, ImageNet-R, CUB-200 and Cars: 50 epochs, milestone 40",
                "moco": "SLCA at 169d4e6, exps/slca: MoCo v3 backbone, 90 epochs, milestone 80",
            },
            paper="arXiv:2303.05118",
            reference="GengDavid/SLCA@169d4e6",
            control=True,
            published="slow-finetune",
        )
    ]
