"""Importers of console output and of YAML files: made here in the published formats, with their quirks."""

from __future__ import annotations

import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.errors import DataMissing, UsageError
from benchmark.foreign import namespace
from benchmark.importing import Told, import_file


def write(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- arguments as argparse prints them ----------------------------------------------------------


def test_arguments_are_read_without_running_anything() -> None:
    text = "Namespace(seed=42, lr=0.03, data=['a', 'b'], path=PosixPath('x'), **{'not-a-name': 1})"
    assert namespace(text) == {"seed": 42, "lr": 0.03, "data": ["a", "b"], "path": "PosixPath('x')", "not-a-name": 1}


@pytest.mark.parametrize(
    "text",
    ["Namespace(seed=42", "dict(seed=42)", "Namespace(1)", "Namespace(f=<function f at 0x7f>)", "Namespace(**x)"],
)
def test_what_is_no_namespace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no whole Namespace|no Namespace|not a plain value"):
        namespace(text)


# --- l2p-pytorch --------------------------------------------------------------------------------


def start(**options: Any) -> str:
    values: dict[str, Any] = {
        "subparser_name": "cifar100_l2p",
        "seed": 42,
        "model": "vit_base_patch16_224",
        "dataset": "Split-CIFAR100",
        "num_tasks": 3,
        "shuffle": False,
        "task_inc": False,
        "data_path": "/some/where",
        "device": "cuda",
        **options,
    }
    return "Not using distributed mode\nNamespace(" + ", ".join(f"{k}={v!r}" for k, v in values.items()) + ")\n"


L2P_ROWS = [[96.5], [90.0, 92.125], [80.0, 85.5, 91.0]]


def l2p_rows(rows: Sequence[Sequence[float]]) -> str:
    text = ""
    for time, row in enumerate(rows):
        text += "Train: Epoch[1/5]  [  0/312]  eta: 0:02:11  Lr: 0.001875  Acc@1: 6.2500 (6.2500)\n"
        for test, value in enumerate(row, 1):
            text += f"Test: [Task {test}]  [ 0/63]  eta: 0:00:13  Loss: 0.4 (0.4)  Acc@1: 93.7500 (94.1000)\n"
            text += f"Test: [Task {test}] Total time: 0:00:03 (0.0500 s / it)\n"
            text += f"* Acc@1 {value:.3f} Acc@5 99.800 loss 0.210\n"
        text += f"[Average accuracy till task{time + 1}]\tAcc@1: {np.mean(row):.4f}\tAcc@5: 99.8000\tLoss: 0.2100"
        if time:
            best = [max(rows[t][j] for t in range(j, time + 1)) for j in range(time)]
            lost = np.mean([best[j] - row[j] for j in range(time)])
            back = np.mean([row[j] - rows[j][j] for j in range(time)])
            text += f"\tForgetting: {lost:.4f}\tBackward: {back:.4f}"
        text += "\n"
    return text


def test_l2p_pytorch_rows_are_what_stands_before_an_average(tmp_path: Path) -> None:
    (run,) = import_file("l2p-pytorch", write(tmp_path, start() + l2p_rows(L2P_ROWS), "slurm-1.out"))
    assert run.accuracy == [
        [pytest.approx(0.965), None, None],
        [pytest.approx(0.9), pytest.approx(0.92125), None],
        [pytest.approx(0.8), pytest.approx(0.855), pytest.approx(0.91)],
    ]
    assert (run.seed, run.backbone, run.scenario, run.method) == (
        42,
        "vit_base_patch16_224",
        "Split-CIFAR100",
        "cifar100_l2p",
    )
    assert run.complete is True
    assert run.metrics["final_avg_acc"] == pytest.approx(0.855)
    scores = {score.name: score.value for score in run.reported}
    assert scores["Acc@1"] == pytest.approx(0.855)
    assert scores["Forgetting"] == pytest.approx((0.165 + 0.06625) / 2, abs=1e-6)
    assert run.metrics["forgetting_clipped"] == pytest.approx(scores["Forgetting"], abs=1e-6)
    assert "data_path" not in run.config
    assert run.notes == ["classes in the order of the data"]


def test_l2p_pytorch_cut_off_shuffled_and_task_il(tmp_path: Path) -> None:
    text = start(shuffle=True, task_inc=True) + l2p_rows(L2P_ROWS[:2])
    first, second = import_file("l2p-pytorch", write(tmp_path, text + start(seed=1) + l2p_rows(L2P_ROWS), "a.out"))
    assert (first.complete, first.family, first.metrics) == (False, "task-il", {})
    assert any("order is not printed" in note for note in first.notes)
    assert (second.seed, second.complete) == (1, True)
    odd = start() + l2p_rows(L2P_ROWS).replace("Test: [Task 2] Total", "Test: [Task 1] Total")
    (run,) = import_file("l2p-pytorch", write(tmp_path, odd, "b.out"))
    assert run.accuracy is None
    assert run.number("final_avg_acc") == (pytest.approx(0.855), True)
    wrong = start() + l2p_rows(L2P_ROWS).replace("till task3]\tAcc@1: 85.5000", "till task3]\tAcc@1: 87.5000")
    (run,) = import_file("l2p-pytorch", write(tmp_path, wrong, "c.out"))
    assert any("average of row 2 is not the mean" in note for note in run.notes)


def test_l2p_pytorchs_stats_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '{"train_Lr": 0.0019, "test_Acc@1": 93.1, "epoch": 4}\n', "log_2025_01_02_03_04_stats.txt")
    with pytest.raises(UsageError, match="the last test set alone") as caught:
        import_file("l2p-pytorch", path)
    assert "console output" in str(caught.value.hint)


