from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmark import metrics
from benchmark.families import FAMILIES
from benchmark.metrics import single as prediction_metrics
from benchmark.records import predictions

CLASS_IL, DOMAIN_IL = FAMILIES["class-il"], FAMILIES["domain-il"]
GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
VECTORS = json.loads((GOLDEN / "vectors.json").read_text())
R, N = np.array(VECTORS["R"]), VECTORS["n"]


def near(value: object) -> object:
    return pytest.approx(value, abs=1e-6)


def load(case: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{case}.npz") as archive:
        return dict(archive)


def table(experience: int, sets: np.ndarray, labels: np.ndarray, guesses: np.ndarray) -> predictions.Predictions:
    """Predictions without anything that the tests here do not look at."""
    return predictions.table(
        experience,
        test_set=sets,
        sample_id=np.arange(len(labels)),
        label=labels,
        prediction=guesses,
        top5=guesses[:, None],
        confidence=np.full(len(labels), 0.5),
        logits=None,
    )


@pytest.mark.parametrize(
    "name",
    [
        "avg_acc",
        "seen_acc",
        "final_avg_acc",
        "final_acc",
        "avg_incremental_acc",
        "avg_incremental_acc_task",
        "forgetting_clipped",
        "forgetting_first_last",
        "forgetting_stepwise",
        "bwt",
        "bwt_all_pairs",
        "fwt",
        "fwt_upper",
        "learning_acc",
    ],
)
def test_vectors(name: str) -> None:
    found = metrics.continual_metrics(R, N, family=DOMAIN_IL, baseline=VECTORS["b"])
    assert found[name] == near(VECTORS[name])


def test_vectors_under_other_names() -> None:
    found = metrics.continual_metrics(R, N, family=DOMAIN_IL, baseline=VECTORS["b"])
    assert found["forgetting_curve"] == near(VECTORS["forgetting"])
    assert found["forgetting"] == near(VECTORS["forgetting"][-1])
    assert found["min_acc"] == near(VECTORS["min_acc_last"])
    assert list(metrics.intransigence(R, VECTORS["a_star"])) == near(VECTORS["intransigence"])
    assert found["lower_triangle_acc"] == near(0.7666667)
    assert metrics.remembering(R) == near(1.0)
    assert metrics.positive_bwt(R) == near(0.05)
    assert found["domain_acc"] == near([0.7, 0.75, 0.85])
    assert found["worst_domain_acc"] == near(0.7)


def test_a_single_experience_has_no_past() -> None:
    vector = VECTORS["single_experience_T1"]
    found = metrics.continual_metrics(vector["R"], [10], family=DOMAIN_IL, baseline=[0.1])
    for name in ("final_avg_acc", "forgetting", "bwt", "fwt"):
        assert found[name] == vector[name]
    assert found["avg_incremental_acc"] == 0.5


def test_identity_matrix() -> None:
    vector = VECTORS["identity_T2"]
    found = metrics.continual_metrics(vector["R"], vector["n"], family=CLASS_IL)
    for name in ("final_avg_acc", "avg_incremental_acc", "bwt", "learning_acc"):
        assert found[name] == near(vector[name])
    assert found["forgetting_curve"] == vector["forgetting"]


def test_class_il_leaves_cells_above_the_diagonal_empty() -> None:
    rows = [[0.8, None, None], [0.9, 0.6, None], [0.7, 0.75, 0.85]]
    found = metrics.continual_metrics(rows, N, family=CLASS_IL, baseline=VECTORS["b"])
    full = metrics.continual_metrics(R, N, family=CLASS_IL)
    assert found == full
    assert found["fwt"] is None
    assert "fwt_upper" not in found
    json.dumps(found, allow_nan=False)


def test_a_missing_cell_makes_undefined_not_skipped() -> None:
    rows = [[0.8, None, None], [0.9, 0.6, None], [None, 0.75, 0.85]]
    found = metrics.continual_metrics(rows, N, family=CLASS_IL)
    assert found["avg_acc"] == near([0.8, 0.75, None])
    for name in ("final_avg_acc", "final_acc", "avg_incremental_acc", "forgetting", "bwt", "min_acc"):
        assert found[name] is None
    assert found["learning_acc"] == near(0.75)


def test_a_joint_run_has_one_row_and_no_time() -> None:
    found = metrics.continual_metrics([[0.5, 0.6, 0.9]], [1, 2, 3], family=CLASS_IL)
    assert found["final_avg_acc"] == near(2 / 3)
    assert found["final_acc"] == near((0.5 + 1.2 + 2.7) / 6)
    timed = (
        "avg_incremental_acc",
        "avg_incremental_acc_task",
        "lower_triangle_acc",
        "forgetting",
        "bwt",
        "bwt_all_pairs",
        "forgetting_clipped",
        "forgetting_first_last",
        "forgetting_stepwise",
        "learning_acc",
        "min_acc",
    )
    assert {name: found[name] for name in timed} == dict.fromkeys(timed)


def test_one_joint_test_set_has_a_curve_but_no_forgetting() -> None:
    found = metrics.continual_metrics([[0.2], [0.4], [0.6]], [100], family=DOMAIN_IL)
    assert found["avg_acc"] == near([0.2, 0.4, 0.6])
    assert found["avg_incremental_acc"] == near(0.4)
    assert found["forgetting"] is None
    assert found["learning_acc"] is None


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0.1, 0.2]] * 3, "3 rows and 2 columns"),
        ([0.5], "shape"),
        ([[]], "shape"),
        ([[80.0]], "fractions"),
        ([[-0.1]], "fractions"),
    ],
)
def test_bad_matrices_are_refused(rows: list[object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.as_matrix(rows)


def test_counts_must_fit() -> None:
    with pytest.raises(ValueError, match="one count per test set"):
        metrics.continual_metrics(R, [1, 2], family=CLASS_IL)
    with pytest.raises(ValueError, match="intransigence"):
        metrics.intransigence(np.ones((1, 3)), [1, 1, 1])


# --- What other code bases say of the same matrices -------------------------------------------


@pytest.mark.parametrize("case", ["matrix_t4", "matrix_t4_backward_gain"])
class TestPublicCode:
    def test_l2p_pytorch(self, case: str) -> None:
        data = load(case)
        matrix = data["input.acc_percent"].T / 100
        for t in range(4):
            prefix = f"l2p_pytorch.after_task{t}."
            assert 100 * metrics.avg_acc(matrix)[t] == near(float(data[prefix + "average_accuracy"]))
            if t:
                part = matrix[: t + 1, : t + 1]
                assert 100 * metrics.forgetting_clipped(part) == near(float(data[prefix + "forgetting"]))
                assert 100 * metrics.bwt(part) == near(float(data[prefix + "backward"]))

    def test_pilot_from_single_predictions(self, case: str) -> None:
        data = load(case)
        sets = np.repeat(np.arange(4), data["input.test_sizes"])
        parts = []
        for t in range(4):
            guesses = data[f"input.pred.{t}"]
            parts.append(table(t, sets[: len(guesses)], data["input.labels"][: len(guesses)], guesses))
        matrix, counts = metrics.accuracy_matrix(predictions.concat(parts))
        assert counts.tolist() == data["input.test_sizes"].tolist()
        lower = np.tril_indices(4)
        assert 100 * matrix[lower] == near(data["input.acc_percent"].T[lower])
        assert np.isnan(matrix[np.triu_indices(4, k=1)]).all()
        # PILOT rounds each accuracy to two decimals of a percent.
        assert 100 * metrics.seen_acc(matrix, counts) == pytest.approx(data["pilot.top1_curve"], abs=0.005001)
        assert 100 * metrics.avg_incremental_acc(matrix, counts) == pytest.approx(
            float(data["pilot.average_of_curve"]), abs=0.005001
        )
        assert 100 * metrics.forgetting_clipped(matrix) == near(float(data["pilot.forgetting"]))

    def test_mammoth(self, case: str) -> None:
        data = load(case)
        matrix, untrained = data["input.acc_percent"].T / 100, data["input.random_acc_percent"] / 100
        assert 100 * metrics.final_avg_acc(matrix) == near(float(data["mammoth.average_accuracy_last"]))
        assert 100 * metrics.forgetting_clipped(matrix) == near(float(data["mammoth.forgetting"]))
        assert 100 * metrics.bwt(matrix) == near(float(data["mammoth.backward_transfer"]))
        assert 100 * metrics.fwt(matrix, untrained) == near(float(data["mammoth.forward_transfer"]))

    def test_coda_prompt(self, case: str) -> None:
        data = load(case)
        assert 100 * metrics.forgetting_stepwise(data["input.acc_percent"].T / 100) == near(
            float(data["coda_prompt.forgetting"])
        )

    def test_avalanche_plugins(self, case: str) -> None:
        data = load(case)
        matrix, untrained = data["input.acc_percent"].T / 100, data["input.random_acc_percent"] / 100
        for t in range(4):
            prefix = f"avalanche.after_task{t}."
            seen = metrics.seen_acc(matrix, data["input.test_sizes"])[t]
            assert seen == near(float(data[prefix + "TrainedExperienceAccuracy"]))
            if t:
                assert metrics.forgetting_first_last(matrix, t) == near(float(data[prefix + "StreamForgetting"]))
                assert metrics.bwt(matrix[: t + 1, : t + 1]) == near(float(data[prefix + "StreamBWT"]))
        assert metrics.fwt(matrix, untrained) == near(float(data["avalanche.after_task3.StreamForwardTransfer"]))

    def test_avalanche_functional(self, case: str) -> None:
        """Runs Avalanche's own file, loaded alone: importing the package takes ten seconds."""
        package = importlib.util.find_spec("avalanche")
        assert package is not None
        assert package.submodule_search_locations
        path = Path(package.submodule_search_locations[0]) / "evaluation" / "functional.py"
        spec = importlib.util.spec_from_file_location("avalanche_functional", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        matrix = load(case)["input.acc_percent"].T / 100
        theirs = module.forgetting(matrix)
        for t in range(1, 4):
            assert metrics.forgetting_first_last(matrix, t) == near(theirs[t, :t].mean())


# --- Properties -------------------------------------------------------------------------------

MATRICES = st.integers(1, 6).flatmap(
    lambda size: hnp.arrays(np.float64, (size, size), elements=st.floats(0, 1, allow_subnormal=False))
)


@given(MATRICES)
def test_ranges_and_identities(matrix: np.ndarray) -> None:
    found = metrics.continual_metrics(matrix, [7] * len(matrix), family=DOMAIN_IL, baseline=[0.1] * len(matrix))
    for name in ("avg_acc", "seen_acc", "domain_acc"):
        assert all(-1e-12 <= value <= 1 + 1e-12 for value in found[name])
    assert found["seen_acc"] == near(found["avg_acc"])
    if len(matrix) > 1:
        assert found["forgetting_clipped"] >= max(0.0, found["forgetting"]) - 1e-12
        assert found["forgetting_first_last"] == near(-found["bwt"])
        for name in ("forgetting", "forgetting_clipped", "forgetting_first_last", "forgetting_stepwise"):
            assert -1 <= found[name] <= 1


@given(MATRICES, st.floats(-1, 1))
def test_a_constant_changes_no_difference(matrix: np.ndarray, constant: float) -> None:
    for variant in metrics.FORGETTING.values():
        assert variant(matrix + constant) == pytest.approx(variant(matrix), abs=1e-12, nan_ok=True)
    assert metrics.bwt(matrix + constant) == pytest.approx(metrics.bwt(matrix), abs=1e-12, nan_ok=True)


@given(MATRICES)
def test_constant_columns_forget_nothing(matrix: np.ndarray) -> None:
    constant = matrix.copy()
    for j in range(len(matrix)):
        constant[j:, j] = matrix[j, j]
    for variant in metrics.FORGETTING.values():
        assert variant(constant) == pytest.approx(0.0, abs=1e-12) or len(matrix) == 1


@given(st.data())
def test_accuracy_matrix_counts(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    sets = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(sets), max_size=len(sets))))
    guesses = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(sets), max_size=len(sets))))
    matrix, counts = metrics.accuracy_matrix(table(0, sets, labels, guesses))
    assert counts.tolist() == sizes
    for j in range(len(sizes)):
        assert matrix[0, j] == np.mean(labels[sets == j] == guesses[sets == j])
    row, row_counts = metrics.accuracy_row(sets, labels == guesses, len(sizes))
    assert row.tolist() == matrix[0].tolist()
    assert row_counts.tolist() == sizes


