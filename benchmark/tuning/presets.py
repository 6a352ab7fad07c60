"""The winner of a search as a configuration file that ``bench run --config`` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from benchmark.tuning.axes import words
from benchmark.tuning.trials import Target, Trial


def render(
    target: Target,
    trial: Trial,
    *,
    method: str,
    scenarios: Iterable[str],
    weights: str | None = None,
    notes: Iterable[str] = (),
) -> str:
    """The text of the file.

    Args:
        target: What the search was of; what all trials had in common is in the file, too.
        trial: The winner.
        method: Name of the method without its recipe.
        scenarios: Names of the scenarios without variants, for their tables.
        weights: File of weights of one's own, as it was given; the log knows it by its content alone.
        notes: Further lines that tell how it was found.
    """
    common: dict[str, Any] = json.loads(target.options)
    tables: dict[str, dict[str, Any]] = {
        "run": {
            "scenario": target.scenario,
            "method": target.method,
            "track": target.track,
            **{key: common[key] for key in ("backbone", "preset") if key in common},
            **({"weights": weights} if weights else {}),
        }
    }
    found = {**{key: value for key, value in common.items() if "." in key}, **_full(trial.point)}
    for full, value in found.items():
        group, _, name = full.partition(".")
        owners = [f"method.{_key(method)}"] if group == "method" else ["engine"]
        if group == "scenario":
            owners = [f"scenario.{_key(scenario)}" for scenario in scenarios]
        for owner in owners:
            tables.setdefault(owner, {})[name] = value
    first = "the first experience" if target.experiences == 1 else f"the first {target.experiences} experiences"
    lines = [
        "# Written by `bench tune`.",
        f"# {words(trial.point)}: {target.metric} {trial.value:.4f} on {trial.samples} held-out samples",
        f"# of {first}, seed {target.seeds}.",
        *(f"# {note}" for note in notes),
    ]
    for name, values in tables.items():
        lines += ["", f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _full(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key if "." in key else f"method.{key}": value for key, value in point.items()}


def _key(text: str) -> str:
    return text if re.fullmatch(r"[\w-]+", text, re.ASCII) else json.dumps(text)


def _value(value: Any) -> str:
    """A value in TOML, which has no word for nothing: options read ``none`` as that."""
    if value is None:
        return '"none"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
