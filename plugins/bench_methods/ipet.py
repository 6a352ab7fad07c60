"""iPET: PET in generations, each trained on texts that models of the one before have labelled.

Paper: Schick and Schuetze, Exploiting Cloze Questions for Few-Shot Text Classification and Natural Language Inference,
EACL 2021, arXiv 2001.07676, section 3.4.
Official code: timoschick/pet at 21d32de9, ``pet/modeling.py`` (`train_ipet`), whose sets the
recorded case holds (``tests/golden/pet/ipet_wmean``: equal, item for item).

After each generation but the last, a quarter of the other models labels the unlabelled texts for a model. It gets
``|T| 5^(g+1) - |T|`` of them, in the proportions of the labelled set T, drawn with a probability proportional to how
certain the label is, and starts again from the pretrained weights on T and its own set. The classifier learns from the
last generation as in `pet`, whose differences hold here too.

Differences from the official code:
- Both generators, Python's and numpy's, are seeded with 42 in every generation, as there, whatever the seed of the run.
- Generations after the first train on shuffled passes over T and the new texts; where `steps` counts, as many as that.
- Without labelled texts (the zero-shot variant of the paper) there is nothing to run: `most_likely` is here, an empty
  training set is not.
- A class as which no text is labelled gets no new ones; the code would go on for ever. No text is drawn twice unless
  too few are labelled as its class.

Expected (RoBERTa-large, 100 labels, accuracy): Yelp full 62.9, AG News 89.6, Yahoo 71.2, MNLI 78.4 (paper, table 1).
Not yet reproduced here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from bench_methods._pattern_ensemble import NANO, RULE, PatternEnsemble, PatternEnsembleConfig
from benchmark import MethodSpec, hookimpl
from benchmark.api import Context
from benchmark.config import Range
from benchmark.learners import pattern_exploiting as parts


@dataclass(frozen=True, kw_only=True, slots=True)
class IpetConfig(PatternEnsembleConfig):
    """Options of iPET.

    Attributes:
        generations: How often all models are trained.
        factor: By which the training set grows in a generation.
        labelling: Share of the other models that label for a model.
        most_likely: After the first generation, so many texts of each class are to choose from, the likeliest ones
            whatever their label; 0: those labelled as the class.
        drawing_seed: Of both generators.
    """

    generations: Annotated[int, Range(min=1)] = 3
    factor: Annotated[float, Range(above=1)] = 5.0
    labelling: Annotated[float, Range(above=0, max=1)] = 0.25
    most_likely: Annotated[int, Range(min=0)] = 0
    drawing_seed: Annotated[int, Range(min=0, max=2**32 - 1)] = 42


class Ipet(PatternEnsemble):
    """PET whose models label texts for one another."""

    config: IpetConfig

    def __init__(self, config: IpetConfig, context: Context) -> None:
        super().__init__(config, context, generations=config.generations)

    def new_sizes(self, labels: Tensor, generation: int) -> Sequence[int]:
        """How many new texts of each class the models of a generation are given."""
        if generation == 0:
            return ()
        return parts.new_sizes(labels, self.head.classes, generation=generation - 1, factor=self.config.factor)

    def new_sets(self, scores: Sequence[Tensor], weights: Sequence[float] | None, generation: int) -> list[Tensor]:
        """New texts for the models of the next generation."""
        return parts.new_sets(
            scores,
            weights,
            self.new_sizes(self.labels, generation + 1),
            share=self.config.labelling,
            seed=self.config.drawing_seed,
            most_likely=self.config.most_likely if generation == 0 else 0,
        )


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``ipet``."""
    return [
        MethodSpec(
            name="ipet",
            build=Ipet,
            config=IpetConfig,
            summary="PET in generations that label texts for one another",
            uses=frozenset({"boundaries", "class_names", "unlabelled"}),
            recipes={
                "superglue": {"batch_size": 16, "micro_batch": 2, "steps": 250, "distil_steps": 5000},
                "yelp": {"batch_size": 16, "micro_batch": 4, "steps": 250, "distil_steps": 5000},
            },
            tracks={"nano": {**NANO, "generations": 2}},
            rule=RULE,
            sources={
                "generations": "timoschick/pet cli.py: defaults; likewise factor, labelling and those of `pet`",
                "superglue": "timoschick/pet README.md, SuperGLUE: 2 x 8, 250 steps, then 5,000",
                "yelp": "as `pet`",
            },
            waits=1,  # at the end of a phase its scores go to the host
            toy={
                "repetitions": 1,
                "steps": 3,
                "distil_steps": 3,
                "distil_epochs": 1,
                "micro_batch": 3,
                "generations": 2,
                "factor": 2,
            },
            paper="arXiv:2001.07676",
            reference="timoschick/pet@21d32de9",
            reads="text",
            models=("masked",),
            cloze=True,
        )
    ]
