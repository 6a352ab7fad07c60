"""PET: language models fine-tuned on patterns teach a classifier on texts without labels.

Papers: Schick and Schuetze, Exploiting Cloze Questions for Few-Shot Text Classification and Natural Language Inference,
EACL 2021, arXiv 2001.07676; It's Not Just Size That Matters, NAACL 2021, arXiv 2009.07118.
Official code: timoschick/pet at 21d32de9 (``pet/wrapper.py``, ``pet/modeling.py``, ``pet/pvp.py``), with transformers
3.0.2.

For each pattern and repetition a masked language model is fine-tuned to give the word of the class at the mask. The raw
scores of all of them on the unlabelled texts are averaged, weighted by what the pattern knew before training, and a
linear head on the pooled state of the same pretrained model, fine-tuned as a whole, learns from these soft labels.

Equal to the official code on its recorded cases (``tests/golden/pet``): tokens, scores, losses of labelled texts and of
gaps, soft labels, distillation, gradients and weights after steps.

What is read without labels: the unlabelled texts of the experience (few-shot, unsupervised adaptation); in a stream,
which has none, the training texts of the experience without their labels. In a stream the models start from the
pretrained weights in every experience, the classifier from where the last experience left it.

Differences from the official code:
- Three models per pattern are not kept: of each its scores are. The distilled classifier is the answer.
- An update of 2 x 8 texts (gradient accumulation) is a batch of 16 in parts of 2; the last, smaller batch of a pass is
  an update of its own, where the code adds it to the next one. With `steps` the code makes one update more, at learning
  rate 0: it changes nothing and is left out.
- Texts with gaps are drawn anew for every update, none twice in it, instead of in shuffled passes. By default no
  special token is a gap; the code as released draws masks and padding too (`released_gaps`). Padding is to the
  longest text.
- The head reads the pooled state (that of the pretrained pooler, else the first token); RoBERTa's own fresh dense layer
  is not there. Its rows are drawn with standard deviation 0.02.
- COPA, WSC and ReCoRD, whose answers are several tokens, are not classes here.
- Where no pattern is right on any labelled text before training, all models weigh the same; the code divides by zero.

Expected (RoBERTa-large, 100 labels, accuracy): Yelp full 61.9, AG News 88.3, Yahoo 69.2, MNLI 74.7; 10 labels: 52.9,
87.5, 63.8, 41.8 (README of the code). Not yet reproduced here.
"""

from __future__ import annotations

from bench_methods._pattern_ensemble import NANO, RULE, PatternEnsemble, PatternEnsembleConfig
from benchmark import MethodSpec, hookimpl

PetConfig = PatternEnsembleConfig
Pet = PatternEnsemble

SOURCES = {
    "lr": "timoschick/pet cli.py: defaults; likewise all others",
    "default": "timoschick/pet cli.py: batches of 4, 3 epochs, 3 repetitions",
    "superglue": "timoschick/pet README.md, SuperGLUE: 2 x 8, 250 steps, then 5,000",
    "yelp": "README.md of the first release: 4 x 4, 250 steps, then 5,000; likewise AG News, Yahoo, MNLI",
    "auxiliary": "timoschick/pet cli.py: --lm_training, alpha 0.9999",
}
RECIPES: dict[str, dict[str, object]] = {
    "superglue": {"batch_size": 16, "micro_batch": 2, "steps": 250, "distil_steps": 5000},
    "yelp": {"batch_size": 16, "micro_batch": 4, "steps": 250, "distil_steps": 5000},
    "auxiliary": {"alpha": 0.9999},
}


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``pet``."""
    return [
        MethodSpec(
            name="pet",
            build=Pet,
            config=PetConfig,
            summary="masked language models on patterns teach a classifier on unlabelled texts",
            uses=frozenset({"boundaries", "class_names", "unlabelled"}),
            recipes=RECIPES,
            tracks={"nano": NANO},
            rule=RULE,
            sources=SOURCES,
            waits=1,  # at the end of a phase its scores go to the host
            toy={"repetitions": 1, "steps": 3, "distil_steps": 3, "distil_epochs": 1, "micro_batch": 3},
            paper="arXiv:2001.07676",
            reference="timoschick/pet@21d32de9",
            reads="text",
            models=("masked",),
            cloze=True,
        )
    ]