# --- CODA-Prompt --------------------------------------------------------------------------------


def block(value: Any, indent: int = 0, first: bool = False) -> str:
    """Nested lists as PyYAML writes them in block style."""
    if not isinstance(value, list):
        return f"{value!r}\n"
    text = ""
    for place, item in enumerate(value):
        text += ("" if first and place == 0 else " " * indent) + "- " + block(item, indent + 2, first=True)
    return text


def coda(history: np.ndarray[Any, Any]) -> str:
    text = "history:\n" + block(history.tolist()) + "mean:\n" + block(history.mean(-1).tolist())
    return text + ("std:\n" + block(history.std(-1).tolist()) if history.shape[-1] > 2 else "")


PT = np.array([[[97.0, 96.0], [80.0, 82.0]], [[0.0, 0.0], [91.0, 93.0]]])  # test set, time, repeat
GLOBAL = np.array([[97.0, 96.0], [85.5, 87.5]])
ARGS = """dataset: CIFAR100
first_split_size: 10
gpuid:
- 0
learner_name: CODAPrompt
log_dir: /some/where
model_name: vit_pt_imnet
other_split_size: 10
prompt_param:
- 100.0
- 8.0
rand_split: true
validation: {validation}
"""


def place(folder: Path, text: str, name: str = "pt.yaml", *, validation: str = "false") -> Path:
    write(folder, ARGS.format(validation=validation), "args.yaml")
    return write(folder, text, f"results-acc/{name}")


def test_the_yaml_of_these_tests_is_that_of_the_library() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with timm")
    for history in (PT, GLOBAL):
        values = {"history": history.tolist(), "mean": history.mean(-1).tolist()}
        assert coda(history) == yaml.dump(values, default_flow_style=False)


def test_coda_prompt_is_transposed_and_zeros_of_the_future_are_no_scores(tmp_path: Path) -> None:
    first, second = import_file("coda-prompt", place(tmp_path, coda(PT)))
    assert first.accuracy == [[0.97, None], [0.8, 0.91]]
    assert second.accuracy == [[0.96, None], [0.82, 0.93]]
    assert (first.seed, second.seed) == (0, 1)
    assert (first.method, first.scenario, first.backbone) == ("CODAPrompt", "CIFAR100", "vit_pt_imnet")
    assert first.config["prompt_param"] == ["100.0", "8.0"]
    assert first.config == second.config
    assert "log_dir" not in first.config
    assert first.metrics["final_avg_acc"] == pytest.approx(0.855)
    assert first.number("final_acc") == (None, False), "test sets may differ in size"
    assert first.import_id != second.import_id
    assert any("output.log" in note for note in second.notes)
    means = import_file("coda-prompt", place(tmp_path, coda(GLOBAL), "global.yaml"))
    assert [run.accuracy for run in means] == [None, None]
    assert means[1].number("final_avg_acc") == (pytest.approx(0.875), True)
    assert means[1].number("avg_incremental_acc_task") == (pytest.approx((0.96 + 0.875) / 2), True)