def test_a_test_set_may_not_change_its_size() -> None:
    zeros, ones = np.zeros(3, dtype=int), np.zeros(2, dtype=int)
    joined = predictions.concat([table(0, zeros, zeros, zeros), table(1, ones, ones, ones)])
    with pytest.raises(ValueError, match="test set 0 has 2 predictions after experience 1, but 3"):
        metrics.accuracy_matrix(joined)


# --- Single predictions -----------------------------------------------------------------------


def test_mean_class_accuracy_and_f1() -> None:
    vector = VECTORS["mean_class_acc"]
    labels = np.repeat(np.arange(3), vector["count"])
    right = np.concatenate(
        [np.arange(count) < good for good, count in zip(vector["correct"], vector["count"], strict=True)]
    )
    guesses = np.where(right, labels, (labels + 1) % 3)
    assert prediction_metrics.mean_class_acc(labels, guesses) == near(vector["value"])
    assert prediction_metrics.accuracy(labels, guesses) == near(vector["overall"])
    # class 0: 8 right of 10, predicted 8 + 2 times; class 1: 1 of 2, 1 + 2; class 2: 6 of 8, 6 + 1
    assert prediction_metrics.macro_f1(labels, guesses) == near((16 / 20 + 2 / 5 + 12 / 15) / 3)
    # A class that never occurs does not count, one that is never predicted gives 0.
    assert prediction_metrics.macro_f1([0, 0, 5], [0, 0, 0]) == near((4 / 5 + 0) / 2)


