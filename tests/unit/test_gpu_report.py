"""The report of ``tox -e gpu`` says that there is no GPU, and does not pass in silence."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.errors import EXIT_USAGE
from benchmark.testing import checks, pretended_device

FILE = Path(__file__).parents[1] / "gpu" / "report.py"


@pytest.fixture(scope="module")
def report() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_report", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(report: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--out", str(tmp_path / "report.md")]) == EXIT_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("no GPU: nothing was tested on `cuda` (")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "report.md").exists()


def test_what_fails_is_a_row_and_fails_the_report(report: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> list[object]:
        raise ValueError("no | such\nkernel")

    made = report.Report()
    made.attempt("fp16", work, 2)
    assert made.failed
    assert made.lines == ["| fp16 | **fail** ValueError: no / such kernel |  |"]
    assert capsys.readouterr().out.strip() == made.lines[0]


@pytest.mark.slow
@pytest.mark.skipif(pretended_device.missing() is not None, reason=str(pretended_device.missing()))
@pytest.mark.parametrize("method", ["finetune", "l2p", "icarl", "prompt-tuning"])
def test_the_contract_runs_on_a_device(method: str) -> None:
    """Checks ask a method on a device with inputs that are there: one method of each learner on the pretended one."""
    subject = checks.method_subject(method)
    subject.device = pretended_device.NAME
    wanted = frozenset(checks.METHOD_CHECKS) - {"device"}
    with pretended_device.present():
        found = {
            result.check: result.message for result in checks.run_checks(subject, wanted) if result.result == "fail"
        }
    assert found == {}
