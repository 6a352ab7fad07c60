"""The command that makes a run again, from its row in a table for machines (CSV, JSON, data frame) and nothing else."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from benchmark.config import as_text
from benchmark.leaderboard import rows
from benchmark.records.schema import Record
from benchmark.scenario_names import DIGITS, ScenarioName

OWN_WEIGHTS = "YOUR-WEIGHTS"
NEEDED = ("scenario", "method", "recipe", "track", "backbone", "seed", "device", "inputs", "settings")


def settings_of(run: Record) -> dict[str, str]:
    """Every option that is not as track and recipe have it, as ``--set`` takes it, by full key.

    The option behind the ``/`` of the scenario's name is left out: the name says it.
    """
    found = {}
    for group in ("scenario", "method", "engine"):
        for name, value in sorted(rows.changed(run, group).items()):
            if group != "scenario" or name != run.scenario.variant_option or ":" in run.scenario.name:
                found[f"{group}.{name}"] = as_text(value)
    return found


def columns_of(run: Record) -> dict[str, Any]:
    """What `command_of` reads beside the names: ``settings`` as words of a shell, ``typed``."""
    words = [f"{key}={value}" for key, value in settings_of(run).items()]
    return {"settings": shlex.join(words), "typed": run.provenance.command}


def command_of(row: Mapping[str, Any]) -> str:
    """The command whose run has the same identity as that of a row.

    With the commit of the row (`git_commit`), its data and its weights, the run that it makes has the row's ``run_id``.
    Data and weights of one's own are named without their place, which no record holds: the last part of the path, and
    ``--weights YOUR-WEIGHTS``; ``scenario_content`` and ``backbone_sha256`` say which they are.

    Args:
        row: One row of ``bench leaderboard --format csv`` as `csv.DictReader` gives it, of
            `benchmark.leaderboard.frame`, or of `benchmark.tables.Table.runs`.

    Returns:
        One line for a shell.

    Raises:
        ValueError: The row lacks one of the columns in `NEEDED`.
    """
    missing = [name for name in NEEDED if name not in row]
    if missing:
        raise ValueError(
            f"a row without the column `{missing[0]}` does not tell its command; use all columns of the CSV"
        )
    words = ["bench", "run", "--scenario", _scenario(str(row["scenario"]))]
    words += ["--method", f"{row['method']}@{row['recipe']}", "--track", str(row["track"])]
    words += _preset(row)
    words += _weights(row)
    seed = int(row["seed"])
    words += ["--seed", str(seed)]
    for part in ("class_order", "init", "data"):
        if (own := int(row.get(f"seed_{part}", seed))) != seed:
            words += [f"--{part.replace('_', '-')}-seed", str(own)]
    words += ["--device", str(row["device"]).partition(":")[0]]
    for setting in shlex.split(str(row["settings"])):
        words += ["--set", setting]
    return shlex.join(words)


def _scenario(name: str) -> str:
    """Without what `benchmark.scenario_names.tagged` puts behind the name of somebody's own data; `settings` has it."""
    return re.sub(rf"-[0-9a-f]{{{DIGITS}}}(/.*)?$", "", name) if ScenarioName.parse(name).tag else name


def _preset(row: Mapping[str, Any]) -> list[str]:
    """The input preset, which the scenario may have another one of by now; nothing where samples are no images."""
    inputs = json.loads(str(row["inputs"]))
    name = inputs["facts"].get("preset") if inputs["kind"] == "image" else None
    return ["--preset", str(name)] if name else []


def _weights(row: Mapping[str, Any]) -> list[str]:
    name = str(row["backbone"])
    if str(row.get("own_weights", "")).lower() != "true":
        return [] if name in ("", "none") else ["--backbone", name]
    typed = shlex.split(str(row.get("typed", "")))  # the name of such weights does not say what they fit
    named = [typed[place + 1] for place, word in enumerate(typed[:-1]) if word == "--backbone"]
    named += [word.partition("=")[2] for word in typed if word.startswith("--backbone=")]
    return [*(["--backbone", named[-1]] if named else []), "--weights", OWN_WEIGHTS]
