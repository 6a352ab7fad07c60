"""Test-time adaptation as a family: orders of the stream, its loop, kill and resume, metrics, tables."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_methods import finetune, source, tent
from bench_scenarios import _test_streams
from bench_scenarios.corrupted_glyphs import REPORTED, TUNING
from benchmark import families, leaderboard, records
from benchmark.errors import UsageError
from benchmark.metrics.adapting import stream_metrics
from benchmark.run import preparation, streams
from benchmark.samples import Pixels, Samples
from benchmark.scenario import Segment, TestStream
from benchmark.testing import toys
from benchmark.testing.checks import method_subject
from benchmark.testing.laboratory import Outcome
from benchmark.testing.recorded import Recorded

GOLDEN = Path(__file__).parents[1] / "golden" / "test_time"
LABELS = torch.arange(12) % 3


def images(name: str, severity: int) -> Samples:
    """Twelve images of three classes; ids tell domain and severity."""
    start = {"fog": 100, "snow": 200}[name] + 20 * severity
    return Samples(
        Pixels(torch.zeros(12, 3, 4, 4, dtype=torch.uint8)), torch.arange(12), LABELS, torch.arange(12) + start
    )


def stream(**options: Any) -> TestStream:
    """The two domains in a setting."""
    return _test_streams.stream(_test_streams.StreamConfig(**options), ("fog", "snow"), images, seed=0)


def test_settings_differ_in_order_and_resets_alone() -> None:
    plain, reset = stream(), stream(setting="reset")
    assert [part.name for part in plain.segments] == ["fog", "snow"] == list(plain.sets)
    assert [part.reset for part in plain.segments] == [False, False]
    assert [part.reset for part in reset.segments] == [True, True]
    for one, two in zip(plain.segments, reset.segments, strict=True):
        assert one.images.ids.tolist() == two.images.ids.tolist()
    first, second = (part.images.ids % 20 for part in plain.segments)
    assert first.tolist() != second.tolist(), "every segment has a shuffle of its own"
    ordered = stream(setting="correlated")
    assert all(part.images.labels.tolist() == sorted(LABELS.tolist()) for part in ordered.segments)


def test_a_gradual_stream_rises_and_falls() -> None:
    gradual = stream(setting="gradual")
    assert gradual.sets[:9] == (
        *(f"fog {severity}" for severity in range(1, 6)),
        *(f"fog {severity} falling" for severity in range(4, 0, -1)),
    )
    every = torch.cat([part.images.ids for part in gradual.segments])
    assert len(torch.unique(every)) == len(every) == 2 * 9 * 12


def test_a_mixed_stream_is_scored_by_domain() -> None:
    mixed = stream(setting="mixed")
    (part,) = mixed.segments
    assert mixed.sets == ("fog", "snow")
    assert len(part.images) == 24
    places = mixed.places(part)
    assert torch.equal(places, (part.images.ids >= 300).long())
    assert 0 < places[:12].sum() < 12
    fog, snow = mixed.images()
    assert sorted(fog.ids.tolist()) == sorted(images("fog", 5).ids.tolist())
    assert len(snow) == 12


def test_correlated_orders_equal_those_recorded_from_the_official_rule() -> None:
    case = Recorded(GOLDEN, "protocol_order", torch.float64)
    shuffled, labels = case.arrays["f64.continual"].astype(int), case.arrays["input.labels"]
    for key, delta in (("sorted", 0.0), ("dirichlet", 0.3)):
        found = _test_streams.correlated(labels[shuffled], delta, np.random.RandomState(1))
        case.compare(f"correlated_{key}", torch.from_numpy(shuffled[found]), limit=1e-12)


def test_a_draw_that_cannot_succeed_says_so() -> None:
    with pytest.raises(ValueError, match=r"^dirichlet: 0.1 leaves a chunk"):
        _test_streams.correlated(LABELS.numpy(), 0.1, np.random.RandomState(0))
    with pytest.raises(ValueError, match=r"^dirichlet: .*no effect"):
        _test_streams.StreamConfig(dirichlet=0.1)


def test_errors_equal_those_recorded_from_the_official_evaluation() -> None:
    case = Recorded(GOLDEN, "protocol_errors", torch.float64)
    given = {key: case.arrays[f"input.{key}"] for key in ("labels", "predictions", "domains")}
    counts = np.bincount(given["domains"])
    accuracy = np.bincount(given["domains"], weights=given["labels"] == given["predictions"]) / counts
    found = stream_metrics(accuracy, counts.astype(float))
    for key, ours in (("per_domain", "errors"), ("mean_over_domains", "error"), ("over_images", "error_images")):
        case.compare(key, torch.tensor(found[ours], dtype=torch.float64), limit=1e-12)


def test_the_fingerprint_covers_order_batches_and_resets() -> None:
    plain = toys.toy_scenario(family="tta")
    known = plain.test_stream
    assert known is not None
    first, *rest = known.segments
    backwards = dataclasses.replace(first, images=first.images.subset(torch.arange(len(first.images)).flip(0)))
    others = [
        TestStream(segments=(backwards, *rest), batch_size=5),
        TestStream(segments=(dataclasses.replace(first, reset=True), *rest), batch_size=5),
        TestStream(segments=known.segments, batch_size=6),
        TestStream(segments=known.segments[::-1], batch_size=5),
    ]
    prints = [dataclasses.replace(plain, test_stream=other, fingerprint="", content="").fingerprint for other in others]
    assert len({plain.fingerprint, *prints}) == 5


def test_options_are_chosen_on_other_domains() -> None:
    assert set(REPORTED) & set(TUNING) == set()
    assert len(REPORTED) == 8
    assert len(TUNING) == 3
    scenario = toys.toy_scenario(family="tta")
    with pytest.raises(UsageError, match="no stream of other domains"):
        streams.validation(scenario, 1)
    assert scenario.test_stream is not None
    tuning = TestStream(segments=scenario.test_stream.segments[:1], batch_size=5)
    cut = streams.validation(dataclasses.replace(scenario, tuning_stream=tuning), 1)
    assert cut.test_stream is tuning
    assert cut.fingerprint != scenario.fingerprint


def test_who_does_not_adapt_is_refused_and_the_other_way_round() -> None:
    plain, adapts = (module.bench_register_methods()[0] for module in (finetune, tent))
    streamed = toys.toy_scenario(family="tta")
    ordinary = toys.toy_scenario()
    assert "does not adapt" in str(preparation.refusal(plain, frozenset(), streamed))
    assert "the scenario has none" in str(preparation.refusal(adapts, frozenset(), ordinary))
    assert preparation.refusal(adapts, frozenset(), streamed) is None


@pytest.fixture(scope="module")
def runs() -> dict[str, Outcome]:
    """Toy runs of the source and of TENT."""
    return {name: method_subject(name).run() for name in ("source", "tent")}


def test_all_methods_start_from_one_source(runs: dict[str, Outcome]) -> None:
    still, moved = runs["source"].record, runs["tent"].record
    assert still.baseline == moved.baseline == still.accuracy[0]
    assert still.number("source_gain") == 0 == still.number("source_forgetting")
    assert moved.number("source_error") == still.number("error")
    assert moved.number("source_gain") == pytest.approx((still.number("error") or 0) - (moved.number("error") or 0))
    assert [test.name for test in moved.scenario.tests] == ["domain1 0", "domain2 1", "domain1 2", "source"]
    assert still.cost is not None
    assert still.cost.params_trainable == 0
    assert moved.cost is not None
    assert moved.cost.params_trainable == 2 * 8 * 3


def test_tables_tell_the_order_and_no_leak(runs: dict[str, Outcome]) -> None:
    (table,) = leaderboard.leaderboard([run.record for run in runs.values()])
    titles = [column.title for column in table.columns]
    assert titles[1:3] == ["Accuracy (%)", "Error (%)"]
    assert "domain2 1" in titles
    notes = " ".join(text for _, text in table.footnotes)
    assert "answers depend on the batch" in notes
    assert "answers depend on earlier batches" in notes
    assert "answers of the model before it has adapted to the batch" in notes
    assert "leaking" not in notes


def test_one_batch_of_one_image_is_answered() -> None:
    subject = method_subject("tent")
    scenario = subject.scenario()
    assert scenario.test_stream is not None
    one = scenario.test_stream.segments[0].images.subset(torch.tensor([3]))
    alone = TestStream(segments=(Segment(name="one", images=one),), batch_size=200)
    run = subject.run(dataclasses.replace(scenario, test_stream=alone))
    assert run.record.counts[0] == 1
    assert run.predictions.logits is not None
    assert np.isfinite(run.predictions.logits).all()
    assert all(torch.isfinite(value).all() for value in run.method.state_dict().values())


KILLED = """
import os, signal, sys
from pathlib import Path
from benchmark.run import engine, interruption
from benchmark.testing.checks import method_subject
from benchmark.testing.laboratory import manager