@pytest.mark.parametrize(("base", "new", "value"), VECTORS["harmonic"])
def test_harmonic_mean(base: float, new: float, value: float) -> None:
    assert prediction_metrics.harmonic_mean(base, new) == near(value)
    assert prediction_metrics.h_score(base, new) == near(value)


def test_adaptation_metrics() -> None:
    assert prediction_metrics.proxy_a_distance(0.2) == near(1.2)
    assert prediction_metrics.vtab_mean_groups([[78.49], [82.43], [50.0, 60.0]]) == pytest.approx(71.97, abs=0.005)
    assert prediction_metrics.worst_domain_acc([0.5, 0.25]) == 0.25
    assert prediction_metrics.transfer_gain(0.7, 0.5) == near(0.2)
    assert prediction_metrics.mean_corruption_error([0.9, 0.7]) == near(0.2)
    assert prediction_metrics.mean_corruption_error([[0.9, 0.7], [0.5, 0.5]], [[0.8, 0.4], [0.0, 0.0]]) == near(0.5)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_calibration_vectors(norm: str) -> None:
    vector = VECTORS["ece"]
    for bins, value in vector[norm].items():
        found = prediction_metrics.calibration_error(vector["conf"], vector["correct"], bins=int(bins), norm=norm)  # type: ignore[arg-type]
        assert found == near(value)


