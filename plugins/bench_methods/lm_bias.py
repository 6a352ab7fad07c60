"""BitFit: the biases of a language model, and the classifier, are trained; every other weight is frozen.

Paper: Ben Zaken, Goldberg, Ravfogel, BitFit, ACL 2022, arXiv 2106.10199.
Official code: benzakenelad/BitFit at 1d66f59, ``GLUEvaluator.py`` (read, not run). Nothing of it is compared with:
which weights train is all there is to it.

Differences:
- All biases of the part that is read train, those of layer norms too, as with its ``all``; biases of keys have no
  gradient but rounding (softmax does not see them), so Adam moves them by noise, unless positions are rotated.
- A linear schedule to 0; the code has a constant rate. Gradient norm 1 and dropout in training are as there.
- Models without biases (ModernBERT, Llama and T5 as published) are refused: only the classifier would train.
- On streams the experiences are trained in turn; the paper has one task.

Expected: with small to medium training sets as good as full fine-tuning or better, with large ones below it (abstract
and section 4 of the paper; BERT and RoBERTa on GLUE). Not yet reproduced here.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark import MethodSpec, hookimpl
from benchmark.api import Context
from benchmark.errors import UsageError
from benchmark.learners.tuning import Tuner, TuningConfig, uses


@dataclass(frozen=True, kw_only=True, slots=True)
class LmBiasConfig(TuningConfig):
    """Options of BitFit."""

    epochs: int = 10
    batch_size: int = 16
    lr: float = 1e-3


class LmBias(Tuner):
    """The biases train.

    Raises:
        UsageError: The model has none.
    """

    def __init__(self, config: LmBiasConfig, context: Context) -> None:
        super().__init__(config, context)
        found = [parameter for name, parameter in self.own() if "bias" in name]
        if not found:
            raise UsageError(
                f"`{self.language.name}` has no biases that could be trained",
                hint="use lm-head for its classifier alone, or another model with --backbone",
            )
        for parameter in found:
            parameter.requires_grad_(True)


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lm-bias``."""
    return [
        MethodSpec(
            name="lm-bias",
            build=LmBias,
            config=LmBiasConfig,
            summary="BitFit: the biases of a language model and the classifier train",
            uses=uses,
            recipes={"cloze": {"readout": "cloze"}, "masked": {"mask": "current"}},
            tracks={"nano": {"epochs": 4, "batch_size": 16, "lr": 0.01}},
            rule="results/search.py: best on held-out training texts of the first two domains of reviews-domains",
            sources={
                "lr": "adaptbench: between those of full fine-tuning and of prompts",
                "cloze": "adaptbench: as lm-finetune@cloze",
                "masked": "adaptbench: only the current classes compete, as bias@masked",
            },
            paper="arXiv:2106.10199",
            reference="benzakenelad/BitFit@1d66f59",
            reads="text",
            generates=True,
            toy={"longest": 8},
        )
    ]
