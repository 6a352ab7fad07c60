"""``results.jsonl`` of DomainBed: one line per checkpoint of a run, accuracies of both parts of every environment.

Source: facebookresearch/DomainBed at b93c22a1cfc3 (``scripts/train.py``, ``model_selection.py``). ``in`` is the larger
part of an environment, ``out`` the held-out one; of a training environment ``in`` is training data. The test score by
the suite's rules is ``env<test>_in_acc`` of a selected line: that of the best mean ``out`` over training environments,
or the last one (oracle). A repeated run goes on in the same file with step 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_ENV = re.compile(r"env(\d+)_(in|out)_acc")
SEEDS = ("seed", "trial_seed", "hparams_seed")
FACTS = ("seed", "trial_seed", "output_dir", "data_dir")
SWITCHES = ("resnet18", "resnet50_augmix", "vit", "dinov2")
SMALL = ("RotatedMNIST", "ColoredMNIST")  # 28 pixels
INSIDE = "sample mean over the larger part of the test environment, at the checkpoint with {}"
RULES = {
    "training-domain validation": "the best mean accuracy on held-out parts of the training environments",
    "oracle": "the last step (no early stopping; options are chosen on held-out test images)",
}

Line = tuple[int, dict[str, Any]]


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads every run of a file."""
    lines, notes = _lines(file)
    runs: list[list[Line]] = []
    for line in lines:
        if not runs or line[1]["step"] <= runs[-1][-1][1]["step"]:
            runs.append([])
        runs[-1].append(line)
    for place, run in enumerate(runs):
        yield _run(file, run, last=place == len(runs) - 1, notes=notes if place == len(runs) - 1 else [])


def _lines(file: SourceFile) -> tuple[list[Line], list[str]]:
    found: list[Line] = []
    notes: list[str] = []
    texts = [(number, text) for number, text in enumerate(file.lines, 1) if text.strip()]
    for number, text in texts:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            if found and number == texts[-1][0]:
                notes.append("the last line is cut off: the run was killed")
                break
            if found:
                file.damaged(number, f"no whole JSON object ({error})")
            file.other(f"line {number} is no JSON object")
        if (
            not isinstance(values, dict)
            or not isinstance(values.get("args"), dict)
            or type(values.get("step")) is not int
        ):
            file.other(f"line {number} has no `args` and `step`")
        found.append((number, values))
    if not found:
        file.other("it is empty")
    return found, notes


def _run(file: SourceFile, lines: Sequence[Line], *, last: bool, notes: list[str]) -> ForeignRun:
    number, first = lines[0]
    args, hparams = first["args"], first.get("hparams")
    hparams = hparams if isinstance(hparams, dict) else {}
    test = args.get("test_envs")
    if not isinstance(test, list) or not all(type(place) is int for place in test):
        file.damaged(number, "args.test_envs is no list of environments")
    table = [_accuracies(file, *line) for line in lines]
    notes = [*notes, "environments are numbered in the order of the suite's class of the data set"]
    if any(re.match(r"env\d+_uda_acc", name) for _, line in lines for name in line):
        notes.append("`env<i>_uda_acc` counts adaptation splits, not environments; left out")
    scores: list[ForeignScore] = []
    if len(test) == 1:
        scores = list(_selected(table, test[0]))
    else:
        notes.append(f"{len(test)} test environments: for leave-one-out selection over runs, no result of its own")
    steps = args.get("steps")
    complete = None
    if last and (file.path.parent / "done").is_file():
        complete = True
    elif type(steps) is int:
        complete = lines[-1][1]["step"] >= steps - 1
    elif "the last line is cut off: the run was killed" in notes:
        complete = False
    return ForeignRun(
        first_line=number,
        last_line=lines[-1][0],
        complete=complete,
        method=args.get("algorithm"),
        scenario=args.get("dataset"),
        family="dg" if args.get("task") == "domain_generalization" else None,
        backbone=_backbone(args.get("dataset"), hparams),
        seed=args["trial_seed"] if type(args.get("trial_seed")) is int else None,
        seeds={name: args[name] for name in SEEDS if type(args.get(name)) is int},
        seed_scope="trial_seed: the split and random options; the others are in seeds",
        config={
            **{name: value for name, value in args.items() if name not in FACTS},
            **{f"hparams.{name}": value for name, value in hparams.items()},
        },
        facts={name: args[name] for name in FACTS if name in args},
        reported=scores,
        tables={"environments": table},
        notes=notes,
    )


def _accuracies(file: SourceFile, number: int, line: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"step": line["step"]}
    for name, value in line.items():
        if _ENV.fullmatch(name):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value > 1:
                file.damaged(number, f"{name}: {value!r:.80} is no fraction")
            found[name] = None if math.isnan(value) else float(value)
    if len(found) == 1:
        file.other(f"line {number} has no `env0_in_acc`")
    return found


def _selected(table: Sequence[Mapping[str, Any]], test: int) -> Iterator[ForeignScore]:
    """The test score by the rules of the suite, where the lines have what they need."""
    name = f"env{test}_in_acc"

    def held_out(row: Mapping[str, Any]) -> float | None:
        values = [
            value for key, value in row.items() if (m := _ENV.fullmatch(key)) and m[2] == "out" and int(m[1]) != test
        ]
        return None if not values or None in values else sum(values) / len(values)

    known = [row for row in table if held_out(row) is not None]
    lines = (max(known, key=lambda row: held_out(row) or 0.0) if known else None, table[-1])
    for (rule, how), row in zip(RULES.items(), lines, strict=True):
        if row is not None and row.get(name) is not None:
            yield ForeignScore(name=f"{name} ({rule})", value=row[name], definition=INSIDE.format(how))


def _backbone(dataset: object, hparams: Mapping[str, Any]) -> str | None:
    """What the options fix; keys that are missing (older code) fix nothing."""
    if dataset in SMALL:
        return "MNIST_CNN"
    if hparams.get("dinov2") is True:
        return "DINOv2"
    if hparams.get("vit") is True:
        return "ViT"
    if hparams.get("resnet18") is True:
        return "ResNet-18"
    if all(hparams.get(name) is False or (name == "resnet50_augmix" and name in hparams) for name in SWITCHES):
        return "ResNet-50 (AugMix)" if hparams["resnet50_augmix"] else "ResNet-50"
    return None


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    summary = "checkpoints of DomainBed, with the score by each rule of selection"
    return [ImporterSpec(name="domainbed", read=read, suite="DomainBed", files="results.jsonl", summary=summary)]
