"""What a sweep of a thousand runs costs beside the runs: its plan, its forecast, and handing jobs to workers.

The workers are small programs that answer at once. Run by `tox -e perf`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.run import pool

pytestmark = pytest.mark.perf

RUNS = 1000
MOST = 0.05  # seconds a run
ECHO = """
import json, os, sys
own = json.loads(sys.stdin.readline())
for line in sys.stdin:
    order = json.loads(line)
    open(order["log"], "a").close()
    answer = {"status": "done", "path": os.environ["RECORD"], "label": "x", "error": None, "warnings": []}
    print(json.dumps(answer), flush=True)
"""


def test_a_thousand_runs_cost_little_beside_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "_PROGRAM", ECHO)
    (tmp_path / "record.json").write_text("{}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record.json"))
    words = ["--scenario", "split-glyphs", "--method", "nearest-mean", "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert main(["sweep", *words, "--dry-run"]) == 0  # what is imported once is not the cost of a run
    began = time.perf_counter()
    assert main(["sweep", *words, "--seed", f"0-{RUNS - 1}"]) == 0
    each = (time.perf_counter() - began) / RUNS
    assert f"{RUNS} done" in capsys.readouterr().err
    with capsys.disabled():
        print(f"\na sweep of {RUNS} runs: {each * 1000:.1f} ms a run beside the run (most: {MOST * 1000:.0f} ms)")
    assert each < MOST
