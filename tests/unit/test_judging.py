"""Epochs chosen without a label of the target: what is compared, what is refused, what the record and tables tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark import records
from benchmark.api import ExperienceView
from benchmark.errors import RunFailed, UsageError
from benchmark.leaderboard import footnotes
from benchmark.leaderboard.selected import TARGET_FREE as NAMES
from benchmark.leaderboard.selected import selection_text
from benchmark.run import engine, target_free
from benchmark.run.interruption import Interrupted
from benchmark.run.options import TARGET_FREE
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import ToyMethod, prepare_toy


class Shown(ToyMethod):
    """The toy method, with features; its epochs are told apart by how certain they are."""

    def begin_experience(self, experience: ExperienceView) -> None:
        super().begin_experience(experience)
        self.done = 0

    def train_step(self, batch: Any) -> Any:
        self.done += 1
        return super().train_step(batch)

    def predict(self, images: Tensor) -> Tensor:
        return super().predict(images) * (1 + self.done % 4)

    def embed(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def extra_state(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_extra_state(self, state: Any) -> None:
        self.done = state["done"]


def run(folder: Path, rule: str, build: type[ToyMethod] = Shown, **settings: str) -> dict[str, Any]:
    given = {"engine.select": rule, "epochs": "3", **settings}
    prepared = prepare_toy(build=build, family="uda", train=10, classes=3, settings=given)
    return records.plain(records.read(engine.execute(prepared, folder, hooks=manager([]), quiet=True)))


@pytest.mark.parametrize("rule", TARGET_FREE)
def test_the_best_epoch_by_a_rule_is_kept(rule: str, tmp_path: Path) -> None:
    record = run(tmp_path, rule)
    found = record["selection"]
    (scores,), (chosen,) = found["scores"], found["chosen"]
    assert len(scores) == 3
    assert len(set(scores)) > 1 or rule in ("mixval", "circular", "iwv", "dev")  # shares of few images
    assert scores[chosen] == max(scores)
    assert found["rule"] == rule
    assert found["facts"]["targets"] == 30
    held = 3 if rule in ("iwv", "dev") else 0
    assert record["scenario"]["experiences"][0]["train"] == 30 - held
    if rule in ("iwv", "dev"):
        assert found["facts"]["held_out"] == 3
        assert 1 <= found["facts"]["effective_held_out"] <= 3
    told = footnotes.row_facts([records.parse(record)])
    assert f"epoch chosen by {NAMES[rule]} on unlabelled target images, which the method has so used" in told
    assert f"best epoch by {NAMES[rule]}" in selection_text([records.parse(record)])


def test_a_score_needs_no_label_of_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropy of what the kept method predicts is the score in the record."""
    seen: list[Any] = []
    entropy = target_free.entropy
    monkeypatch.setattr(target_free, "entropy", lambda logits: seen.append(logits) or entropy(logits))
    (scores,) = run(tmp_path, "entropy")["selection"]["scores"]
    assert scores == pytest.approx([-entropy(logits) for logits in seen])
    assert all(logits.shape == (30, 3) for logits in seen)


def test_a_collapsed_epoch_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SND of a constant is the largest there is."""
    answers = iter([True, False, True])
    monkeypatch.setattr(target_free, "collapsed", lambda logits: next(answers))
    found = run(tmp_path, "snd")["selection"]
    assert found["chosen"] == [1]
    assert [score is None for score in found["scores"][0]] == [True, False, True]


def test_where_all_epochs_have_collapsed_the_run_fails(tmp_path: Path) -> None:
    class One(Shown):
        def predict(self, images: Tensor) -> Tensor:
            return super().predict(images) + torch.eye(3)[0] * 1e6

    with pytest.raises(RunFailed, match=r"nearly all predictions on the target are one class.*engine\.select=snd"):
        run(tmp_path, "snd", One)


def test_a_stopped_run_chooses_the_same_epoch(tmp_path: Path) -> None:
    stop = type("Stops", (Shown,), {"left": 100})

    def train_step(self: Any, batch: Any) -> Any:
        stop.left -= 1  # type: ignore[attr-defined]
        if stop.left == 0:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return Shown.train_step(self, batch)

    stop.train_step = train_step  # type: ignore[attr-defined]
    given = {"engine.checkpoint_seconds": "0"}
    whole = run(tmp_path / "a", "mano", stop, **given)
    stop.left = 7  # type: ignore[attr-defined]
    with pytest.raises(Interrupted):
        run(tmp_path / "b", "mano", stop, **given)
    again = run(tmp_path / "b", "mano", stop, **given)
    assert json.dumps(records.comparable(records.parse(again))) == json.dumps(records.comparable(records.parse(whole)))
    assert isinstance(again["selection"]["facts"]["taylor"], bool)


def test_what_a_rule_cannot_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no unlabelled target domain"):
        prepare_toy(family="dg", settings={"engine.select": "snd"})
    with pytest.raises(UsageError, match="shows no features"):
        run(tmp_path, "dev", ToyMethod)
