"""Training on real images against what the machine's matrix products allow: seconds per 1,000 images over the bound.

The bound is the FLOP of a step (``cost.flops_train_step``: forward and backward passes, nothing that was known
before) over the rate of one large float32 product on one thread, measured before and after the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.perf

SIDE, TURNS = 1024, 40
SIZES = ["--set", "scenario.train=100", "--set", "scenario.test=20"]
WORDS = ["run", "--track", "mini", "--scenario", "split-cifar100", *SIZES, "-q", "--out", "runs"]


def rate() -> float:
    """FLOP per second of a product of two square matrices: the best of several, as a bound has to be."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one, two = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    best = float("inf")
    for _ in range(TURNS):
        started = time.perf_counter()
        torch.mm(one, two)
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(threads)
    return 2 * SIDE**3 / best


# Least shares of the bound: below what was measured (docs/performance.md), as a neighbour on the machine costs a third.
@pytest.mark.parametrize(("method", "least"), [("l2p", 0.3), ("vpt-deep", 0.3), ("coda-prompt", 0.3)])
def test_training_reaches_a_share_of_the_matrix_rate(
    data_root: Path, tmp_path: Path, method: str, least: float
) -> None:
    bench = Path(sys.executable).with_name("bench")
    environment = {**os.environ, "BENCH_DATA": str(data_root), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before = rate()
    subprocess.run([str(bench), *WORDS, "--method", method], cwd=tmp_path, env=environment, check=True, timeout=900)
    peak = max(before, rate())
    (file,) = (tmp_path / "runs").rglob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    settings = record["config"]["effective"]["method"]
    images = 100 * 100 * settings["epochs"]
    seconds = sum(record["timing"]["train_seconds"]) / images * 1000
    bound = record["cost"]["flops_train_step"] / settings["batch_size"] / peak * 1000
    print(
        f"\n{method}: {seconds:.2f} s per 1,000 images, bound {bound:.2f} s at {peak / 1e9:.0f} GFLOP/s: "
        f"{bound / seconds:.2f}; peak memory {record['timing']['peak_memory_bytes'] / 1e6:.0f} MB"
    )
    assert bound / seconds >= least
