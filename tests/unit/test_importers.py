"""Importers: files made here in the published formats, with the quirks that make a naive parser wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import registry
from benchmark.cli import main
from benchmark.errors import EXIT_DATA, EXIT_OK, EXIT_USAGE, DataMissing, PluginError, UsageError
from benchmark.foreign import literal
from benchmark.importing import Told, import_file
from benchmark.records import imported, read_all
from benchmark.records.imported import Imported

from .test_importers_of_prompts import FILES

STAMP = "2025-01-02 03:04:05,678"


def write(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- reading what Python printed ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': [1, -2.5], 'b': None}", {"a": [1, -2.5], "b": None}),
        ("[np.float64(84.29), np.int64(3), True]", [84.29, 3, True]),
        ("array([[1, 2],\n       [3, 4]], dtype=int64)", [[1, 2], [3, 4]]),
        ("np.array([1.])", [1.0]),
        ("device(type='cuda', index=1)", "cuda:1"),
        ("range(0, 6, 2)", [0, 2, 4]),
        ("-inf", -float("inf")),
    ],
)
def test_printed_values_are_read(text: str, value: Any) -> None:
    assert literal(text) == value


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("__import__('os').system('true')", "a call of"),
        ("open('x')", "a call of `open`"),
        ("array(['a', ..., 'b'])", "elided"),
        ("{'a': [1, 2", "no whole Python value"),
        ("1 + 1", "not a plain value"),
        ("[x for x in y]", "not a plain value"),
        ("name", "not a plain value"),
        ("range(10**9)", "not a plain value"),
        ("range(0, 1, 0)", "a call of `range`"),
        ("(" * 300 + ")" * 300, "nested too deeply|no whole"),
        ("np.loads(b'x')", "a call of"),
    ],
)
def test_nothing_else_is_read_and_nothing_is_run(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        literal(text)


# --- LAMDA-PILOT and PyCIL ----------------------------------------------------------------------


def order_lines(order: Sequence[int]) -> str:
    return f"{STAMP} [data_manager.py] => {list(order)}\n"


def pilot_config(seed: int, *, backbone: str = "backbone_type", **options: Any) -> str:
    values = {
        "prefix": " ",
        "dataset": "cifar224",
        "init_cls": 2,
        "increment": 2,
        "model_name": "l2p",
        "device": "['0']",
    }
    values |= {backbone: "vit_base_patch16_224_l2p", "seed": seed, "memory_size": 0, **options}
    return "".join(f"{STAMP} [trainer.py] => {name}: {value}\n" for name, value in values.items())


def pilot_rows(rows: Sequence[dict[str, Any]], part: str = "CNN", *, numpy2: bool = False) -> str:
    text, curve = "", []
    for row in rows:
        curve.append(row["total"])
        shown = {key: np.float64(value) for key, value in row.items()} if numpy2 else row
        text += f"{STAMP} [trainer.py] => {part}: {shown}\n"
        text += f"{STAMP} [trainer.py] => {part} top1 curve: {curve}\n"
        text += f"{STAMP} [trainer.py] => {part} top5 curve: {[99.0] * len(curve)}\n\n"
        text += f"{STAMP} [trainer.py] => Average Accuracy ({part}): {sum(curve) / len(curve)}\n"
    return text


ROWS = [
    {"total": 90.0, "00-01": 90.0, "old": 0, "new": 90.0},
    {"total": 75.0, "00-01": 80.0, "02-03": 70.0, "old": 80.0, "new": 70.0},
    {"total": 68.0, "00-01": 60.0, "02-03": 70.0, "04-05": 80.0, "old": 65.0, "new": 80.0},
]


def test_pilot_with_two_seeds_in_one_file(tmp_path: Path) -> None:
    noise = f"{STAMP} [foster.py] => CNN top1 curve: 55.2\n{STAMP} [l2p.py] => Task 1, Epoch 3 => Loss: 1.0\n"
    text = pilot_config(1) + order_lines([3, 1, 0, 2, 5, 4]) + noise + pilot_rows(ROWS, numpy2=True)
    text += pilot_config(2, nb_classes=6, nb_tasks=3) + order_lines([0, 1, 2, 3, 4, 5]) + pilot_rows(ROWS[:2])
    first, second = import_file("pilot", write(tmp_path, text, " _1_vit.log"))
    assert (first.method, first.scenario, first.seed, first.complete) == ("l2p", "cifar224", 1, True)
    assert first.class_order == [3, 1, 0, 2, 5, 4]
    assert first.experiences == [2, 2, 2]
    assert first.backbone == "vit_base_patch16_224_l2p"
    assert first.accuracy == [[0.9, None, None], [0.8, 0.7, None], [0.6, 0.7, 0.8]]
    assert first.metrics["final_avg_acc"] == pytest.approx(0.7)
    assert first.metrics["forgetting"] == pytest.approx((0.3 + 0.0) / 2)
    assert first.metrics["final_acc"] is None  # sizes of test sets are not in the file
    assert first.number("final_acc") == (0.68, True)
    assert first.number("avg_incremental_acc") == (pytest.approx((0.9 + 0.75 + 0.68) / 3), True)
    assert first.counts is None
    assert first.notes == []
    assert (second.seed, second.complete, second.metrics) == (2, False, {})
    assert second.config == first.config, "what only later seeds print sets no rows apart"
    assert first.source.last_line < second.source.first_line
    assert first.import_id != second.import_id


def test_pilot_drops_a_last_group_of_one_class_and_prints_two_classifiers(tmp_path: Path) -> None:
    rows = [
        {"total": 90.0, "00-01": 90.0, "old": 0, "new": 90.0},
        {"total": 75.0, "00-01": 80.0, "old": 80.0, "new": 65.0},
    ]
    config = pilot_config(0, init_cls=2, increment=1, model_name="icarl") + order_lines([0, 1, 2])
    text = config + pilot_rows(rows) + pilot_rows(ROWS[:2], "NME") + f"{STAMP} [trainer.py] => Forgetting (CNN): 10.0\n"
    cnn, nme = import_file("pilot", write(tmp_path, text, "x.log"))
    assert cnn.accuracy == [[0.9, None], [0.8, None]]
    assert cnn.metrics["final_avg_acc"] is None
    assert {score.name: score.value for score in cnn.reported}["Forgetting"] == pytest.approx(0.1)
    assert (nme.part, nme.method) == ("NME", "icarl")
    assert nme.accuracy == [[0.9, None], [0.8, 0.7]]
    assert "Forgetting" not in {score.name for score in nme.reported}


def ten(total: float, starts: Sequence[int], value: float = 50.0) -> dict[str, Any]:
    return {"total": total, **{f"{start:02d}-{start + 9:02d}": value for start in starts}, "old": 0, "new": value}


def test_pycils_groups_are_experiences_only_where_each_has_ten_classes(tmp_path: Path) -> None:
    config = pilot_config(1993, backbone="convnet_type", init_cls=10, increment=10) + order_lines(range(20))
    text = (
        config + pilot_rows([ten(80.0, [0]), ten(60.0, [10, 0])]) + f"{STAMP} [trainer.py] => Forgetting (CNN): 5.0\n"
    )
    (whole,) = import_file("pycil", write(tmp_path, text, "a.log"))
    assert whole.accuracy == [[0.5, None], [0.5, 0.5]]
    assert whole.seed_scope.startswith("class order")
    assert whole.notes == []
    config = pilot_config(1993, backbone="convnet_type", init_cls=20, increment=20) + order_lines(range(40))
    rows = [ten(80.0, [0, 10]), ten(60.0, [0, 10, 20, 30])]
    text = config + pilot_rows(rows) + f"{STAMP} [trainer.py] => Forgetting (CNN): 5.0\n"
    (other,) = import_file("pycil", write(tmp_path, text, "b.log"))
    assert other.accuracy is None
    assert len(other.tables["groups10"][1]) == 4
    assert other.number("final_acc") == (0.6, True)
    assert any("forgetting is wrong" in note for note in other.notes)


def test_logs_of_one_suite_are_not_taken_for_the_other(tmp_path: Path) -> None:
    path = write(tmp_path, pilot_config(1, backbone="convnet_type") + pilot_rows(ROWS), "a.log")
    with pytest.raises(UsageError, match="as PyCIL's") as caught:
        import_file("pilot", path)
    assert "bench import pycil" in str(caught.value.hint)
    with pytest.raises(UsageError, match="as LAMDA-PILOT's"):
        import_file("pycil", write(tmp_path, pilot_config(1), "b.log"))


def test_a_row_of_other_groups_gives_no_matrix(tmp_path: Path) -> None:
    rows = [ROWS[0], {"total": 75.0, "00-01": 80.0, "05-06": 70.0}]
    path = write(tmp_path, pilot_config(1) + order_lines(range(6)) + pilot_rows(rows), "a.log")
    (run,) = import_file("pilot", path)
    assert run.accuracy is None
    assert "row 1 has other groups" in run.notes[0]


# --- mammoth ------------------------------------------------------------------------------------

MEMORY = "'gpu_memory_usage': [1.5], "


def mammoth(rows: Sequence[Sequence[float]], *, cells: bool = True, seed: object = 3, **more: object) -> str:
    values: dict[str, Any] = {"dataset": "seq-toy", "model": "er", "seed": seed, "backbone": "resnet18", **more}
    parts = [f"{name!r}: {value!r}" for name, value in values.items()]
    parts.insert(3, "'device': device(type='cpu')")
    for time, row in enumerate(rows, 1):
        parts.append(f"'accmean_task{time}': {sum(row) / len(row)!r}")
        parts += [f"'accuracy_{test}_task{time}': {value!r}" for test, value in enumerate(row, 1)] if cells else []
    parts += ["'forward_transfer': None", "'backward_transfer': None", "'forgetting': 12.5"]
    return "{" + ", ".join(parts) + "}\n"


def place(folder: Path, setting: str, text: str) -> Path:
    return write(folder / setting / "seq-toy" / "er", text, "logs.pyd")


def test_mammoth_reads_wrapped_arrays_and_several_runs(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(40)
    text = mammoth([[91.0], [55.0, 86.0]], permute_classes=1, class_order=order) + mammoth(
        [[90.0], [50.0, 80.0]], seed=None
    )
    assert len(text.splitlines()) > 3, "numpy wraps its arrays"
    first, second = import_file("mammoth", place(tmp_path, "class-il", text))
    assert first.accuracy == [[0.91, None], [0.55, 0.86]]
    assert first.metrics["final_avg_acc"] == pytest.approx(0.705)
    assert first.class_order is not None
    assert [order[old] for old in first.class_order] == list(range(40)), "class_order maps old labels to new ones"
    assert (first.seed, second.seed) == (3, None)
    assert (first.family, first.backbone, first.facts["device"]) == ("class-il", "resnet18", "cpu")
    assert second.class_order is None
    assert {score.name: score.value for score in first.reported}["forgetting"] == 0.125


def test_mammoths_task_il_file_is_another_protocol(tmp_path: Path) -> None:
    (run,) = import_file("mammoth", place(tmp_path, "task-il", mammoth([[91.0], [90.0, 86.0]])))
    assert run.family == "task-il"
    (bare,) = import_file("mammoth", write(tmp_path, mammoth([[91.0]]), "logs.pyd"))
    assert bare.family is None
    assert any("the name of its folder" in note for note in bare.notes)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (mammoth([[91.0], [55.0, 86.0], [50.0, 80.0]]), "one accuracy for each task seen"),
        (mammoth([[91.0], [55.0, 86.0]], eval_epochs=5), "eval_epochs adds rows"),
        (mammoth([[91.0], [55.0, 86.0]], cells=False), "means only"),
        (mammoth([[0.0], [0.0, 0.0]]), "all accuracies are 0"),
    ],
)
def test_mammoths_rows_that_are_no_tasks_give_no_matrix(text: str, note: str, tmp_path: Path) -> None:
    (run,) = import_file("mammoth", place(tmp_path, "class-il", text))
    assert run.accuracy is None
    assert run.metrics == {}
    assert any(note in one for one in run.notes)


def test_mammoths_means_stand_for_ours_where_they_are_of_tasks(tmp_path: Path) -> None:
    (run,) = import_file("mammoth", place(tmp_path, "domain-il", mammoth([[91.0], [55.0, 86.0]], cells=False)))
    assert run.number("final_avg_acc") == (pytest.approx(0.705), True)
    (odd,) = import_file("mammoth", place(tmp_path / "odd", "class-il", mammoth([[91.0], [90.0, 80.0]], eval_epochs=1)))
    assert odd.number("final_avg_acc") == (None, False)
    (part,) = import_file("mammoth", place(tmp_path / "part", "class-il", mammoth([[91.0]], start_from=2)))
    assert part.complete is False


def test_mammoth_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="biased-class-il hold dictionaries"):
        import_file("mammoth", place(tmp_path, "biased-class-il", mammoth([[91.0]])))
    evil = "{'dataset': __import__('os').system('touch hacked'), 'accmean_task1': 3.0}\n"
    with pytest.raises(DataMissing, match=r"line 1: .* cannot be read: a call of"):
        import_file("mammoth", place(tmp_path, "class-il", evil))
    whole = mammoth([[91.0], [55.0, 86.0]])
    mixed = whole[:40] + whole  # two processes wrote at once
    with pytest.raises(DataMissing, match="line 1"):
        import_file("mammoth", place(tmp_path, "class-il", mixed))


# --- DomainBed ----------------------------------------------------------------------------------


def checkpoint(step: int, test: Sequence[int] = (0,), *, low: float = 0.0, **args: Any) -> str:
    given = {"algorithm": "ERM", "dataset": "PACS", "test_envs": list(test), "seed": 123, "trial_seed": 1}
    given |= {"hparams_seed": 0, "steps": None, "task": "domain_generalization", "output_dir": "x", **args}
    accuracies = {f"env{env}_in_acc": 0.9 - 0.1 * env - low for env in range(3)}
    accuracies |= {f"env{env}_out_acc": 0.8 - 0.1 * env - low for env in range(3)}
    hparams = {"lr": 5e-05, "resnet18": False, "resnet50_augmix": True, "vit": False, "dinov2": False}
    return json.dumps({"args": given, "hparams": hparams, "step": step, "loss": float("nan"), **accuracies}) + "\n"


def test_domainbed_selects_by_its_own_rules(tmp_path: Path) -> None:
    text = checkpoint(0, low=0.3) + checkpoint(300) + checkpoint(600, low=0.1)
    (run,) = import_file("domainbed", write(tmp_path, text, "results.jsonl"))
    scores = {score.name: score.value for score in run.reported}
    assert scores["env0_in_acc (training-domain validation)"] == pytest.approx(0.9)
    assert scores["env0_in_acc (oracle)"] == pytest.approx(0.8)
    assert run.accuracy is None
    assert run.seeds == {"seed": 123, "trial_seed": 1, "hparams_seed": 0}
    assert (run.method, run.scenario, run.backbone) == ("ERM", "PACS", "ResNet-50 (AugMix)")
    assert run.complete is None
    (tmp_path / "done").write_text("done")
    (run,) = import_file("domainbed", tmp_path / "results.jsonl")
    assert run.complete is True


def test_domainbed_splits_reruns_and_takes_a_half_last_line(tmp_path: Path) -> None:
    text = checkpoint(0, steps=301) + checkpoint(300, steps=301) + checkpoint(0, (0, 1)) + checkpoint(300, (0, 1))[:50]
    first, second = import_file("domainbed", write(tmp_path, text, "results.jsonl"))
    assert (first.complete, second.complete) == (True, False)
    assert (second.source.first_line, second.source.last_line) == (3, 3)
    assert second.reported == []
    assert any("2 test environments" in note for note in second.notes)


def test_domainbed_names_no_backbone_of_older_code(tmp_path: Path) -> None:
    text = checkpoint(0).replace(', "vit": false, "dinov2": false', "")
    (run,) = import_file("domainbed", write(tmp_path, text, "results.jsonl"))
    assert run.backbone is None


# --- Dassl --------------------------------------------------------------------------------------

DASSL = """***************
** Arguments **
***************
backbone: 
eval_only: {eval_only}
root: /some/where
seed: {seed}
************
** Config **
************
DATASET:
  NAME: OfficeHome
  NUM_SHOTS: 16
  ROOT: /some/where
  SOURCE_DOMAINS: ['art', 'clipart']
  TARGET_DOMAINS: ('product',)
