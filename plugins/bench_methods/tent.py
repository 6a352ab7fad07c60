"""TENT: scales and shifts of normalisation layers go down the entropy of the answers, batch after batch.

Paper: Wang, Shelhamer, Liu, Olshausen, Darrell. Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021,
arXiv 2006.10726.
Official code: DequanWang/tent at e9e926a6 (``tent.py``); with LayerNorm and GroupNorm
mariodoebler/test-time-adaptation at 8b2ed632 (``classification/methods/tent.py``).

L = mean over the batch of H(p) = -sum p log p; one step of Adam (or SGD) on every batch, BatchNorm normalises by the
batch. The answer is that of the forward pass before the step; with several steps that of the last forward pass.

Differences from the official code:
- Dropout and stochastic depth stay off (``tent.py`` sets the whole model to training mode; the second code does not).
- LayerNorm and GroupNorm adapt as well, as in the second code; in a network with BatchNorm alone that is no difference.
- `reset_stream` puts back model and optimiser, as ``reset()`` does; when is said by the scenario.

Expected (CIFAR-10-C severity 5, WRN-28-10, reset at each corruption): error 18.6; continual 20.0. Not yet reproduced
here.
"""

from __future__ import annotations

from torch import Tensor

from bench_methods._test_time import ADAPTING, SOURCE
from benchmark import hookimpl
from benchmark.learners.test_time import EntropyModel, StepConfig, entropy
from benchmark.specs import MethodSpec


class Tent(EntropyModel):
    """See above."""

    def objective(self, logits: Tensor) -> Tensor:
        """The mean entropy of the batch."""
        return entropy(logits).mean()


def uses(config: StepConfig) -> frozenset[str]:
    """An answer depends on its batch, and on earlier ones unless everything is put back before each."""
    return frozenset({"boundaries", "test_batch", *([] if config.reset_batch else ["test_stream"])})


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``tent``."""
    return [
        MethodSpec(
            name="tent",
            build=Tent,
            config=StepConfig,
            summary="normalisation layers go down the entropy of the answers",
            uses=uses,
            recipes={
                "imagenet": {"adapt_optimizer": "sgd", "adapt_lr": 2.5e-4},
                "episodic": {"reset_batch": True, "steps": 10},
            },
            tracks=SOURCE,
            rule=ADAPTING,
            toy={"epochs": 1, "steps": 2},
            sources={
                "adapt_lr": "DequanWang/tent at e9e926a6, cfgs/tent.yaml: Adam 1e-3, batches of 200",
                "imagenet": "mr-eggplant/EATA at f739b366, main.py: SGD 2.5e-4, momentum 0.9, batches of 64",
                "episodic": "DequanWang/tent at e9e926a6: EPISODIC, STEPS 10",
            },
            paper="arXiv:2006.10726",
            display="TENT",
            reference="DequanWang/tent at e9e926a6",
            adapts=True,
            published="tent",
        )
    ]