def test_coda_prompt_knows_what_its_names_mean(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="told by its name alone"):
        import_file("coda-prompt", place(tmp_path, coda(PT), "pt-local.yaml"))
    with pytest.raises(UsageError, match="hold seconds"):
        import_file("coda-prompt", write(tmp_path, coda(GLOBAL), "results-time/global.yaml"))
    with pytest.raises(UsageError, match="2 levels of lists, 3 are expected"):
        import_file("coda-prompt", place(tmp_path, coda(GLOBAL), "pt.yaml"))
    (run, _) = import_file("coda-prompt", write(tmp_path / "alone", coda(PT), "results-acc/pt.yaml"))
    assert (run.method, run.config) == (None, {})
    assert any("no args.yaml" in note for note in run.notes)


def test_coda_prompt_on_held_out_images_has_no_test_accuracy(tmp_path: Path) -> None:
    run, _ = import_file("coda-prompt", place(tmp_path, coda(PT), validation="true"))
    assert (run.accuracy, run.metrics, run.number("final_avg_acc")) == (None, {}, (None, False))
    assert run.reported[0].definition.startswith("of held-out training images")


def test_coda_prompts_means_must_be_those_of_its_repeats(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="not the mean over the repeats"):
        import_file("coda-prompt", place(tmp_path, coda(PT).replace("- 96.5", "- 97.5")))
    with pytest.raises(DataMissing, match="is no percentage"):
        import_file("coda-prompt", place(tmp_path, coda(PT).replace("97.0", ".nan")))
    with pytest.raises(DataMissing, match="cut off"):
        import_file("coda-prompt", place(tmp_path, coda(PT).split("mean:")[0]))


# --- LibContinual -------------------------------------------------------------------------------

TABLE = [[88.4], [80.0, 89.9], [70.0, 75.5, 91.25]]


def libcontinual(rows: Sequence[Sequence[float]], *, whole: bool = True, **more: Any) -> str:
    config: dict[str, Any] = {
        "backbone": {"name": "vit_pt_imnet", "kwargs": {"pretrained": True}},
        "classifier": {"name": "L2P", "kwargs": {"num_class": 6, "pool_size": 10, "prompt_length": 5, "top_k": 5}},
        "dataset": "cifar100",
        "device_ids": 0,
        "init_cls_num": 2,
        "inc_cls_num": 2,
        "save_path": "/some/where",
        "seed": 7,
        "setting": "task-agnostic",
        "task_num": len(rows),
        "testing_times": 1,
        "class_order": range(6),
        **more,
    }
    text = pprint.pformat(config) + "\n"
    for time, row in enumerate(rows):
        for head, shown in (
            ("Validation on test set", [99.0] * (time + 1)),
            (f"Test 1/1 of Task {time}!", list(row)),
            (f"Result of Task {time} Testing!", np.array(row)),
        ):
            mean = float(np.mean(np.array(shown)))
            text += (
                f"================{head}================\n * [Batch] Last Average Acc: {mean + 1:.2f} (Best: 99.00)\n"
            )
            text += f" * [Task] Last Average Acc: {mean:.2f} (Best: 99.00)\n * Forgetting: 1.000 (Best: 0.000)\n"
            text += f" * Backward Transfer: -1.00 (Best: 0.00)\n * Per-Task Acc: {shown}\n"
    if whole:
        table = np.zeros((len(rows), len(rows)))
        for time, row in enumerate(rows):
            table[time, : time + 1] = row
        text += f"================Overall Result of {len(rows)} Tasks!================\n"
        text += " * [Batch] Overall Avg Acc : 85.00 (Best: 99.00)\n * [Task] Overall Avg Acc : 84.00\n"
        text += f" * Overall Frgt : inf\n * Overall BwT : -inf\n * Average Acc Table : \n{table}\n"
        text += "================Model Performance Analysis================\n * Time Costs : 3.00 sec\n"
    return text


