"""Open-set and partial adaptation: which classes are left, who may answer `unknown`, and how it is scored."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.cluster import vq
from torch import Tensor

from bench_scenarios import digits, office_31, office_home_shifts, visda_2017
from benchmark import families, leaderboard, metrics, records
from benchmark.api import Scenario, ScenarioRequest
from benchmark.errors import PluginError, UsageError
from benchmark.families import FAMILIES
from benchmark.guard import Guard
from benchmark.metrics import single
from benchmark.records import predictions
from benchmark.run import streams, unknown
from benchmark.run.computing import Computing
from benchmark.run.evaluation import _Judge, _predict_group
from benchmark.testing import scenario_checks, toys

SPECS: dict[str, Any] = {
    **{one.SPEC.name: one.SPEC for one in (office_31, visda_2017, digits)},
    "office-home-uda": office_home_shifts.SPECS["office-home-uda"],
}
GOLDEN = Path(__file__).parents[1] / "golden" / "records"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open-set")


def build(roots: Path, name: str, **options: Any) -> Scenario:
    spec, root = SPECS[name], roots / name
    if not root.exists():
        spec.miniature(root / "data")
    request = ScenarioRequest(data_root=root / "data", cache=root / "cache", download="never", miniature=True)
    scenario: Scenario = spec.build(spec.config(**options), request)
    return scenario


class _Subject:
    """A scenario as the checks of the contract take it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = self.other = scenario  # no seed is used

    def build(self, seed: int = 0) -> Scenario:
        return self.scenario


def test_office_home_has_25_known_and_40_unknown_classes(roots: Path) -> None:
    scenario = build(roots, "office-home-uda", label_set="open-set")
    (part,) = scenario.experiences
    assert (scenario.family, scenario.num_classes, len(part.classes)) == ("open-set", 26, 25)
    assert scenario.class_names[-1] == "unknown"
    assert set(part.train.labels.tolist()) == set(range(25))
    assert part.test.labels.bincount().tolist() == [5, *[1] * 24, 40]
    assert set(part.target.labels.tolist()) == {-1}  # type: ignore[union-attr]
    assert scenario.partition == "open set, 25 known of 65 classes"
    for check in ("classes", "names", "ids", "target"):
        scenario_checks.SCENARIO_CHECKS[check](_Subject(scenario))  # type: ignore[arg-type]


def test_classes_of_an_open_set_are_numbered_anew(roots: Path) -> None:
    scenario = build(roots, "visda-2017", label_set="open-set", shared="1-3,6", unknown="0,11")
    assert scenario.class_names == ("bicycle", "bus", "car", "motorcycle", "unknown")
    assert scenario.class_order == (1, 2, 3, 6, 12)
    assert scenario.experiences[0].train.labels.tolist() == [0, 1, 2, 3]
    assert sorted(scenario.experiences[0].test.labels.tolist()) == [0, 1, 2, 3, 4, 4]
    rest = build(roots, "office-31", label_set="open-set", unknown="rest", pair="rest-dslr")
    assert rest.experiences[0].test.labels.bincount().tolist() == [1] * 10 + [21]
    assert rest.experiences[0].train.domains is not None


def test_what_is_kept_of_the_source_has_known_classes_only(roots: Path) -> None:
    scenario = build(roots, "digits", label_set="open-set", shared="5-9", unknown="rest")
    (kept,) = scenario.tests
    assert set(kept.images.labels.tolist()) == set(range(5))
    assert set(scenario.experiences[0].test.labels.tolist()) == set(range(6))
    scenario_checks.classes(_Subject(scenario))  # type: ignore[arg-type]
    partial = build(roots, "digits", label_set="partial", shared="0-4")
    assert (partial.family, partial.num_classes) == ("uda", 10)
    assert set(partial.experiences[0].test.labels.tolist()) == set(range(5))


