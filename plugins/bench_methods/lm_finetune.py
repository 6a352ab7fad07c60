"""Full fine-tuning of a language model: all weights that are read, and the classifier, are trained on each experience.

Paper: Devlin et al., BERT, NAACL 2019, arXiv 1810.04805 (section 3.5: a classifier on the pooled state); with
``readout=cloze`` the same on the words at a mask, which is PET with one pattern (Schick and Schuetze, EACL 2021,
arXiv 2001.07676). On streams it is "sequential fine-tuning", what nothing is done against forgetting.
Official code: google-research/bert at eedf571, ``run_classifier.py`` (read, not run). Nothing of it is compared with:
which weights train is all there is to it; our steps equal a plain torch loop (tests/unit/methods/test_lm_tuning.py).

Differences:
- The classifier grows with the classes seen; theirs has all rows from the start. It reads the pooled state without
  dropout of its own (``p = 0.1`` there); the model's dropout acts in training as its configuration says.
- A masked model of transformers has no pooler: the state of the first token is read as it is.
- AdamW of torch. ``lm-finetune@bert`` has the paper's protocol: batch 32, 3 epochs, rate 2e-5, warm-up over 10 % of the
  steps, decay 0.01; it searched rates of 5e-5, 3e-5, 2e-5 for each task.

Expected (BERT-large, one task): SST-2 94.9, RTE 70.1 (BERT paper, Table 1). Five data sets in sequence (AG News, Yelp,
Amazon, DBpedia, Yahoo; BERT-base, mean of four orders): average accuracy 18.4 (de Masson d'Autume et al., NeurIPS 2019,
arXiv 1906.01076, the row Enc-Dec). Not yet reproduced here.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark import MethodSpec, hookimpl
from benchmark.learners.tuning import FullTuner, TuningConfig, uses


@dataclass(frozen=True, kw_only=True, slots=True)
class LmFinetuneConfig(TuningConfig):
    """Options of full fine-tuning."""

    epochs: int = 3
    batch_size: int = 16
    lr: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``lm-finetune``."""
    return [
        MethodSpec(
            name="lm-finetune",
            build=FullTuner,
            config=LmFinetuneConfig,
            summary="full fine-tuning of a language model, nothing done against forgetting",
            uses=uses,
            recipes={
                "cloze": {"readout": "cloze"},
                "masked": {"mask": "current"},
                "bert": {"batch_size": 32, "epochs": 3, "lr": 2e-5, "weight_decay": 0.01, "warmup": 0.1},
            },
            tracks={"nano": {"epochs": 3, "batch_size": 16, "lr": 0.003}},
            rule="results/search.py: best on held-out training texts of the first two domains of reviews-domains",
            sources={
                "cloze": "PET paper, section 3.1: one pattern, no auxiliary loss",
                "masked": "adaptbench: only the current classes compete, as finetune@masked",
                "bert": "BERT paper, appendix A.3; lr: one point of its grid",
            },
            paper="arXiv:1810.04805",
            reference="google-research/bert@eedf571",
            reads="text",
            generates=True,
            toy={"longest": 8},
            control=True,
        )
    ]
