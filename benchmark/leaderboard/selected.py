"""How models were selected, in the words of tables."""

from __future__ import annotations

from collections.abc import Iterable

from benchmark.records.schema import Record

ORACLE = "target-oracle"
TARGET_FREE = {
    "entropy": "entropy",
    "snd": "SND",
    "mano": "MaNo",
    "mixval": "MixVal",
    "iwv": "importance-weighted validation",
    "dev": "DEV",
    "circular": "circular validation",
}
_RULES = {
    "last": "last epoch",
    "source-validation": "best epoch on held-out source images",
    ORACLE: "best epoch on the labels of the target's test images (oracle)",
    **{rule: f"best epoch by {name} on unlabelled target images" for rule, name in TARGET_FREE.items()},
}


def selection_text(runs: Iterable[Record]) -> str:
    """How the models of a table were selected, for its caption."""
    rules = sorted({run.selection.rule for run in runs}, key=list(_RULES).index)
    if len(rules) == 1:
        return f"Model selection: {_RULES[rules[0]]}."
    return "Model selection: " + "; ".join(f"{_RULES[rule]} (engine.select={rule})" for rule in rules) + "."
