"""Joint training of a language model: full fine-tuning on all experiences at once, the upper bound of a stream.

Paper: the multi-task rows of de Masson d'Autume et al., Episodic Memory in Lifelong Language Learning, NeurIPS 2019,
arXiv 1906.01076.
Official code: none released; the training step is that of `lm-finetune`.

Differences: the engine merges the whole stream into one experience, so there is one evaluation, and forgetting is not
defined. Rates and passes are adaptbench's.

Expected: no figure is reproduced here; it is compared with the other rows of its table.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark import MethodSpec, hookimpl
from benchmark.learners.tuning import FullTuner, TuningConfig, uses


@dataclass(frozen=True, kw_only=True, slots=True)
class LmJointConfig(TuningConfig):
    """Options of joint training."""

    epochs: int = 3
    batch_size: int = 16
    lr: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lm-joint``."""
    return [
        MethodSpec(
            name="lm-joint",
            build=FullTuner,
            config=LmJointConfig,
            summary="full fine-tuning of a language model on all data at once (upper bound)",
            uses=uses,
            recipes={"cloze": {"readout": "cloze"}},
            tracks={"nano": {"epochs": 3, "batch_size": 16, "lr": 0.003}},
            rule="as lm-finetune, whose weights train",
            sources={"cloze": "adaptbench: as lm-finetune@cloze"},
            paper="arXiv:1906.01076",
            reads="text",
            control=True,
            stream="joint",
        )
    ]