def test_libcontinual_takes_results_and_neither_validations_nor_best(tmp_path: Path) -> None:
    (run,) = import_file("libcontinual", write(tmp_path, libcontinual(TABLE), "cifar100..vit--ep5--s7.log"))
    assert run.accuracy is not None
    assert run.accuracy[2] == pytest.approx([0.7, 0.755, 0.9125])
    assert run.accuracy[0] == [pytest.approx(0.884), None, None]
    assert (run.method, run.backbone, run.scenario, run.seed) == ("L2P", "vit_pt_imnet", "cifar100", 7)
    assert (run.experiences, run.complete, run.class_order) == ([2, 2, 2], True, None)
    assert run.number("final_acc") == (0.7992, True)
    assert run.number("avg_incremental_acc") == (pytest.approx(0.85), True)
    assert run.metrics["final_avg_acc"] == pytest.approx(0.789167, abs=1e-5)
    scores = {score.name: score.value for score in run.reported}
    assert 0.99 not in scores.values()
    assert "Overall Frgt" not in scores, "not finite: there were none"
    assert any("count_floor" in note for note in run.notes)


def test_libcontinual_reads_wrapped_rows_and_tells_a_half_run(tmp_path: Path) -> None:
    many = [[50.25 + test / 4 for test in range(time + 1)] for time in range(40)]
    text = libcontinual(many, setting="task-aware", testing_times=3)
    assert "..." in text, "numpy elides the table from 32 tasks on"
    (run,) = import_file("libcontinual", write(tmp_path, text, "a.log"))
    assert run.accuracy is not None
    assert run.accuracy[39] == pytest.approx([(50.25 + test / 4) / 100 for test in range(40)])
    assert (run.family, run.decimals) == ("task-il", None)
    (half,) = import_file("libcontinual", write(tmp_path, libcontinual(TABLE, whole=False), "b.log"))
    assert (half.complete, half.metrics) == (False, {})
    torn = libcontinual(TABLE).replace("Result of Task 1 Testing", "Result of Task 2 Testing")
    with pytest.raises(DataMissing, match="comes after 1 results"):
        import_file("libcontinual", write(tmp_path, torn, "c.log"))


# --- Google's L2P -------------------------------------------------------------------------------


def jax_line(text: str) -> str:
    return f"I0102 03:04:05.678901 139 logging_writer.py:57] {text}\n"


HYPER = {
    "seed": 3,
    "model_name": "ViT-B_16",
    "init_checkpoint": "gs://vit/imagenet21k/ViT-B_16.npz",
    "continual": {"num_tasks": 2, "rand_seed": -1},
}


def l2p_jax(*, hyper: bool = True, options: dict[str, Any] = HYPER) -> str:
    text = jax_line(f"[Hyperparameters] {options}") if hyper else ""
    text += "I0102 03:04:05.678901 139 train_continual.py:57] Starting training loop\n"
    for step, row in ((1, [0.5]), (2, [0.9712]), (3, [0.9, 0.4]), (4, [0.83, 0.91])):
        text += jax_line(f"[{100 * step}] train_accuracy=0.99, loss=0.1, task_id=0")
        text += jax_line(
            f"[{step}] " + ", ".join(f"accuracy_{j}={value:.6g}, eval_loss_{j}=0.11" for j, value in enumerate(row))
        )
        text += jax_line(f"[{step}] avg_acc={np.mean(row):.6g}")
        if step == 2:
            text += jax_line(f"[{step}] learning_acc=0.9712")
        elif step == 4:
            text += jax_line(f"[{step}] backward=-0.1412, forgetting=0.1412, learning_acc=0.9406")
    return text


def test_jax_rows_are_the_evaluations_before_the_end_of_a_task(tmp_path: Path) -> None:
    (run,) = import_file("google-l2p", write(tmp_path, l2p_jax(), "stderr"))
    assert run.accuracy == [[0.9712, None], [0.83, 0.91]]
    assert (run.seed, run.backbone, run.complete) == (3, "ViT-B_16", True)
    assert run.config["init_checkpoint"].startswith("gs://")
    assert run.metrics["forgetting"] == pytest.approx(0.1412)
    assert {score.name: score.value for score in run.reported}["forgetting"] == 0.1412
    assert run.notes == ["classes in the order of the data set"]