class Killed(interruption.Stop):
    left = int(sys.argv[2])

    def deferring(self):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().deferring()

subject = method_subject("tent")
prepared = subject.prepare(subject.scenario(), every_step=True)
engine.execute(prepared, Path(sys.argv[1]), hooks=manager([]), quiet=True, stop=Killed())
"""


def test_a_run_killed_in_the_middle_of_its_stream_is_resumed_to_an_equal_record(
    runs: dict[str, Outcome], tmp_path: Path
) -> None:
    steps = 3 * 2  # of training: 20 images in batches of 8, two passes
    killed = steps + 7  # in the second segment
    for left, code in ((killed, -signal.SIGKILL), (-1, 0)):
        words = [sys.executable, "-c", KILLED, str(tmp_path), str(left)]
        done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
        assert done.returncode == code
        kept = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
        assert kept == ([] if code == 0 else ["boundary.safetensors", "stream.safetensors"])
    (path,) = tmp_path.rglob("*.json")
    found = records.read(path)
    assert found.timing.resumed == 1
    assert records.comparable(found) == records.comparable(runs["tent"].record)


def test_every_built_in_family_has_its_board() -> None:
    assert [name for name, family in families.FAMILIES.items() if family.adapts] == ["tta"]
    with pytest.raises(ValueError, match="board of their own"):
        families.Family(name="x", summary="", adapts=True)
    assert source.bench_register_methods()[0].control
