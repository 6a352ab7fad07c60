"""Features of frozen networks: what keeping them saves; and memory, which must not grow with the experiences."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.perf

PROGRAM = """
import json, sys, time
from pathlib import Path
import pluggy, torch
from benchmark import hookspecs, records, registry
from benchmark.jobs import Job
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, plan, preparation
from benchmark.testing import toys

method, settings, out = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
job = Job(scenario="toy", method=method, settings=settings, device="cpu")
spec = Loaded(toys.TOY_SCENARIO, Entry("toy", "toys", "tests"), "0" * 64)
resolved = plan.resolve_specs(job, spec, registry.load_method(method))
scenario, _ = preparation.build_scenario(resolved, {"data_root": None, "cache": Path(), "download": "never"})
backbone = toys.tiny_backbone(embed_dim=128, depth=6, num_heads=4)
prepared = preparation.prepare(resolved, scenario, pretrained=backbone)
hooks = pluggy.PluginManager("bench")
hooks.add_hookspecs(hookspecs)
started = time.process_time()
record = records.read(engine.execute(prepared, out, hooks=hooks, quiet=True))
print(json.dumps({
    "seconds": time.process_time() - started,
    "peak": record["timing"]["peak_memory_bytes"],
    "predictions": record["predictions"]["sha256"],
}))
"""


def run(method: str, out: Path, **settings: str) -> dict[str, float]:
    given = {name.replace("__", "."): value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, method, json.dumps(given), str(out)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("method", ["nearest-mean"])
def test_memory_does_not_grow_with_the_experiences(tmp_path: Path, method: str) -> None:
    sizes = {"scenario__classes": "1", "epochs": "1"}
    peaks = {
        count: run(method, tmp_path / str(count), scenario__experiences=str(count), **sizes)["peak"]
        for count in (10, 100)
    }
    print(f"\n{method}: peak of 10 experiences {peaks[10] / 1e6:.0f} MB, of 100 {peaks[100] / 1e6:.0f} MB")
    assert peaks[100] <= 1.05 * peaks[10]


def test_a_warm_cache_leaves_what_is_not_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    sizes = {"scenario__experiences": "10", "scenario__train": "64", "scenario__test": "64"}
    off = run("nearest-mean", tmp_path / "off", engine__feature_cache_gb="0", **sizes)
    cold = run("nearest-mean", tmp_path / "cold", **sizes)
    warm = [run("nearest-mean", tmp_path / f"warm{turn}", **sizes) for turn in range(3)]
    assert {off["predictions"], cold["predictions"], *(found["predictions"] for found in warm)} == {off["predictions"]}
    seconds = statistics.median(found["seconds"] for found in warm)
    print(f"\nprocessor seconds without {off['seconds']:.2f}, cold {cold['seconds']:.2f}, warm {seconds:.2f}")
    assert seconds <= 0.5 * cold["seconds"]
