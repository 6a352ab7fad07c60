"""``results_*.json`` of EleutherAI's lm-evaluation-harness: scores of one state of a model on several tasks.

Source: EleutherAI/lm-evaluation-harness (``loggers/evaluation_tracker.py`` at 034ab0362118). A key is
``<metric>,<filter>``. Accuracies are fractions; what other metrics are, the file does not fix. Groups are left out:
not all weigh their tasks by size. The seeds are those of the evaluation; how the model was trained is not there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

FRACTIONS = {"acc": "share of right answers", "acc_norm": "share of right answers, scores divided by length"}
SEEDS = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
NOT_SCORES = ("alias", "sample_len", "name", "samples")
FACTS = ("git_hash", "date")  # the hash is of the working folder, not of the suite
MARK = "_stderr"


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads the run of a file."""
    try:
        document = json.loads(file.text)
    except (ValueError, RecursionError) as error:
        if '"results"' in file.text:
            line = getattr(error, "lineno", 1)
            file.damaged(line, f"no whole JSON ({error})")
        file.other("it is no JSON object")
    if not isinstance(document, dict) or not isinstance(document.get("results"), dict) or not document["results"]:
        file.other("it has no `results`")
    config = document.get("config") if isinstance(document.get("config"), dict) else {}
    assert config is not None
    groups = _groups(document)
    notes = []
    if groups:
        notes.append(f"scores of groups are left out: {', '.join(sorted(groups))}")
    tasks = {name: scores for name, scores in document["results"].items() if name not in groups}
    scores = [score for name, values in tasks.items() for score in _scores(file, document, name, values)]
    if not scores:
        file.other("no task in `results` has a score")
    parts = sorted({name for name in tasks if _subset(document, config, name)})
    if parts:
        notes.append(f"evaluated on a part of the samples: {', '.join(parts)}")
    seeds = {name: config[name] for name in SEEDS if type(config.get(name)) is int}
    yield ForeignRun(
        first_line=1,
        last_line=len(file.text.rstrip().splitlines()),
        complete=True,
        method=_text(document.get("model_name")) or _text(config.get("model")),
        scenario=", ".join(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks",
        backbone=_pretrained(config.get("model_args")),
        seeds=seeds,
        facts={name: document[name] for name in FACTS if name in document},
        seed_scope="the seeds are of the evaluation; that of training is unknown" if seeds else "",
        config={
            **{f"config.{name}": value for name, value in config.items()},
            **{name: document[name] for name in ("n-shot", "versions", "lm_eval_version") if name in document},
        },
        reported=scores,
        notes=notes,
    )


def _groups(document: Mapping[str, Any]) -> set[str]:
    subtasks = document.get("group_subtasks")
    named = {name for name, inside in subtasks.items() if inside} if isinstance(subtasks, dict) else set()
    groups = document.get("groups")
    return named | (set(groups) if isinstance(groups, dict) else set())


def _scores(file: SourceFile, document: Mapping[str, Any], task: str, values: Any) -> Iterator[ForeignScore]:
    if not isinstance(values, dict):
        file.damaged(1, f"results.{task} is no object")
    samples = _samples(document, task)
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if metric in NOT_SCORES or metric.endswith(MARK) or isinstance(value, (str, bool)) or value is None:
            continue
        if not isinstance(value, (int, float)):
            file.damaged(1, f"results.{task}.{key}: {value!r:.60} is no number")
        if math.isnan(value):
            continue
        share = metric in FRACTIONS
        if share and not 0 <= value <= 1:
            file.damaged(1, f"results.{task}.{key}: {value!r:.60} is no fraction")
        error = values.get(f"{metric}{MARK}{comma}{filtered}")
        known = isinstance(error, (int, float)) and not isinstance(error, bool) and math.isfinite(error)
        yield ForeignScore(
            name=f"{task} {key}",
            value=float(value),
            definition=f"{FRACTIONS.get(metric, f'{metric}, as the suite defines it')}, {task}",
            unit="fraction" if share else None,
            n=samples.get("effective", samples.get("original")),
            error=float(error) if known and error is not None else None,
        )


def _samples(document: Mapping[str, Any], task: str) -> dict[str, int]:
    found = document.get("n-samples")
    one = found.get(task) if isinstance(found, dict) else None
    return {name: number for name, number in one.items() if type(number) is int} if isinstance(one, dict) else {}


def _subset(document: Mapping[str, Any], config: Mapping[str, Any], task: str) -> bool:
    samples = _samples(document, task)
    return config.get("limit") is not None or samples.get("effective", 0) < samples.get("original", 0)


def _pretrained(arguments: object) -> str | None:
    """``pretrained=`` of the arguments of the model, which are text or an object."""
    if isinstance(arguments, dict):
        return _text(arguments.get("pretrained"))
    parts = arguments.split(",") if isinstance(arguments, str) else []
    return next((part.removeprefix("pretrained=") for part in parts if part.startswith("pretrained=")), None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    files = "results_<time>.json"
    summary = "scores of lm-evaluation-harness, one run per file"
    return [ImporterSpec(name="lm-eval", read=read, suite="lm-evaluation-harness", files=files, summary=summary)]
