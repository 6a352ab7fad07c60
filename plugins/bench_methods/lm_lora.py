"""LoRA: low-rank changes of attention projections, and the classifier, are trained on a frozen language model.

Paper: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, arXiv 2106.09685.
Official code: microsoft/LoRA at 0771c1e, ``loralib/layers.py``. The merge equals the pass with changes to rounding, for
BERT, ModernBERT, GPT-2, Llama, T5 and BART (tests/unit/backbones/test_language_lora.py).

Differences:
- The projections are found by asking the model (`benchmark.backbones.language.lora`), not by names.
- No merge at test time: it is exact to rounding, but would change weights during evaluation.
- The model's dropout acts in training as its configuration says, as in the official examples; ``dropout=off`` without.
- On streams the experiences are trained in turn with the same matrices; the paper has one task.
- ``lm-lora@roberta`` has the official script of SST-2 (60 epochs), on AdamW of torch.

Trainable: rank x (inputs + outputs) per projection; RoBERTa-base with rank 8 on queries and values 294,912, and the
head. Expected (RoBERTa-base, 0.3 M): SST-2 95.1 ± .2, RTE 86.6 ± .7, MNLI 87.5 ± .3 (paper, Table 2). Not yet
reproduced here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated

from benchmark import MethodSpec, hookimpl
from benchmark.api import Context
from benchmark.backbones.language.lora import PARTS, LoRAInit, LowRank
from benchmark.config import Range
from benchmark.learners.tuning import Tuner, TuningConfig, uses


@dataclass(frozen=True, kw_only=True, slots=True)
class LmLoRAConfig(TuningConfig):
    """Options of LoRA.

    Attributes:
        rank: r of each change.
        alpha: The change is scaled by ``alpha / rank``.
        targets: Projections that change, letters of ``qkv``.
        init: How A is drawn: ``kaiming`` (official code) or ``gaussian``; B starts at 0.
        lora_dropout: Of the input of A, in training.
    """

    epochs: int = 10
    batch_size: int = 16
    lr: float = 1e-3
    rank: Annotated[int, Range(min=1)] = 8
    alpha: Annotated[float, Range(above=0)] = 8.0
    targets: str = "qv"
    init: LoRAInit = "kaiming"
    lora_dropout: Annotated[float, Range(min=0, below=1)] = 0.0

    def __post_init__(self) -> None:
        TuningConfig.__post_init__(self)
        if not self.targets or set(self.targets) - set(PARTS) or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets: {self.targets!r} is not made of different letters of {PARTS}; use e.g. 'qv'")


class LmLoRA(Tuner):
    """Low-rank changes train."""

    config: LmLoRAConfig

    def __init__(self, config: LmLoRAConfig, context: Context) -> None:
        super().__init__(config, context)
        # A classifier reads no more of an encoder-decoder.
        encoder = self.language.architecture == "encoder-decoder" and not self.patterned
        self.changes = LowRank(
            self.language,
            rank=config.rank,
            alpha=config.alpha,
            targets=config.targets,
            init=config.init,
            dropout=config.lora_dropout,
            sites=("encoder",) if encoder else (),
        ).to(context.device)

    def changed(self) -> AbstractContextManager[None]:
        """With the changes in force."""
        return self.changes.applied(self.language.module)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lm-lora``."""
    return [
        MethodSpec(
            name="lm-lora",
            build=LmLoRA,
            config=LmLoRAConfig,
            summary="low-rank changes of a language model's queries and values train, and the classifier",
            uses=uses,
            recipes={
                "cloze": {"readout": "cloze"},
                "masked": {"mask": "current"},
                "roberta": {
                    "lr": 5e-4,
                    "epochs": 60,
                    "rank": 8,
                    "alpha": 8.0,
                    "warmup": 0.06,
                    "batch_size": 16,
                    "weight_decay": 0.1,
                },
            },
            tracks={"nano": {"epochs": 4, "batch_size": 16, "lr": 0.003}},
            rule="results/search.py: best on held-out training texts of the first two domains of reviews-domains",
            sources={
                "cloze": "adaptbench: as lm-finetune@cloze",
                "masked": "adaptbench: only the current classes compete, as lora@masked",
                "roberta": "LoRA paper, Table 9, SST-2; decay: examples/NLU/roberta_base_sst2.sh",
                "targets": "LoRA paper, section 7.1",
                "init": "microsoft/LoRA loralib/layers.py; the paper says Gaussian",
            },
            paper="arXiv:2106.09685",
            reference="microsoft/LoRA@0771c1e",
            reads="text",
            generates=True,
            toy={"longest": 8},
        )
    ]
