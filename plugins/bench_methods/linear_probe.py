"""Linear probe: a frozen backbone, and a linear head on its class token.

Paper: the FT-seq-frozen row of Wang et al., CVPR 2022, arXiv 2112.08654, Table 1; linear evaluation
as in Jia et al., ECCV 2022, arXiv 2203.12119.
Official code: KMnP/vpt at 4410440 (transfer type ``linear``); no code of FT-seq-frozen was released.

Differences from the papers:
- The head has a row per class seen and grows; FT-seq-frozen's has all C rows from the start.
- The default has no mask, as FT-seq-frozen: the newest classes take over. ``linear-probe@masked``
  lets only the current classes compete in the loss; it is L2P without prompts, the control that
  tells what prompts add, and the fairer yardstick for methods that mask.
- ``linear-probe@vpt`` has the protocol of the VPT paper, with one point of its grid of learning rates.

Expected (ViT-B/16 ImageNet-21k, Split CIFAR-100, 10 tasks): 17.72 ± 0.34 final average accuracy
(L2P paper, Table 1); masked 70.24, forgetting 9.89 (google-research/l2p, issue #35). Not yet
reproduced here on the paper track.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench_methods._recipes import VPT_SGD, VPT_SOURCE
from benchmark import hookimpl
from benchmark.api import Context
from benchmark.learners.classifier import Classifier, ClassifierConfig
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbeConfig(ClassifierConfig):
    """Options of the linear probe (`ClassifierConfig`)."""

    epochs: int = 5


class LinearProbe(Classifier):
    """Only the head trains."""

    def __init__(self, config: LinearProbeConfig, context: Context) -> None:
        super().__init__(config, context, backbone_lr_scale=0.0)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``linear-probe``."""
    return [
        MethodSpec(
            name="linear-probe",
            build=LinearProbe,
            config=LinearProbeConfig,
            summary="frozen backbone, linear head trained on each experience in turn",
            uses=frozenset({"boundaries"}),
            recipes={"masked": {"mask": "current", "lr": 0.01}, "vpt": {**VPT_SGD, "lr": 0.5}},
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "lr": 0.001},
                "mini": {"batch_size": 16, "epochs": 1, "lr": 0.01},
            },
            rule="results/search.py: best on held-out training images of the first experiences; masked: larger steps, "
            "as nothing is forgotten that is masked (results/README.md)",
            sources={
                "mask": "L2P paper, FT-seq-frozen is unmasked",
                "masked": "google-research/l2p issue #35",
                "vpt": VPT_SOURCE,
            },
            paper="arXiv:2112.08654",
            reference="KMnP/vpt@4410440",
            control=True,
            published="linear-probe",
        )
    ]
