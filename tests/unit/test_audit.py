"""`bench audit`: verdicts on methods that are clean, that leak and say so, and that leak in silence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from benchmark.cli import audit, main
from benchmark.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UsageError
from benchmark.jobs import Job
from benchmark.run import plan
from benchmark.testing import audits, leaks
from benchmark.testing.toys import TOY_METHOD, ToyMethod, prepare_toy

pytestmark = pytest.mark.usefixtures("one_thread")


class Voter(ToyMethod):
    """Takes part of a batch's logits from its mean."""

    def predict(self, images: Tensor) -> Tensor:
        logits = super().predict(images)
        return logits + 50 * logits.mean(0, keepdim=True)


def ways(build: type[ToyMethod], *uses: str) -> list[leaks.Way]:
    declared: Any = TOY_METHOD.uses | set(uses)
    prepared = prepare_toy(build=build, uses=declared, experiences=2, classes=2, train=12, test=9)
    return leaks.measure(prepared, leaks.train(prepared), batches=(1, 6))


def test_the_verdict_on_test_batches() -> None:
    found = ways(Voter, "test_batch")
    assert audits.batches(found, declared=True).verdict == "declared"
    told = audits.batches(found, declared=False)
    assert told.verdict == "found"
    assert "6 sorted" in told.finding
    assert audits.batches(ways(ToyMethod), declared=False).verdict == "clean"


def test_the_contract_answers_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = {
        "toy-voter": audits.checks.method_subject(dataclasses.replace(TOY_METHOD, name="toy-voter", build=Voter)),
        "toy-linear": audits.checks.method_subject(TOY_METHOD),
    }
    monkeypatch.setattr(audits.checks, "method_subject", subjects.__getitem__)
    monkeypatch.setattr(audits, "BY_CONTRACT", {"batch": audits.BY_CONTRACT["batch"]})
    (told,) = audits.contract("toy-voter")
    assert told.verdict == "found"
    (told,) = audits.contract("toy-linear")
    assert told.verdict == "clean"


def test_what_can_be_switched_off() -> None:
    resolved = plan.resolve(Job(scenario="split-glyphs", method="l2p"))
    assert audits.switches(resolved.method_config) == ["prompts"]
    off = plan.resolve(Job(scenario="split-glyphs", method="l2p", settings={"prompts": "off"}))
    assert audits.switches(off.method_config) == []


def test_yardsticks_are_controls_that_read_the_same() -> None:
    names = audits.yardsticks(audits.spec_of("l2p"))
    assert {"finetune", "nearest-mean", "linear-probe"} <= set(names)
    assert not {"joint", "lm-head", "l2p"} & set(names)
    assert "finetune" not in audits.yardsticks(audits.spec_of("finetune"))


@pytest.mark.parametrize(
    ("method", "scenario"), [("l2p", "split-glyphs"), ("dann", "glyphs-uda"), ("pet", "split-topics")]
)
def test_a_bundled_stream_is_chosen(method: str, scenario: str) -> None:
    assert audits.stream_for(audits.spec_of(method)).startswith(scenario)


def test_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [
        audits.Item(question="Does it?", verdict="clean", finding="no"),
        audits.Item(question="And now?", verdict="declared", finding="a | b"),
    ]
    asked: list[tuple[Job, Any]] = []

    def items(job: Job, controls: Any) -> list[audits.Item]:
        asked.append((job, controls))
        return made

    monkeypatch.setattr(audits, "items", items)
    command = ["audit", "l2p@pilot", "--set", "epochs=1", "--controls", "none"]
    file = tmp_path / "page.md"
    assert main([*command, "-o", str(file)]) == EXIT_OK
    assert (asked[0][0].method, asked[0][0].scenario, asked[0][1]) == ("l2p@pilot", "split-glyphs", [])
    text = file.read_text("utf-8")
    assert "    bench audit l2p@pilot --scenario split-glyphs --set epochs=1 --controls none\n" in text
    assert "| And now? | **declared** | a \\| b |" in text
    assert "1 clean, 1 declared." in text
    made.append(audits.Item(question="Really?", verdict="found", finding="yes"))
    assert main([*command, "--json"]) == EXIT_FAILED
    told = json.loads(capsys.readouterr().out)
    assert [item["verdict"] for item in told["items"]] == ["clean", "declared", "found"]
    assert audit.page("l2p", asked[0][0], made).count("\n| ") == 4


def test_a_whole_audit_of_a_method_that_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "BY_CONTRACT", {"undeclared": audits.BY_CONTRACT["undeclared"]})
    job = Job(scenario="glyphs-few-shot/1", method="nearest-mean", settings={"scenario.test": "1"}, download="never")
    found = {item.question: item for item in audits.items(job, ["clip-zero-shot"])}
    assert {item.verdict for item in found.values()} <= {"clean", "weak", "unknown"}
    assert found[audits._BATCHES].verdict == "clean"
    assert "clip-zero-shot" in found[audits._CONTROLS].finding


def test_test_batches_that_are_the_protocol_are_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapting to a stream is not predicting alone: nothing is trained for an answer that would mislead."""
    monkeypatch.setattr(audits, "BY_CONTRACT", {"undeclared": audits.BY_CONTRACT["undeclared"]})
    monkeypatch.setattr(leaks, "train", lambda _: pytest.fail("it was trained"))
    *_, last = audits.items(Job(scenario="corrupted-glyphs", method="source", download="never"), [])
    assert (last.question, last.verdict, last.finding) == (audits._BATCHES, "unknown", audits.STREAM)


def test_wrong_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "l2pp"]) == EXIT_USAGE
    assert main(["audit", "l2p@pilo"]) == EXIT_USAGE
    assert "did you mean `pilot`" in capsys.readouterr().err
    assert main(["audit", "l2p", "--controls", "finetun"]) == EXIT_USAGE
    assert "did you mean `finetune`" in capsys.readouterr().err
    with pytest.raises(UsageError):
        next(audits.items(Job(scenario="glyph-domains", method="icarl", download="never")))
