"""The ledger of published figures: protocols, tolerance, status from records, costs, and the command."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmark import records, registry
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE
from benchmark.jobs import Outcome
from benchmark.leaderboard import ledger
from benchmark.run import jobs, reproduction

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))
TEMPLATE["config"]["track"] = {
    group: dict(values) for group, values in TEMPLATE["config"]["effective"].items() if group != "derived"
}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def every() -> list[ledger.Target]:
    return ledger.targets(registry.names("methods"))


def run(target: ledger.Target, value: float, *, seed: int = 0, scenario: str = "", **changes: Any) -> records.Record:
    """A record as a run of a target would give it; ``changes`` are ``part__key=value`` or ``key=value``."""
    record = copy.deepcopy(TEMPLATE)
    record["track"] = ledger.TRACK
    record["method"] |= {"name": target.method, "recipe": target.recipe or "default", "default_recipe": "default"}
    record["scenario"]["name"] = scenario or target.scenarios[0]
    record["backbone"]["name"] = target.backbone
    record["seeds"] = dict.fromkeys(record["seeds"], seed)
    record["metrics"][target.metric] = value / 100
    for name, changed in changes.items():
        part, _, key = name.partition("__")
        if key:
            record[part][key] = changed
        else:
            record[part] = changed
    identity = json.dumps(record, sort_keys=True)
    record["run_id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return records.parse(record)


def one(every: list[ledger.Target], **wanted: Any) -> ledger.Target:
    return next(
        target for target in every if not target.reason and all(getattr(target, k) == v for k, v in wanted.items())
    )


def test_every_figure_is_mapped_once(every: list[ledger.Target]) -> None:
    assert len(every) > 2000
    doubles = len(every) - len({target.id for target in every})
    assert doubles <= 4, "figures that the sources print twice"
    possible = [target for target in every if not target.reason]
    assert len(possible) > 700
    for target in possible:
        assert target.method
        assert target.scenarios
        assert target.backbone
        assert target.metric
        assert target.train > 0
        assert target.gflops > 0
    assert all(target.reason.isprintable() for target in every)
    assert {target.key for target in every} <= set(registry.names("methods"))


def test_every_pattern_is_of_some_figure(every: list[ledger.Target]) -> None:
    """Nothing in the file of protocols is dead, but for the last pattern of a kind."""
    with ledger.PROTOCOLS.open(encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    for kind in ("scenario", "backbone", "metric", "row"):
        own = [entry for entry in entries if entry["kind"] == kind]
        assert own[-1]["published"] == "*"
        assert not own[-1]["ours"]
    for entry in entries:
        assert bool(entry["ours"]) != bool(entry["note"]), entry
        assert entry["kind"] != "scenario" or not entry["ours"] or int(entry["train"]) > 0, entry


def test_headline_of_l2p(every: list[ledger.Target]) -> None:
    target = one(every, key="l2p")
    assert (target.label, target.scenarios, target.metric) == (
        "l2p@paper-v1-jax",
        ("split-cifar100/10x10",),
        "final_avg_acc",
    )
    assert (target.value, target.std, target.tolerance) == (83.83, 0.04, 0.5)


def test_tolerance_is_the_published_spread_or_a_default(every: list[ledger.Target]) -> None:
    target = every[0]
    assert replace(target, std=None).tolerance == 1.0
    assert replace(target, std=0.1).tolerance == 0.5
    assert replace(target, std=0.85).tolerance == 1.7


def test_status_comes_from_records(every: list[ledger.Target]) -> None:
    target = one(every, key="l2p")
    look = ledger.look
    assert look(target, {}).state == "not tried"
    near = ledger.index([run(target, 83.5, seed=0), run(target, 84.5, seed=1)])
    found = look(target, near)
    assert (found.state, found.n, round(found.mean or 0, 2)) == ("reproduced", 2, 84.0)
    assert look(target, ledger.index([run(target, 82.0)])).state == "off"
    assert look(ledger.refused(target, "why"), near).state == "impossible"


@pytest.mark.parametrize(
    "changes",
    [
        {"track": "mini"},
        {"backbone__name": "mini-vit"},
        {"method__recipe": "honest"},
        {"evaluated_on": "validation"},
        {"status": "interrupted"},
        {"scenario__name": "split-cifar100/5x20"},
    ],
)
def test_runs_of_anything_else_do_not_count(changes: dict[str, Any], every: list[ledger.Target]) -> None:
    target = one(every, key="l2p")
    assert ledger.look(target, ledger.index([run(target, 83.8, **changes)])).state == "not tried"


def test_runs_with_a_changed_option_do_not_count(every: list[ledger.Target]) -> None:
    target = one(every, key="l2p")
    changed = copy.deepcopy(TEMPLATE["config"])
    changed["effective"]["method"]["lr"] = 123.0
    assert ledger.look(target, ledger.index([run(target, 83.8, config=changed)])).state == "not tried"


def test_a_mean_over_scenarios_needs_all_of_them(every: list[ledger.Target]) -> None:
    target = next(target for target in every if not target.reason and len(target.scenarios) > 2)
    runs = [run(target, target.value, scenario=name) for name in target.scenarios]
    assert ledger.look(target, ledger.index(runs)).state == "reproduced"
    part = ledger.look(target, ledger.index(runs[:-1]))
    assert (part.state, part.done) == ("in part", len(runs) - 1)
    assert "in part: " in ledger.table([(target, part)], {}, title="x").rows[0].cells[9].text


def test_one_test_set_of_several_is_read_from_the_matrix(every: list[ledger.Target]) -> None:
    target = next(target for target in every if not target.reason and target.metric.startswith("test "))
    name = target.metric.removeprefix("test ")
    tests = copy.deepcopy(TEMPLATE["scenario"]["tests"])
    tests[-1]["name"] = name
    record = run(replace(target, metric="final_acc"), 1.0, scenario__tests=tests)
    found = ledger.look(target, ledger.index([record]))
    last = record.accuracy[-1][-1]
    assert found.mean == pytest.approx(100 * cast("float", last))


def test_table_has_reported_ours_and_difference(every: list[ledger.Target]) -> None:
    target = one(every, key="l2p")
    found = ledger.look(target, ledger.index([run(target, 82.0)]))
    hidden = [target for target in every if target.reason][:40]
    table = ledger.table([(target, found)], {target.id: "~3 h"}, title="x", counted=hidden)
    cells = {column.key: cell.text for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert (cells["reported"], cells["ours"], cells["difference"]) == ("83.83 ± 0.04", "82.00 (n=1)", "-1.83")
    assert (cells["status"], cells["cost"], cells["id"]) == ("off by -1.83", "~3 h", target.id)
    notes = [text for _, text in table.footnotes]
    assert f"source: {target.source}" in notes
    assert sum(int(text.split()[0]) for text in notes if "not shown" in text) == len(hidden)
    assert table.runs[0]["status"] == "off"


def plan(name: str = "mine", epochs: int = 2) -> Any:
    return SimpleNamespace(
        method_spec=SimpleNamespace(name=name),
        recipe="default",
        scenario_name=TEMPLATE["scenario"]["name"],
        track=TEMPLATE["track"],
        backbone=TEMPLATE["backbone"]["name"],
        method_config=SimpleNamespace(epochs=epochs),
    )


def test_costs_are_the_time_of_records_or_a_guess_from_operations() -> None:
    record = records.parse(TEMPLATE)
    about = {"train": 1000, "test": 100, "experiences": 3, "gflops": 10.0}
    own = plan(record.method.name)
    own.recipe = record.method.recipe
    known = reproduction.Prices([record]).of([own], **about)
    assert (known.basis, known.seconds) == ("records", record.timing.total_seconds)
    guess = reproduction.Prices([], rate=2.0).of([plan("other")], **about)
    assert guess.flops == (3 * 2 * 1000 + 100 * 2) * 10e9
    assert guess.seconds == guess.flops / 2e12
    assert guess.text == "~31 s"
    assert reproduction.Prices([]).of([plan()], train=0, test=0, experiences=1, gflops=0).text == "unknown"
    assert reproduction.Cost(seconds=7300, basis="records").text == "2 h (records)"


def test_passes_of_a_method_are_learnt_from_its_records() -> None:
    content = copy.deepcopy(TEMPLATE)
    frozen = copy.deepcopy(TEMPLATE)
    batch = 8
    for part in (content, frozen):
        part["config"]["effective"]["method"]["batch_size"] = batch
    frozen["cost"] |= {"flops_forward": 100, "flops_train_step": None}
    content["method"]["name"] = "double"
    content["cost"] |= {"flops_forward": 200, "flops_train_step": 500 * batch}
    prices = reproduction.Prices([records.parse(frozen), records.parse(content)])
    other = plan("double", epochs=1)
    other.scenario_name = "another"
    cost = prices.of([other], train=1000, test=0, experiences=1, gflops=1.0)
    assert cost.flops == 5 * 1000 * 1e9


def test_a_plan_or_the_reason() -> None:
    job = reproduction.job_of("nearest-mean@merge", "split-cifar100/10x10", "timm:resnet50.tv_in1k", "paper")
    assert not isinstance(reproduction.plan_or_reason(job), str)
    assert "unknown recipe" in cast("str", reproduction.plan_or_reason(replace(job, method="nearest-mean@merg")))
    assert "tokens" in cast("str", reproduction.plan_or_reason(replace(job, method="vpt-deep")))


LIST = ["reproduce", "nearest-mean", "--scenario", "split-cifar100", "--out", "nowhere"]


def test_command_lists_renders_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LIST, "--list"]) == EXIT_OK
    printed = capsys.readouterr()
    assert "nearest-mean@simplecil" in printed.out
    assert "not tried" in printed.out
    assert "figures: " in printed.err
    path = tmp_path / "ledger.csv"
    assert main([*LIST, "--list", "--all", "--format", "csv", "-o", str(path)]) == EXIT_OK
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert {row["status"] for row in rows} == {"not tried", "impossible"}


def test_command_runs_every_scenario_and_seed_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], every: list[ledger.Target]
) -> None:
    target = one(every, method="nearest-mean", scenarios=("split-cifar100/10x10",))
    done: list[Any] = []

    def run_jobs(work: Any) -> Any:
        for job in work:
            done.append(job)
            record = run(target, target.value + 0.2, seed=job.seed)
            path = tmp_path / f"{record.run_id}.json"
            records.write(path, record)
            yield Outcome(job=job, status="done", path=path)

    monkeypatch.setattr(jobs, "run_jobs", run_jobs)
    words = [
        "reproduce",
        target.label,
        "--target",
        target.id,
        "--seed",
        "0,1",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    assert main(words) == EXIT_OK
    assert [(job.scenario, job.method, job.backbone, job.track, job.seed) for job in done] == [
        (target.scenarios[0], target.label, target.backbone, "paper", seed) for seed in (0, 1)
    ]
    shown = capsys.readouterr().out
    assert "reproduced" in shown
    assert "+0.20" in shown
    assert "(n=2)" in shown


def test_command_prints_commands_and_refuses_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "l2p", "--scenario", "split-cifar100", "--dry-run", "--seed", "0-2"]) == EXIT_OK
    assert capsys.readouterr().out == (
        "bench run --scenario split-cifar100/10x10 --method l2p@paper-v1-jax --track paper --backbone "
        "timm:vit_base_patch16_224.orig_in21k --seed 0-2\n"
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["reproduce", "l2p", "--scenario", "split-cifar100"]) == EXIT_USAGE
    assert "there is no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["l3p"], "unknown method with published figures `l3p`"),
        (["l2p", "--scenario", "split-cifar101"], "unknown scenario with published figures"),
        (["l2p", "--target", "00000000"], "no figure 00000000"),
        (["l2p", "--tflops", "0"], "--tflops 0 is no rate"),
        (["shot", "--scenario", "digits"], "no figure of `shot` can be tried: "),
        (["l2p", "--format", "txt"], "unknown format"),
    ],
)
def test_wrong_words_are_one_clear_message(words: list[str], wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == EXIT_USAGE
    assert wrong in capsys.readouterr().err


@pytest.mark.slow
def test_the_rendered_ledger_is_fresh_and_everything_that_is_possible_has_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ledger.md"
    words = ["reproduce", "--list", "--results", str(ROOT / "results" / "records"), "--format", "markdown"]
    assert main([*words, "-o", str(path)]) == EXIT_OK
    told = "bench reproduce --list --results results/records --format markdown -o results/ledger.md"
    assert path.read_bytes() == (ROOT / "results" / "ledger.md").read_bytes(), told
