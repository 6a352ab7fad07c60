"""`bench audit` of runs of other suites: what a log tells, and what it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.errors import EXIT_DATA, EXIT_FAILED, EXIT_OK
from benchmark.records import imported
from benchmark.records.imported import Imported
from benchmark.testing import log_audits

END, AHEAD = "Did the run come to its end?", "Does it look at later experiences?"
CHOSEN, OWN = "Was the model chosen on test data?", "Do its numbers follow from its own matrix?"
PLAIN: dict[str, Any] = {
    "import_id": "0" * 16,
    "source": {
        "suite": "TheirSuite",
        "importer": "theirs 1 of adaptbench 0.1.0",
        "file": "log.txt",
        "sha256": "a" * 64,
        "first_line": 1,
        "last_line": 9,
    },
    **dict.fromkeys(("complete", "scenario", "class_order", "experiences", "counts", "decimals"), None),
    **{key: [] for key in ("notes", "reported")},
    **{key: {} for key in ("told", "seeds", "config", "facts", "tables")},
    **dict.fromkeys(("stands_by", "track", "part", "seed_scope", "selection"), ""),
    "method": "theirs",
    "family": "class-il",
    "backbone": "vit",
    "seed": 0,
    "tests": ["0", "1"],
    "accuracy": [[0.9, None], [0.7, 0.8]],
    "metrics": {"final_avg_acc": 0.75},
}


def run(**changes: Any) -> Imported:
    return imported.make(PLAIN | changes)


def verdicts(found: Imported) -> dict[str, str]:
    return {item.question: item.verdict for item in log_audits.items(found)}


def score(value: float, decimals: int | None) -> dict[str, Any]:
    about = {"name": "Avg", "value": value, "unit": "fraction", "definition": "mean", "metric": "final_avg_acc"}
    return {**about, "decimals": decimals}


@pytest.mark.parametrize(
    ("changes", "question", "verdict"),
    [
        ({"complete": True}, END, "clean"),
        ({"complete": False}, END, "found"),
        ({}, END, "unknown"),
        ({}, AHEAD, "unknown"),
        ({"accuracy": [[0.9, 0.0], [0.7, 0.8]]}, AHEAD, "clean"),
        ({"accuracy": [[0.9, 0.1], [0.7, 0.8]]}, AHEAD, "found"),
        (
            {"accuracy": [[0.9, 0.1], [0.7, 0.8]], "family": "domain-il"},
            AHEAD,
            "unknown",
        ),
        ({"accuracy": None, "tests": None, "metrics": {}}, AHEAD, "unknown"),
        ({"selection": "test-domain validation (oracle)"}, CHOSEN, "declared"),
        ({"selection": "last epoch"}, CHOSEN, "clean"),
        ({}, CHOSEN, "unknown"),
        ({"reported": [score(0.7512, 2)]}, OWN, "found"),
        ({"reported": [score(0.75004, 2)]}, OWN, "clean"),
        ({"reported": []}, OWN, "unknown"),
        ({}, "Which test samples were predicted together?", "unknown"),
    ],
)
def test_what_a_log_tells(changes: dict[str, Any], question: str, verdict: str) -> None:
    assert verdicts(run(**changes))[question] == verdict


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = imported.write(tmp_path, run(complete=True))
    assert main(["audit", str(path)]) == EXIT_OK
    out = capsys.readouterr().out
    assert out.startswith("# Audit of theirs of TheirSuite, log.txt\n")
    assert "| Would another seed give the same? | **unknown** | one run, seed 0: import others to see |" in out
    path = imported.write(tmp_path, run(complete=False))
    assert main(["audit", str(path), "--json"]) == EXIT_FAILED
    assert json.loads(capsys.readouterr().out)["items"][0]["verdict"] == "found"
    assert main(["audit", str(tmp_path / "none.json")]) == EXIT_DATA
    (tmp_path / "odd.json").write_text("{}")
    assert main(["audit", str(tmp_path / "odd.json")]) == EXIT_DATA
    assert "is no imported run" in capsys.readouterr().err
