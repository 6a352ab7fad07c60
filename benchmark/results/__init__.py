"""Runs from Python and in notebooks: `benchmark.run`, `benchmark.load`, and what they return.

Everything here is what the command line does, with the same records, tables, messages and errors
(`benchmark.errors.BenchError`)::

    import benchmark as bench

    runs = bench.run(scenario="split-glyphs", method=["l2p", "nearest-mean"], seeds="0-2", epochs=1)
    print(runs.leaderboard())
    runs.frame().groupby("row")["final_avg_acc"].mean()

A test executes the examples of these modules.
"""

from __future__ import annotations

from benchmark.leaderboard.compared import Comparison
from benchmark.results.collection import Records, Tables, load
from benchmark.results.running import run
from benchmark.results.trained import Answer, TrainedModel, load_model

__all__ = ["Answer", "Comparison", "Records", "Tables", "TrainedModel", "load", "load_model", "run"]