MODEL:
  BACKBONE:
    NAME: ViT-B/16
    PRETRAINED: True
SEED: {config_seed}
TRAINER:
  NAME: CoOp
Collecting env info ...
** System info **
PyTorch version: 2.1
"""


def dassl(*blocks: str, eval_only: bool = False, seed: int = 1, config_seed: int = 1) -> str:
    return DASSL.format(eval_only=eval_only, seed=seed, config_seed=config_seed) + "".join(blocks)


def result(total: str = "1,200", correct: str = "960", accuracy: str = "80.00", on: str = "test") -> str:
    return (
        f"Evaluate on the *{on}* set\n=> result\n* total: {total}\n* correct: {correct}\n* accuracy: {accuracy}%\n"
        "* error: 20.00%\n* macro_f1: 79.12%\n=> per-class result\n* class: 0 (a)\ttotal: 4\tcorrect: 3\tacc: 75.00%\n"
        "* average: 78.90%\n"
    )


@pytest.mark.parametrize("end", ["Finished training\n", "Finish training\nDeploy the last-epoch model\n"])
def test_dassl_takes_the_last_test_after_training(end: str, tmp_path: Path) -> None:
    text = dassl(
        result(correct="1,000", accuracy="83.33"), end, result(correct="959", accuracy="79.92"), "Elapsed: 1\n"
    )
    (run,) = import_file("dassl", write(tmp_path, text, "log.txt"))
    scores = {score.name: score for score in run.reported}
    assert scores["accuracy"].value == 959 / 1200
    assert scores["accuracy"].n == 1200
    assert scores["class_mean"].value == pytest.approx(0.789)
    assert (run.method, run.backbone, run.seed) == ("CoOp", "ViT-B/16", 1)
    assert run.scenario == "OfficeHome art+clipart -> product"
    assert run.config["DATASET.NUM_SHOTS"] == "16"
    assert run.complete is True
    assert len(run.tables["tests"]) == 2


def test_dassl_that_crashed_has_no_result_and_eval_only_has(tmp_path: Path) -> None:
    (crashed,) = import_file("dassl", write(tmp_path, dassl(result()), "a.txt"))
    assert (crashed.complete, crashed.reported) == (False, [])
    (tested,) = import_file("dassl", write(tmp_path, dassl(result(), eval_only=True), "b.txt"))
    assert tested.reported[0].value == 0.8
    (unseeded,) = import_file(
        "dassl", write(tmp_path, dassl("Finished training\n", result(), seed=0, config_seed=-1), "c.txt")
    )
    assert unseeded.seed is None
    assert any("unseeded" in note for note in unseeded.notes)


def test_dassl_whose_counts_contradict_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"960 of 1200 right are not 70\.0 %"):
        import_file("dassl", write(tmp_path, dassl("Finished training\n", result(accuracy="70.00")), "log.txt"))
    cut = dassl("Finished training\n", result().split("* correct")[0])
    with pytest.raises(DataMissing, match="the result has no correct"):
        import_file("dassl", write(tmp_path, cut, "log.txt"))


# --- Avalanche ----------------------------------------------------------------------------------

HEAD = "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting\n"


def test_avalanche_keeps_zero_shot_scores_out_and_knows_two_zeros(tmp_path: Path) -> None:
    text = (
        HEAD + "0,None,0.1000,2.0,0\n0,0,0.9800,0.0700,0\n1,0,0.0000,6.1000,0\n0,1,0.6100,1.9000,0.3700\n1,1,0,0.1,0\n"
    )
    path = write(tmp_path, text, "eval_results.csv")
    (run,) = import_file("avalanche-csv", path)
    assert run.accuracy == [[0.98, None], [0.61, None]]
    assert run.metrics["final_avg_acc"] is None
    (run,) = import_file("avalanche-csv", write(tmp_path, text.replace("1,1,0,", "1,1,0.0000,"), "eval_results.csv"))
    assert run.accuracy == [[0.98, None], [0.61, 0.0]]
    assert run.metrics["final_avg_acc"] == pytest.approx(0.305)
    assert run.metrics["forgetting"] == pytest.approx(0.37)
    assert {score.name: score.value for score in run.reported} == {"forgetting": 0.37}
    assert run.tables["future"][1] == {"training_exp": 0, "eval_exp": 1, "accuracy": 0.0}
    assert (run.method, run.seed, run.scenario, run.class_order) == (None, None, None, None)


def test_avalanche_with_two_streams_or_a_broken_row(tmp_path: Path) -> None:
    (run,) = import_file("avalanche-csv", write(tmp_path, HEAD + "0,0,0.9,0.1,0\n0,0,0.8,0.1,0\n", "a.csv"))
    assert run.accuracy is None
    with pytest.raises(DataMissing, match="line 3: 3 fields"):
        import_file("avalanche-csv", write(tmp_path, HEAD + "0,0,0.9,0.1,0\n1,0,\n0.2,0.1,0\n", "b.csv"))
    with pytest.raises(UsageError, match="the log of training"):
        import_file("avalanche-csv", write(tmp_path, "training_exp,epoch,training_accuracy,val_accuracy\n", "c.csv"))


def test_the_caller_tells_what_a_file_does_not_and_never_overrules_it(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "0,0,0.9800,0.1,0\n", "eval_results.csv")
    (run,) = import_file("avalanche-csv", path, Told(method="naive", seed=4, family="class-il", scenario="SplitMNIST"))
    assert (run.method, run.seed, run.family, run.scenario) == ("naive", 4, "class-il", "SplitMNIST")
    assert run.told == {"method": "naive", "seed": "4", "family": "class-il", "scenario": "SplitMNIST"}
    log = write(tmp_path, pilot_config(1), "a.log")
    with pytest.raises(UsageError, match=r"--seed 2: .* says 1"):
        import_file("pilot", log, Told(seed=2))
    with pytest.raises(UsageError, match="unknown family `class`"):
        import_file("pilot", log, Told(family="class"))


# --- lm-evaluation-harness ----------------------------------------------------------------------


def harness(**config: Any) -> str:
    results: dict[str, Any] = {
        "toy": {"alias": "  - toy", "acc,none": 0.53, "acc_stderr,none": 0.0146, "acc_norm,none": 0.5},
        "text": {"alias": "text", "word_perplexity,none": 12.5, "word_perplexity_stderr,none": "N/A"},
        "both": {"acc,none": 0.6, "alias": "both"},
    }
    return json.dumps(
        {
            "results": results,
            "groups": {"both": {"acc,none": 0.6}},
            "group_subtasks": {"both": ["toy"], "toy": []},
            "n-samples": {"toy": {"original": 1172, "effective": 1172}, "text": {"original": 10, "effective": 5}},
            "config": {
                "model": "hf",
                "model_args": "pretrained=a/b,dtype=float",
                "limit": None,
                "random_seed": 0,
                **config,
            },
            "model_name": "a/b",
            "date": 1.5e9,
        },
        indent=1,
    )


def test_lm_eval_takes_leaf_tasks_and_calls_only_accuracies_fractions(tmp_path: Path) -> None:
    (run,) = import_file("lm-eval", write(tmp_path, harness(), "results_2025.json"))
    scores = {score.name: score for score in run.reported}
    assert set(scores) == {"toy acc,none", "toy acc_norm,none", "text word_perplexity,none"}
    assert scores["toy acc,none"].error == 0.0146
    assert scores["toy acc,none"].n == 1172
    assert scores["text word_perplexity,none"].unit is None
    assert scores["text word_perplexity,none"].error is None
    assert (run.backbone, run.seed, run.seeds) == ("a/b", None, {"random_seed": 0})
    assert "evaluated on a part of the samples: text" in run.notes


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("importers"))
@pytest.mark.parametrize("text", ["", "nothing\n", "{}", "{'a': 1}", "[1, 2]", "\x00\x01"])
def test_what_is_no_result_is_one_clear_message(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no result of"):
        import_file(name, write(tmp_path, text, "file"))


@pytest.mark.parametrize("name", registry.names("importers"))
def test_what_is_no_text_or_no_file_is_one_clear_message(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95\xff")
    with pytest.raises(UsageError, match="it is no text"):
        import_file(name, tmp_path / "model.pkl")
    with pytest.raises(DataMissing, match="no file at"):
        import_file(name, tmp_path)


def everything(folder: Path) -> dict[str, Path]:
    """A whole file of each format."""
    texts = {
        "pilot": pilot_config(1) + order_lines(range(6)) + pilot_rows(ROWS),
        "pycil": pilot_config(1, backbone="convnet_type") + order_lines(range(6)) + pilot_rows(ROWS),
        "domainbed": checkpoint(0) + checkpoint(300),
        "dassl": dassl("Finished training\n", result()),
        "avalanche-csv": HEAD + "0,0,0.9800,0.1,0\n0,1,0.5,0.1,0.48\n1,1,0.75,0.1,0\n1,0,0.1,2.0,0\n",
        "lm-eval": harness(),
    }
    found = {name: write(folder / name, text, "file") for name, text in texts.items()}
    found |= {name: write(folder / name, text, file) for name, (file, text) in FILES.items()}
    return {**found, "mammoth": place(folder / "mammoth", "class-il", mammoth([[91.0], [55.0, 86.0]]))}


def test_a_whole_file_of_every_importer_is_tried_here(tmp_path: Path) -> None:
    assert set(everything(tmp_path)) == set(registry.names("importers"))


@pytest.mark.parametrize("name", registry.names("importers"))
def test_cut_anywhere_a_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Never a traceback, and what is left of a run is not called whole."""
    whole = everything(tmp_path / "whole")[name]
    text = whole.read_text(encoding="utf-8")
    outcomes = set()
    for end in range(0, len(text), max(1, len(text) // 25)):
        path = write(tmp_path / "cut", text[:end], str(whole.relative_to(tmp_path / "whole")))
        try:
            import_file(name, path)
        except (UsageError, DataMissing) as error:
            outcomes.add(bool(error.hint))
    assert outcomes == {True}


@pytest.mark.usefixtures("registry_as_it_was")
def test_a_broken_importer_is_named(tmp_path: Path) -> None:
    plugin = write(
        tmp_path,
        "from benchmark import ImporterSpec, hookimpl\nfrom benchmark.foreign import ForeignRun\n"
        "def fail(file):\n    raise KeyError('x')\n"
        "def none(file):\n    return []\n"
        "def odd(file):\n    return [ForeignRun(first_line=1, last_line=2, accuracy=[[3.0]])]\n"
        "@hookimpl\ndef bench_register_importers():\n"
        "    return [ImporterSpec(name=f.__name__, read=f, summary='x', suite='Theirs') for f in (fail, none, odd)]\n",
        "plugin.py",
    )
    registry.add_file(plugin)
    for name, words in (
        ("fail", "`read` failed: KeyError"),
        ("none", "is empty"),
        ("odd", r"accuracy\[0\]\[0\]|accuracy"),
    ):
        with pytest.raises(PluginError, match=words):
            import_file(name, plugin)


def test_command_writes_below_the_results_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = everything(tmp_path / "theirs")
    out = tmp_path / "runs"
    for name, path in files.items():
        assert main(["import", name, str(path), "--out", str(out)]) == EXIT_OK
    assert "(ours, from its matrix)" in capsys.readouterr().out
    runs, problems = imported.read_all(out)
    assert (len(runs), problems) == (len(files) + 1, []), "the file of CODA-Prompt has two repeats"
    assert read_all(out) == ([], []), "no record of ours"
    for run in runs:
        assert isinstance(run, Imported)
        assert (out / run.path).is_file()
        assert str(tmp_path) not in (out / run.path).read_text(encoding="utf-8"), "a path of this machine"
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    assert main(["import", "pilot", str(files["pilot"]), "--out", str(out), "--json"]) == EXIT_OK
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["metrics"]["final_avg_acc"] == pytest.approx(0.7)
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before


def test_command_refuses_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path, pilot_config(1) + order_lines(range(6)) + pilot_rows(ROWS), "a.log")
    bad = write(tmp_path, "nothing", "b.log")
    out = tmp_path / "runs"
    assert main(["import", "pilot", str(good), str(bad), "--out", str(out)]) == EXIT_USAGE
    assert main(["import", "pilot", str(good), str(tmp_path / "c.log"), "--out", str(out)]) == EXIT_DATA
    assert main(["import", "pilott", str(good), "--out", str(out)]) == EXIT_USAGE
    assert "did you mean `pilot`" in capsys.readouterr().err
    assert main(["import", "pilot", str(good), "--track", "nano"]) == EXIT_USAGE
    assert main(["import", "pilot", str(good), "--dry-run", "--out", str(out)]) == EXIT_OK
    assert not out.exists()
    damaged = write(out / "imported" / "pilot", "{", "x.json")
    runs, problems = imported.read_all(out)
    assert runs == []
    assert str(damaged) in problems[0].message