def test_jax_after_a_restart_or_of_the_last_task_alone(tmp_path: Path) -> None:
    (run,) = import_file("google-l2p", write(tmp_path, l2p_jax(hyper=False), "a"))
    assert (run.seed, run.backbone, run.complete) == (None, None, None)
    last = jax_line("[1] accuracy_0=0.8, accuracy_1=0.9") + jax_line("[1] avg_acc=0.85, learning_acc=0.9")
    (run,) = import_file("google-l2p", write(tmp_path, jax_line(f"[Hyperparameters] {HYPER}") + last, "b"))
    assert (run.accuracy, run.number("final_avg_acc")) == (None, (0.85, True))
    permuted = {**HYPER, "continual": {"num_tasks": 2, "rand_seed": 5}, "eval_task_inc": True}
    (run,) = import_file("google-l2p", write(tmp_path, l2p_jax(options=permuted), "c"))
    assert run.family == "task-il"
    assert any("order unknown" in note for note in run.notes)
    with pytest.raises(DataMissing, match="is no fraction"):
        import_file("google-l2p", write(tmp_path, l2p_jax().replace("0.9712", "97.12"), "d"))


# --- Transfer-Learning-Library ------------------------------------------------------------------

TLLIB = (
    "Namespace(root='/some/where', data={data!r}, source=['A'], target=['W'], arch='resnet50', scratch=False, "
    "epochs=2, seed={seed}, per_class_eval=True, phase={phase!r}, log='logs/dann')\n"
)
WARNING = "dann.py:44: UserWarning: You have chosen to seed training.\n"


def tllib(*, data: str = "Office31", seed: int | None = 0, phase: str = "train", end: bool = True) -> str:
    text = TLLIB.format(data=data, seed=seed, phase=phase) + WARNING
    for value in ("84.201", "83.125"):
        text += "lr: 0.01\nEpoch: [0][0/1000]\tTime  0.40\tCls Acc 50.0\n"
        text += "Test: [ 0/12]\tTime  0.100 ( 0.100)\tLoss 4.0e-01 (4.0e-01)\tAcc@1  90.62 ( 90.62)\n"
        text += f" * Acc@1 {value}\nglobal correct: 83.1\nmean correct:82.5\nmean IoU: 70.1\n"
    return text + ("best_acc1 = 84.2\n * Acc@1 84.201\ntest_acc1 = 84.2\n" if end else "")


def test_tllib_tells_the_last_epoch_from_the_best_by_target_labels(tmp_path: Path) -> None:
    (run,) = import_file("tllib", write(tmp_path, tllib(), "train-2025-01-02-03_04_05.txt"), Told(method="dann"))
    scores = {score.name: score for score in run.reported}
    assert scores["Acc@1"].value == pytest.approx(0.83125)
    assert scores["best_acc1"].value == pytest.approx(0.842)
    assert "target test images" in run.selection
    assert (run.scenario, run.backbone, run.seed, run.method) == ("Office31 A -> W", "resnet50", 0, "dann")
    assert [row["accuracy"] for row in run.tables["epochs"]] == pytest.approx([0.84201, 0.83125])
    assert (run.complete, run.accuracy) == (True, None)
    assert scores["mean correct"].value == 0.825
    assert "root" not in run.config


def test_tllib_that_crashed_was_not_seeded_or_only_tests(tmp_path: Path) -> None:
    (run,) = import_file("tllib", write(tmp_path, tllib(end=False, seed=None), "a.txt"))
    assert (run.complete, run.seed) == (False, None)
    assert "Acc@1" not in {score.name for score in run.reported}
    (other,) = import_file("tllib", write(tmp_path, tllib(data="DomainNet"), "b.txt"))
    assert "held-out target images" in other.selection
    text = TLLIB.format(data="Office31", seed=0, phase="test") + " * Acc@1 84.201\n84.2012\n"
    (only,) = import_file("tllib", write(tmp_path, text, "test-1.txt"))
    assert (only.complete, only.reported[0].value) == (True, pytest.approx(0.84201))
    with pytest.raises(UsageError, match="phase analysis"):
        import_file("tllib", write(tmp_path, TLLIB.format(data="Office31", seed=0, phase="analysis"), "c.txt"))


