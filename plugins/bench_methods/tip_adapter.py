"""Tip-Adapter: features of the training images vote for their classes beside zero-shot CLIP; nothing is trained.

Paper: Zhang, Fang, Zhang, Gao, Li, Dai, Qiao, Li. Tip-Adapter: Training-free Adaption of CLIP for Few-shot
Classification, ECCV 2022, arXiv 2207.09519.
Official code: gaopengcuhk/Tip-Adapter at d0e2d6f8. Keys, affinities, votes, logits and what the search chooses equal
theirs (tests/unit/methods/test_clip_cache_golden.py, ``tests/golden/newer_clip/tip_adapter``). Written anew, no code
taken.

``logits = 100 f w + alpha exp(-beta (1 - f K)) V``: f the feature of an image and w those of the class texts, both of
length one, K the keys (one per training image: the mean of its features over A augmented passes, then length one), V
their labels as one-hot rows.

Differences from the official code:
- float32; the official code runs in half precision.
- `search` reads the validation images that the scenario brings: CoOp's few-shot scenarios draw min(shots, 4) per class.
  The official search reads the whole validation split, and on ImageNet the test images, which are a leak.
- In streams the cache grows by rows and the search sees the validation images of the experience alone. A name that was
  never trained has its text and no votes.

Expected (RN50, 16 shots): ImageNet 62.01, EuroSAT 70.54, Caltech101 90.18 (``exp.log``, with the searches above). Not
yet reproduced here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bench_methods._tip_adapter import SOURCES, TipConfig, TipLearner, recipes, uses
from benchmark import hookimpl
from benchmark.api import Batch, Context, ExperienceView
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class TipAdapterConfig(TipConfig):
    """Options of Tip-Adapter; see `TipConfig`."""


class TipAdapter(TipLearner):
    """A cache that is filled and never trained."""

    def __init__(self, config: TipAdapterConfig, context: Context) -> None:
        super().__init__(config, context, trained=False)

    @property
    def deterministic(self) -> bool:
        """Unless images are augmented."""
        return not self.config.augment

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """Collects features. There is no loss: the entry is 0."""
        self.collect(batch)
        return {"loss": 0.0}

    def end_experience(self, experience: ExperienceView) -> None:
        """Fills the cache, then chooses alpha and beta."""
        self.fill()
        self.choose(experience)
        self.sums = self.sums[:0]


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``tip-adapter``."""
    return [
        MethodSpec(
            name="tip-adapter",
            build=TipAdapter,
            config=TipAdapterConfig,
            display="Tip-Adapter",
            summary="Tip-Adapter: a cache of training features votes beside zero-shot CLIP; trains nothing",
            uses=uses,
            recipes=recipes(),
            default_recipe="fixed",
            tracks={
                "nano": {"epochs": 1, "augment": False, "templates": "a drawing of {}.", "alpha": 380.0, "beta": 3.0},
                "mini": {"epochs": 2},
            },
            rule="nano, alpha and beta: results/search.py, best on held-out training images; elsewhere the published "
            "values of ImageNet",
            toy={"epochs": 2, "alpha_steps": 2, "beta_steps": 2},
            sources={**SOURCES, "fixed": "configs/imagenet.yaml, without search"},
            paper="arXiv:2207.09519",
            reference="gaopengcuhk/Tip-Adapter@d0e2d6f8",
            text=True,
            published="tip-adapter",
        )
    ]
