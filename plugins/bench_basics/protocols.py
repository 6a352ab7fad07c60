"""How benchmarks choose options, as data.

domainbed: Gulrajani and Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021; facebookresearch/DomainBed at
b93c22a1 (``hparams_registry.py``, ``scripts/sweep.py``, ``model_selection.py``): 20 draws, of which the first are the
values in force, times 3 seeds, each with draws of its own. Ranges are those for photographs. Differences: a run is
judged after its last epoch (``--set engine.select=source-validation`` keeps the best one), the same fifth is held out
for every seed, ``batch_size`` counts the samples of all sources together, what the winner has on the target is measured
by a run of its own on all training images of the sources (``--test``), and draws come from another generator.
"""

from __future__ import annotations

from benchmark import ProtocolSpec, hookimpl
from benchmark.config import Range


@hookimpl
def bench_register_protocols() -> list[ProtocolSpec]:
    """Registers the protocol."""
    return [
        ProtocolSpec(
            name="domainbed",
            summary="20 random draws x 3 seeds for every domain held out, by one of three rules of selection",
            family="dg",
            axes={
                "lr": Range(log=True, search=(1e-5, 10**-3.5)),
                "weight_decay": Range(log=True, search=(1e-6, 1e-2)),
                "batch_size": Range(log=True, search=(8, 45)),  # 2^U(3, 5.5)
                "penalty": Range(log=True, search=(1e-1, 1e5)),  # of irm and vrex
                "anneal": Range(log=True, search=(1, 1e4)),
                "group_eta": Range(log=True, search=(1e-3, 1e-1)),
                "mixup_alpha": Range(log=True, search=(1e-1, 1e1)),
                "linear_lr": Range(log=True, search=(1e-5, 10**-3.5)),  # of erm++
            },
            strategy="random",
            budget=20,
            seeds=3,
            select=("training-domain", "leave-one-domain-out", "oracle"),
            source="ICLR 2021, arXiv:2007.01434",
        )
    ]