# --- Avalanche's text ---------------------------------------------------------------------------


def train(experience: int, inside: str = "") -> str:
    return (
        "-- >> Start of training phase << --\n"
        f"-- Starting training on experience {experience} (Task 0) from train stream --\n"
        "  0%|          | 0/10 [00:00<?, ?it/s]\r100%|##########| 10/10 [00:01<00:00, 9.1it/s]\nEpoch 0 ended.\n"
        f"\tLoss_Epoch/train_phase/train_stream/Task000 = 0.1000\n{inside}-- >> End of training phase << --\n"
    )


def scored(*values: float, stream: str = "test", task: str = "/Task000") -> str:
    text = "-- >> Start of eval phase << --\n"
    for place, value in enumerate(values):
        text += f"-- Starting eval on experience {place} (Task 0) from {stream} stream --\n"
        text += f"> Eval on experience {place} (Task 0) from {stream} stream ended.\n"
        text += f"\tTop1_Acc_Exp/eval_phase/{stream}_stream{task}/Exp{place:03d} = {value:.4f}\n"
    text += "-- >> End of eval phase << --\n"
    text += f"\tTop1_Acc_Stream/eval_phase/{stream}_stream{task} = {np.mean(values):.4f}\n"
    return text + f"\tStreamForgetting/eval_phase/{stream}_stream = 0.3700\n"


def test_avalanches_text_tells_time_by_training_and_leaves_other_evaluations_out(tmp_path: Path) -> None:
    text = scored(0.1, 0.1) + train(0, scored(0.5, stream="train") + scored(0.7, 0.1)) + scored(0.98, 0.0, task="")
    text += scored(0.99, stream="train") + train(1) + scored(0.61, 0.9)
    (run,) = import_file("avalanche-text", write(tmp_path, text, "log.txt"))
    assert run.accuracy == [[0.98, None], [0.61, 0.9]]
    assert run.metrics["forgetting"] == pytest.approx(0.37)
    assert run.tables["future"][0] == {"training_exp": None, "eval_exp": 0, "accuracy": 0.1}
    assert run.tables["future"][-1] == {"training_exp": 0, "eval_exp": 1, "accuracy": 0.0}
    assert {score.name: score.metric for score in run.reported} == {"Top1_Acc_Stream": "", "StreamForgetting": ""}
    assert "evaluations of the train stream are left out" in run.notes
    assert "evaluations within training are left out" in run.notes


def test_avalanches_text_of_two_runs_or_of_a_killed_one(tmp_path: Path) -> None:
    whole = train(0) + scored(0.9, 0.1) + train(1) + scored(0.5, 0.8)
    first, second = import_file("avalanche-text", write(tmp_path, whole + train(0) + scored(0.7, 0.2), "log.txt"))
    assert (first.accuracy, first.complete) == ([[0.9, None], [0.5, 0.8]], True)
    assert (second.accuracy, second.complete, second.metrics) == ([[0.7, None]], False, {})
    assert first.import_id != second.import_id
    with pytest.raises(DataMissing, match="is no fraction"):
        import_file("avalanche-text", write(tmp_path, train(0) + scored(98.0), "percent.txt"))
    with pytest.raises(UsageError, match="no line `Top1_Acc_Exp"):
        import_file("avalanche-text", write(tmp_path, train(0), "none.txt"))


FILES = {
    "l2p-pytorch": ("slurm-1.out", start() + l2p_rows(L2P_ROWS)),
    "coda-prompt": ("results-acc/pt.yaml", coda(PT)),
    "libcontinual": ("cifar100..vit--ep5--s7.log", libcontinual(TABLE)),
    "google-l2p": ("stderr", l2p_jax()),
    "tllib": ("train-2025-01-02-03_04_05.txt", tllib()),
    "avalanche-text": ("log.txt", train(0) + scored(0.9, 0.1) + train(1) + scored(0.5, 0.8)),
}
"""A whole file of each format, with its name."""
