"""Target oracle: fine-tuning on the labelled target, the upper bound of adaptation.

Official code: thuml/Transfer-Learning-Library at c4aa59eb,
``examples/domain_adaptation/image_classification/erm.py`` with the same domain as source and target (rows "Oracle"
of its README).

The training step is that of `source-only`. The engine hands it the target images with their labels in place of the
source (``stream="oracle"``), so it breaks the rule of the other methods on purpose, and says so in every table. It
does not run where the test images are the target images themselves.

Differences from the official code:
- Those of `source-only`; the settings of the library's oracle are the recipe ``tll``.
- It trains on the target images that the other methods see without labels. An epoch is a pass over them, so it
  takes the steps of the others only where source and target have equally many images.

Expected (ResNet-101, DomainNet, mean of six domains): 69.1 (the library's README). Not yet reproduced here on the
paper track.
"""

from __future__ import annotations

from bench_methods._recipes import TLL
from benchmark import hookimpl
from benchmark.learners.adaptation import Adaptation, PlainConfig
from benchmark.specs import MethodSpec


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``target-oracle``."""
    return [
        MethodSpec(
            name="target-oracle",
            build=Adaptation,
            config=PlainConfig,
            summary="fine-tuning on the labelled target (upper bound of adaptation)",
            uses=frozenset({"boundaries"}),
            recipes={
                "bottleneck": {"bottleneck": 256},
                "tll": {
                    "iterations": 50_000,
                    "batch_size": 32,
                    "lr": 0.01,
                    "backbone_lr_scale": 0.1,
                    "weight_decay": 0.0005,
                    "schedule": "steps",
                    "lr_gamma": 0.0003,
                    "bottleneck": 0,
                    "normalize": "imagenet",
                },
            },
            tracks={
                "nano": {"batch_size": 32, "epochs": 3, "lr": 0.1},
                "mini": {"batch_size": 32, "epochs": 2, "lr": 0.03},
            },
            rule="carried over from source-only, not searched: there is no honest way to search an upper bound",
            toy={"iterations": 5},
            sources={
                "lr": "as source-only",
                "bottleneck": "as source-only@bottleneck",
                "tll": f"{TLL}, erm.sh: ResNet-101 on DomainNet, 20 x 2,500 iterations",
            },
            reference=TLL,
            control=True,
            stream="oracle",
            published="target-oracle",
        )
    ]
