"""BatchNorm statistics of the test batch in the place of those of training; no parameter moves.

Papers: Nado et al., Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift, arXiv
2006.10963 (``batch``); Schneider et al., Improving Robustness against Common Corruptions by Covariate Shift Adaptation,
NeurIPS 2020, arXiv 2006.16971 (``alpha``: a part of the batch's statistics).
Official code: DequanWang/tent at e9e926a6 (``norm.py``), mariodoebler/test-time-adaptation at 8b2ed632
(``classification/methods/bn.py``, ``norm.py``).

Three kinds: ``batch`` uses the batch's mean and biased variance; ``alpha`` a share of the batch's mean and unbiased
variance; ``ema`` first lets the batch move the running statistics (momentum 0.1), then answers with these.

Differences from the official code:
- ``batch``: the running statistics, which nothing reads, do not move (``norm.py`` lets them move).
- ``alpha`` takes the scenario's batches; the official configuration has batches of one.
- A channel with a single value uses the running statistics (`benchmark.backbones.normalization`).

Expected (CIFAR-10-C severity 5, WRN-28-10, batches of 200): error 20.4. Not yet reproduced here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bench_methods._test_time import RULE, SOURCE
from benchmark import hookimpl
from benchmark.backbones.normalization import batch_statistics, norms
from benchmark.config import Range
from benchmark.learners.test_time import SourceConfig, SourceModel, needs_batch_norm
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class NormConfig(SourceConfig):
    """Options of BatchNorm adaptation.

    Attributes:
        kind: ``batch``, ``alpha`` or ``ema``, see above.
        alpha: Share of the batch's statistics in ``alpha``.
    """

    kind: Literal["batch", "alpha", "ema"] = "batch"
    alpha: Annotated[float, Range(above=0, max=1, search=(0.05, 1.0))] = 0.1

    @property
    def answers(self) -> Literal["before", "after"]:
        """Statistics of a batch are there before it is answered."""
        return "after"


class Norm(SourceModel):
    """See above."""

    config: NormConfig

    def check_model(self) -> None:
        """Refuses a backbone without BatchNorm."""
        needs_batch_norm(self)

    def statistics(self) -> AbstractContextManager[None]:
        """Of the batch, in whole or in part; in ``ema`` those that run."""
        if self.config.kind == "ema":
            return contextlib.nullcontext()
        return batch_statistics(self.backbone, share=self.config.alpha if self.config.kind == "alpha" else 1.0)

    def moving(self) -> Mapping[str, Tensor]:  # type: ignore[override]
        """The running statistics, in ``ema``."""
        if self.config.kind != "ema":
            return {}
        found = norms(self.backbone, ("batch",))
        return {f"{name}.{part}": tensor for name, norm in found.items() for part, tensor in norm.named_buffers()}

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        """Answers a batch; in ``ema`` it moves the running statistics first."""
        if self.config.kind == "ema":
            with batch_statistics(self.backbone, moves=True):
                self.logits(images)
        return self.stream_logits(images)


def uses(config: NormConfig) -> frozenset[str]:
    """An answer depends on its batch; with running statistics on earlier ones, too."""
    return frozenset({"boundaries", "test_batch", *(["test_stream"] if config.kind == "ema" else [])})


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``norm``."""
    code: dict[str, Any] = {
        "batch": "DequanWang/tent at e9e926a6, norm.py",
        "alpha": "mariodoebler/test-time-adaptation at 8b2ed632, cfgs: alpha 0.1",
        "ema": "mariodoebler/test-time-adaptation at 8b2ed632, norm_ema",
    }
    return [
        MethodSpec(
            name="norm",
            build=Norm,
            config=NormConfig,
            summary="BatchNorm with statistics of the test batch, in whole or in part",
            uses=uses,
            recipes={"alpha": {"kind": "alpha"}, "ema": {"kind": "ema"}},
            default_recipe="batch",
            tracks=SOURCE,
            rule=RULE,
            toy={"epochs": 1},
            sources=code,
            paper="arXiv:2006.10963",
            display="Norm",
            reference=code["batch"],
            adapts=True,
            published="norm",
        )
    ]
