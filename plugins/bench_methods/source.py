"""The source model in eval mode: no adaptation. The row that every table of test-time adaptation is read against.

Official code: mariodoebler/test-time-adaptation at 8b2ed632, ``classification/methods/source.py``; published figures of
this row are in ``benchmark/published/figures.csv`` (CIFAR-10-C, WRN-28-10: error 43.5; ImageNet-C, ResNet-50: 82.0).

Differences from the official code:
- The source is trained in the run itself (`benchmark.learners.test_time`), the same way for every method of the family;
  ``--set classifier=own`` answers with the checkpoint's own classifier instead, as published figures on ImageNet-C do.

Expected (ImageNet-C severity 5, ResNet-50, ``classifier=own``): error 82.0. Not yet reproduced here on the paper track.
"""

from __future__ import annotations

from bench_methods._test_time import RULE, SOURCE
from benchmark import hookimpl
from benchmark.learners.test_time import SourceConfig, SourceModel
from benchmark.specs import MethodSpec


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``source``."""
    return [
        MethodSpec(
            name="source",
            build=SourceModel,
            config=SourceConfig,
            summary="the source model in eval mode, nothing adapts (control of test-time adaptation)",
            uses=frozenset({"boundaries"}),
            tracks=SOURCE,
            rule=RULE,
            toy={"epochs": 1},
            display="Source",
            reference="mariodoebler/test-time-adaptation at 8b2ed632, classification/methods/source.py",
            control=True,
            adapts=True,
            published="source",
        )
    ]