def test_calibration_edges() -> None:
    assert prediction_metrics.calibration_error([0.0, 1.0], [0, 1]) == 0.0
    # 0.5 belongs to the lower of two bins: with 0.25, not with 0.75.
    assert prediction_metrics.calibration_error([0.25, 0.5, 0.75], [0, 0, 1], bins=2, norm="max") == near(0.375)
    assert math.isnan(prediction_metrics.calibration_error([], []))
    with pytest.raises(ValueError, match="probabilities"):
        prediction_metrics.calibration_error([50.0], [1])
    with pytest.raises(ValueError, match="bins"):
        prediction_metrics.calibration_error([0.5], [1], bins=0)


def test_nll_and_brier_vectors() -> None:
    conf = np.array(VECTORS["ece"]["conf"])
    probs = np.stack([conf, 1 - conf], axis=1)
    labels = 1 - np.array(VECTORS["ece"]["correct"])
    assert prediction_metrics.nll(np.log(probs), labels) == near(0.565879)
    assert prediction_metrics.brier(probs, labels) == near(0.405)
    assert prediction_metrics.probabilities(np.log(probs)) == near(probs)


def test_masked_classes_get_no_probability() -> None:
    logits = np.array([[0.0, 0.0, -np.inf]])
    assert prediction_metrics.probabilities(logits).tolist() == [[0.5, 0.5, 0.0]]
    assert prediction_metrics.nll(logits, [0]) == near(math.log(2))
    assert math.isnan(prediction_metrics.nll(logits, [2]))


@given(
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_calibration_properties(conf: np.ndarray, bins: int, random: object) -> None:
    correct = np.array([random.random() < 0.5 for _ in conf])  # type: ignore[attr-defined]
    l1, l2, top = (
        prediction_metrics.calibration_error(conf, correct, bins=bins, norm=norm) for norm in ("l1", "l2", "max")
    )
    assert 0 <= l1 <= l2 + 1e-12
    assert l2 <= top + 1e-12
    assert top <= 1


def test_predictions_add_their_metrics() -> None:
    sets, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])
    first = table(0, sets[:2], labels[:2], labels[:2])
    last = table(1, sets, labels, np.array([0, 1, 2, 2]))
    both = predictions.concat([first, last])
    matrix, counts = metrics.accuracy_matrix(both)
    found = metrics.continual_metrics(matrix, counts, family=CLASS_IL, predictions=both)
    assert found["mean_class_acc"] == 0.75
    assert found["ece"] == near(0.25)  # confidence 0.5 everywhere, 3 of 4 right
    assert found["ece_samples"] == 4
    assert "nll" not in found
    with_logits = predictions.table(
        1,
        test_set=sets,
        sample_id=sets,
        label=labels,
        prediction=labels,
        top5=labels[:, None],
        confidence=np.ones(4),
        logits=np.log(np.full((4, 3), 1 / 3)),
    )
    found = metrics.continual_metrics([[1, None], [1, 1]], [2, 2], family=CLASS_IL, predictions=with_logits)
    assert found["nll"] is None  # label 3 is outside the three logits
    assert found["brier"] == near((3 * 2 / 3 + (1 / 3 + 1)) / 4)
