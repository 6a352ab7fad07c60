"""The tables of docs/parity.md: how far our numbers are from those recorded from official code.

``pytest --parity FILE`` notes everything that tests compare by `benchmark.testing.recorded` and writes two tables: by
registered method, and by what was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from benchmark import registry
from benchmark.testing import recorded

GOLDEN = Path(__file__).parent / "golden"
KINDS = get_args(recorded.Kind)

OURS: dict[str, tuple[str, ...]] = {
    "clip_zero_shot_recipes": ("clip-zero-shot",),
    "eata/eata_eta": ("eta",),
    "erm_dg": ("erm",),
    "ermpp": ("erm++",),
    "groupdro": ("group-dro",),
    "mixup_dg": ("mixup",),
    "parameter_selection/bias": ("bias",),
    "parameter_selection/linear": ("linear-probe",),
    "parameter_selection/mlp2_head": ("mlp-k",),
    "parameter_selection/partial1": ("partial-k",),
    "prefix_tuning/gpt2_deep_mlp_objective0": ("prefix-tuning-lm",),
    "prefix_tuning/gpt2_direct": ("prefix-tuning-lm",),
    "prefix_tuning/gpt2_mlp": ("prefix-tuning-lm",),
    "prefix_tuning_lowdata": ("prefix-tuning-lm",),
    "prefix_tuning_seq2seq": ("prefix-tuning-lm",),
    "ptuning_fewshot": ("p-tuning",),
    "ptuning_lama": ("p-tuning",),
    "ptuning_v2": ("p-tuning-v2",),
    "sdlora": ("sd-lora",),
    "simplecil": ("nearest-mean",),
    "slca": ("slca", "slow-finetune"),
    "slca_pp": ("slca++",),
    "sprompts": ("s-prompts",),
    "tip_adapter": ("tip-adapter", "tip-adapter-f"),
    "vpt": ("vpt-deep", "vpt-shallow"),
}
"""Registered methods by what was recorded (and the case), where it has another name there."""

SERVICES = {"clip_continual_metrics", "tta_protocol", "uda_metrics", "domainbed_search", "protocol"}
"""What was recorded from code that is no method, beside the scores ``select_*``."""

PARTLY = {
    "fecam": "yes, its `pilot` restated",
    "hide-prompt": "its second stage; the first restated",
    "sd-lora": "its backbone; the loop restated",
    "slow-finetune": "yes, as the first stage of SLCA",
}
"""How much of the official code ran, where it was not all."""

OWN = {
    "cloze-zero-shot": "test_pet_golden.py",
    "cocoop": "test_cocoop_golden.py",
    "coop": "test_coop_golden.py",
    "dapl": "test_dapl_golden.py",
    "ipet": "test_pet_golden.py",
    "pet": "test_pet_golden.py",
}
"""Tests that compare with official numbers in a way of their own."""


def ours(method: str, case: str) -> tuple[str, ...]:
    """The registered methods that a recorded case is about; none if it is about a service.

    Args:
        method: Name in the json.
        case: Name of the files.
    """
    if method in SERVICES or method.startswith("select_"):
        return ()
    return OURS.get(f"{method}/{case}") or OURS.get(method) or (method.replace("_", "-"),)


def code_of(meta: dict[str, Any]) -> str:
    """``owner/repository@commit`` of all that ran for a case."""
    found = set()
    for at in meta["reference"] if isinstance(meta["reference"], list) else [meta["reference"]]:
        names = at["repository"].split(" @ ")[0].split("; ")
        found |= {f"{name}@{commit[:8]}" for name, commit in zip(names, at["commit"].split("; "), strict=False)}
    return ", ".join(sorted(found))


def cases() -> Iterator[tuple[str, str]]:
    """Method and name of every case of ``tests/golden`` that was recorded from official code."""
    for file in sorted(GOLDEN.rglob("*.json")):
        meta = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(meta, dict) and "method" in meta and isinstance(meta.get("reference"), (dict, list)):
            yield meta["method"], file.stem


class Parity:
    """Largest deviations of everything that tests compare with recorded numbers, as Markdown tables."""

    def __init__(self, file: Path) -> None:
        self.file, self.cases = file, list[Any]()
        start = recorded.Recorded.__init__

        def noting(case: Any, folder: Path, *args: Any) -> None:
            start(case, folder, *args)
            if folder.is_relative_to(GOLDEN):  # other cases are made up by tests
                self.cases.append(case)

        recorded.Recorded.__init__ = noting  # type: ignore[method-assign]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Writes the tables, unless a test failed."""
        if exitstatus == 0:
            compared = [case for case in self.cases if case.worst]
            self.file.write_text(f"{by_method(compared)}\n{by_case(compared)}", encoding="utf-8")


def by_method(compared: list[Any]) -> str:
    """The table of all registered methods, in float64."""
    head = ["method", "specification", "official code ran", "cases", *KINDS]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in registry.names("methods"):
        spec = registry.load_method(name).spec
        own = [
            case
            for case in compared
            if str(case.dtype) == "torch.float64" and name in ours(case.meta["method"], case.name)
        ]
        codes = ", ".join(sorted({code for case in own for code in code_of(case.meta).split(", ")}))
        ran = PARTLY.get(name, "yes") + f": {codes}"
        if not own:
            ran = f"yes, compared by `{OWN[name]}`" if name in OWN else "no: restated"
        numbers = worst(own)
        count = str(len({(case.meta["method"], case.name) for case in own})) if own else ""
        paper = spec.paper.replace("arXiv:", "arXiv ")
        lines.append(f"| {' | '.join([name, paper, ran, count, *numbers])} |")
    return "\n".join(lines) + "\n"


def by_case(compared: list[Any]) -> str:
    """The table of what was recorded, in both precisions."""
    rows: dict[tuple[str, str, str], list[Any]] = {}
    for case in compared:
        key = (case.meta["method"], code_of(case.meta), str(case.dtype).removeprefix("torch."))
        rows.setdefault(key, []).append(case)
    head = ["recorded from", "official code", "precision", "cases", *KINDS]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for key, own in sorted(rows.items()):
        lines.append(f"| {' | '.join([*key, str(len({case.name for case in own})), *worst(own)])} |")
    return "\n".join(lines) + "\n"


def worst(own: list[Any]) -> list[str]:
    """The largest deviation of each kind of quantity; empty where none was compared."""
    found: dict[str, float] = {}
    for case in own:
        for kind, (error, _) in case.deviations().items():
            found[kind] = max(found.get(kind, 0.0), error)
    return [f"{found[kind]:.0e}" if kind in found else "" for kind in KINDS]