def test_a_target_without_the_last_label_is_no_open_set(roots: Path) -> None:
    scenario = build(roots, "digits", label_set="open-set", shared="5-9", unknown="rest")
    (part,) = scenario.experiences
    closed = part.test.subset((part.test.labels < 5).nonzero().flatten())
    broken = dataclasses.replace(scenario, experiences=(dataclasses.replace(part, test=closed),))
    with pytest.raises(Exception, match="no image has the last label, that of unknown classes"):
        scenario_checks.classes(_Subject(broken))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (office_31.Office31Config, {"shared": "1"}, "shared: '1' has no effect with label_set=closed"),
        (office_31.Office31Config, {"label_set": "partial", "unknown": "1"}, "unknown: '1' has no effect"),
        (office_31.Office31Config, {"label_set": "open-set"}, "unknown: no published classes are known here"),
        (visda_2017.Visda2017Config, {"label_set": "open-set"}, "shared: no published .* e.g. shared=0-5"),
        (digits.DigitsConfig, {"label_set": "partial"}, "shared: no published classes"),
        (digits.DigitsConfig, {"label_set": "partial", "shared": "0-10"}, r"labels and ranges out of 0\.\.9"),
        (digits.DigitsConfig, {"label_set": "partial", "shared": "one"}, "labels and ranges"),
        (digits.DigitsConfig, {"label_set": "open-set", "shared": "0-4", "unknown": "4"}, "or has one that is"),
        (digits.DigitsConfig, {"label_set": "open-set", "shared": "0-9", "unknown": "rest"}, "leaves no class"),
    ],
)
def test_classes_that_do_not_go_together_are_refused(config: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_entropies_are_parted_in_the_middle_of_two_means() -> None:
    # Entropies of two classes, in units of ln 2: sure, sure, between, open.
    shares = torch.tensor([[1.0, 0.0], [0.99, 0.01], [0.8, 0.2], [0.5, 0.5]])
    logits = torch.log(shares + 1e-12)
    assert unknown.by_entropy(logits).tolist() == [False, False, True, True]  # .72 is nearer to 1 than to .04
    assert unknown.by_entropy(logits[:2]).tolist() == [False, False]  # no centre is at 1
    assert unknown.by_entropy(torch.zeros(3, 1)).tolist() == [False] * 3
    assert unknown.by_entropy(torch.zeros(0, 4)).tolist() == []


def test_the_rule_is_two_means_begun_at_0_and_1() -> None:
    logits = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    shares = logits.double().softmax(1)
    entropies = (-(shares * torch.log(shares + 1e-5)).sum(1) / np.log(5)).numpy()
    means, _ = vq.kmeans2(entropies[:, None], np.array([[0.0], [1.0]]), iter=100, minit="matrix")
    found = unknown.by_entropy(logits)
    assert found.tolist() == (entropies > means.mean()).tolist()
    assert 0 < found.sum() < 200


class _Answers(torch.nn.Module):
    """A method that gives prepared logits: those of the samples asked for, in their order."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def predict(self, images: Tensor) -> Tensor:
        sure = images.flatten(1).sum(1) > 0
        logits = torch.zeros(len(images), self.columns)
        logits[:, 0] = torch.where(sure, 50.0, 0.0)
        if self.columns > 2:
            logits[:, 2] = torch.where(sure, 0.0, 9.0)
        return logits


class _Rules:
    """Reads a set in one batch: images that are black are what the method does not know."""

    name, eval_order, eval_batch_size, open_head, per_sample, keep_logits = "some", "natural", 99, False, False, False
    task_known = keep_choices = False
    computing = Computing()

    def test_batches(self, lengths: list[int]) -> list[torch.Tensor]:
        return [torch.arange(sum(lengths))]

    def tests(self, samples: Any, batches: Any) -> Any:
        return [samples.images(batch).float() for batch in batches]


def predict(columns: int, strange: unknown.Unknown | None) -> predictions.Predictions:
    scenario = toys.toy_scenario(family="uda", test=2)
    images = torch.cat([torch.full((2, 3, 4, 4), 255), torch.zeros(2, 3, 4, 4)]).to(torch.uint8)
    labels = torch.tensor([0, 1, 2, 2])
    samples = type(scenario.experiences[0].test)(images, torch.arange(4), labels, torch.arange(4))
    judge = _Judge(_Answers(columns), Guard("m"), _Rules(), 2, None, None, strange)  # type: ignore[arg-type]
    return _predict_group(judge, [(0, samples)], {}, 0)


def test_a_closed_method_is_scored_by_its_entropies() -> None:
    found = predict(2, unknown.Unknown(2, (0,)))
    assert found.prediction.tolist() == [0, 0, 2, 2]
    assert found.top5.tolist() == [[0, 1], [0, 1], [2, 0], [2, 0]]
    assert predict(2, unknown.Unknown(2, ())).prediction.tolist() == [0, 0, 0, 0]  # not on other test sets
    assert predict(2, None).prediction.tolist() == [0, 0, 0, 0]


def test_a_method_may_answer_unknown_itself_in_an_open_set_only() -> None:
    assert predict(3, unknown.Unknown(2, (0,))).prediction.tolist() == [0, 0, 2, 2]
    with pytest.raises(PluginError, match="returned 3 columns, but 2 classes were seen"):
        predict(3, None)
    with pytest.raises(PluginError, match="returned 4 columns, but 2 classes were seen"):
        predict(4, unknown.Unknown(2, (0,)))


def test_open_set_scores_are_those_of_the_specification() -> None:
    # Known classes 0 and 1 at .9 and .7, unknown at .5: OS* .8, UNK .5, H .615385.
    labels = np.repeat([0, 1, 2], [10, 20, 4])
    predicted = np.concatenate([[0] * 9, [2], [1] * 14, [0] * 6, [2, 2, 0, 1]])
    found = single.open_set(labels, predicted)
    assert found == pytest.approx({"known_acc": 0.8, "unknown_acc": 0.5, "h_score": 0.6153846})
    assert np.isnan(single.open_set([], [])["h_score"])
    columns = {"test_set": labels * 0, "sample_id": np.arange(34), "label": labels, "prediction": predicted}
    table = predictions.table(0, **columns, top5=predicted[:, None], confidence=np.ones(34))
    recorded = metrics.continual_metrics([[25 / 34]], [34], family=FAMILIES["open-set"], predictions=table)
    assert recorded["h_score"] == pytest.approx(0.6153846)
    assert recorded["target_acc"] == pytest.approx(25 / 34)
    validated = metrics.continual_metrics(
        [[25 / 34]], [34], family=FAMILIES["open-set"], predictions=table, transfers=False
    )
    assert "h_score" not in validated
    assert "h_score" not in metrics.continual_metrics([[0.5]], [34], family=FAMILIES["uda"], predictions=table)


def test_held_out_images_of_the_source_hold_nothing_unknown() -> None:
    scenario = toys.toy_scenario(family="open-set")
    stream = streams.sequential(scenario)
    assert stream.unknown == unknown.Unknown(2, (0,))
    assert streams.sequential(streams.validation(scenario, 1)).unknown is None
    assert streams.sequential(toys.toy_scenario(family="uda")).unknown is None
    trained = streams.oracle(scenario).scenario.experiences[0].train
    assert set(trained.labels.tolist()) == {0, 1}


def test_the_table_ranks_by_the_h_score() -> None:
    plain = records.plain(records.read(GOLDEN / f"v{records.SCHEMA}.json"))
    tests = [{"name": "target", "further": False}]
    plain["scenario"] |= {"family": "open-set", "tests": tests, "variant_option": "pair", "name": "some/a-b"}
    plain["scenario"]["experiences"] = plain["scenario"]["experiences"][:1]
    plain |= {"accuracy": [[0.7]], "counts": [50], "baseline": None}
    plain["metrics"] = {"target_acc": 0.7, "known_acc": 0.8, "unknown_acc": 0.5, "h_score": 0.615385}
    (table,) = leaderboard.leaderboard([records.parse(plain)])
    titles = [column.title for column in table.columns]
    assert titles[1:6] == ["a-b", "Mean", "Known (%)", "Unknown (%)", "All images (%)"]
    assert [cell.text for cell in table.rows[0].cells][1:6] == ["61.54", "61.54", "80.00", "50.00", "70.00"]
    assert "H-score" in table.caption


def test_an_upper_bound_cannot_train_on_the_images_it_is_tested_on(roots: Path) -> None:
    with pytest.raises(UsageError, match="tests on its target images"):
        streams.oracle(build(roots, "office-home-uda", label_set="open-set"))
    assert families.get("open-set").unknown
