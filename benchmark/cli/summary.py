"""What ``bench run`` prints at the end of a run: the headline numbers, the accuracy matrix, some generated texts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.records import Record

from benchmark import families
from benchmark.cli import terminal
from benchmark.errors import DataMissing, plain, shorten

SHADES = " ░▒▓█"
# Backgrounds of the 256-colour palette from dark blue to yellow, with a readable foreground.
_COLOURS = (17, 18, 24, 30, 36, 72, 107, 143, 179, 220)
MOST_COLUMNS = 20

HEADLINES = (
    ("stream_acc", "accuracy over the stream"),
    ("error", "error over the stream"),
    ("error_images", "error over all images of it"),
    ("source_error", "the same error of the source"),
    ("source_gain", "less error than the source"),
    ("source_forgetting", "source accuracy forgotten"),
    ("target_acc", "target accuracy"),
    ("h_score", "harmonic mean of known and unknown"),
    ("known_acc", "mean accuracy per known class"),
    ("unknown_acc", "accuracy on unknown classes"),
    ("source_acc", "source accuracy kept"),
    ("base_acc", "accuracy on base classes"),
    ("new_acc", "accuracy on new classes"),
    ("harmonic_mean", "harmonic mean of base and new"),
    ("transfer_acc", "accuracy on other data sets"),
    ("whole_acc", "average of the matrix"),
    ("unseen_acc", "transfer to sets to come"),
    ("final_avg_acc", "final average accuracy"),
    ("final_acc", "final accuracy (sample mean)"),
    ("avg_incremental_acc", "average incremental accuracy"),
    ("forgetting", "forgetting (Chaudhry)"),
    ("bwt", "backward transfer"),
    ("fwt", "forward transfer"),
    ("learning_acc", "learning accuracy"),
)
# Of generated texts: metric, words, and what stands behind the number.
WRITTEN = (
    ("bleu", "BLEU", ""),
    ("chrf", "chrF", ""),
    ("rouge_l", "ROUGE-L", ""),
    ("slot_error", "slot error", " %"),
    ("slot_missing", "values missing", " %"),
    ("slot_added", "values added", " %"),
    ("avg_incremental_bleu", "average incremental BLEU", ""),
    ("forgetting", "forgetting (Chaudhry)", ""),
    ("bwt", "backward transfer", ""),
    ("learning_bleu", "BLEU after learning", ""),
)
SHOWN_TEXTS = 3
_LONGEST = 400  # characters of a text that is shown
# Of one experience: the words of continual learning would say the same number again and again.
_CONTINUAL = ("final_avg_acc", "final_acc", "avg_incremental_acc", "learning_acc")


def brief(record: Record, path: Path) -> dict[str, Any]:
    """The few fields that ``--json`` prints per run."""
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "scenario": record["scenario"]["name"],
        "method": record["method"]["name"],
        "recipe": record["method"]["recipe"],
        "track": record["track"],
        "seed": record["seeds"]["seed"],
        "metrics": {name: record["metrics"].get(name) for name, *_ in (WRITTEN if _generates(record) else HEADLINES)},
        "record": str(path),
    }


def render(record: Record, path: Path, *, colour: bool | None = None) -> str:
    """The summary as text; colours only on a terminal and without ``NO_COLOR``."""
    if colour is None:
        colour = terminal.is_terminal() and "NO_COLOR" not in os.environ
    method, scenario, timing = record["method"], record["scenario"], record["timing"]
    tested = "" if record["evaluated_on"] == "test" else " (on held-out training images)"
    generates = _generates(record)
    lines = [
        f"{method['name']}@{method['recipe']} on {scenario['name']}, {record['track']} track, "
        f"{record['backbone']['name']}, seed {record['seeds']['seed']}{tested}",
        "",
        *heat_map(record["accuracy"], scenario, colour=colour, what="BLEU" if generates else "accuracy in %"),
        "",
    ]
    if generates:
        lines += _scores(record)
    transferred = families.of_record(record.scenario.family, record.scenario.family_facts).own in record["metrics"]
    rows = [("mean_class_acc", "mean accuracy per class"), *HEADLINES] if transferred else list(HEADLINES)
    for name, words in [] if generates else rows:
        value = record["metrics"].get(name)
        if value is not None and not (transferred and name in _CONTINUAL):
            lines.append(f"  {words:<32} {100 * value:6.2f} %")
    if record["selection"]["rule"] != "last":
        chosen = ", ".join("-" if epoch is None else str(epoch) for epoch in record["selection"]["chosen"])
        lines.append(f"  {'model selection':<32} {record['selection']['rule']}: epoch {chosen}")
    cost = record["cost"]
    lines.append(f"  {'trainable / total parameters':<32} {cost['params_trainable']:,} / {cost['params_total']:,}")
    lines.append(
        f"  {'time':<32} {timing['total_seconds']:.1f} s "
        f"(data {timing['data_seconds']:.1f}, training {sum(timing['train_seconds']):.1f}, "
        f"evaluation {sum(timing['eval_seconds']):.1f})"
    )
    lines += [f"  warning: {warning}" for warning in record["warnings"]]
    if generates:
        lines += _texts(record, path)
    lines += ["", f"record: {path}"]
    return "\n".join(lines)


def _generates(record: Record) -> bool:
    return families.of_record(record.scenario.family, record.scenario.family_facts).generates


def _scores(record: Record) -> list[str]:
    """The scores of generated texts."""
    lines = []
    for name, words, unit in WRITTEN:
        if (value := record.number(name)) is not None:
            lines.append(f"  {words:<32} {100 * value:6.2f}{unit}")
    low, high = record.number("bleu_low"), record.number("bleu_high")
    if low is not None and high is not None:
        lines[0] += f"  [{100 * low:.2f}, {100 * high:.2f}] over texts"
    return lines


def _texts(record: Record, path: Path) -> list[str]:
    """Some samples, evenly spread over those of the last evaluation: input, reference and what was generated."""
    from benchmark.records import predictions

    if record.predictions is None:
        return []
    try:
        found = predictions.read(path.with_name(record.predictions.file))
    except DataMissing as error:
        return ["", f"  no texts to show: {error.message}"]
    found = found.after(len(record.accuracy) - 1)
    if found.text is None or found.references is None or found.input is None:
        return []
    lines = []
    step = max(1, len(found) // SHOWN_TEXTS)
    for place in range(0, len(found), step)[:SHOWN_TEXTS]:
        fields, told = predictions.fields(found.input[place]), found.references[place]
        shown = fields.values() if len(fields) == 1 else (f"{name} : {value}" for name, value in fields.items())
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        lines += ["", f"  input      {_line(' | '.join(shown))}", f"  reference  {_line(told[0])}{more}"]
        lines.append(f"  output     {_line(found.text[place]) or '(empty)'}")
    return lines


def _line(text: str) -> str:
    """A foreign text on one line, at most `_LONGEST` characters of it."""
    return shorten(plain(text), _LONGEST)


def heat_map(
    accuracy: list[list[float | None]],
    scenario: Mapping[str, Any],
    *,
    colour: bool,
    what: str = "accuracy in %",
) -> list[str]:
    """The accuracy matrix, rows = after which experience, columns = test sets, in percent."""
    columns = len(accuracy[0])
    if columns > MOST_COLUMNS:
        return [f"accuracy matrix: {len(accuracy)} x {columns}, too wide to draw; it is in the record"]
    names = [test["name"] for test in scenario["tests"]]
    # One row has room for names; a matrix is drawn in narrow columns.
    width = min(12, max(5, *(len(name) + 1 for name in names))) if len(accuracy) == 1 else 5
    titles = "".join(f"{name[:width]:>{width}}" for name in names)
    lines = [f"{what}, rows: after experience, columns: test set", "     " + titles]
    for index, row in enumerate(accuracy):
        lines.append(f"{index:>4} " + "".join(" " * (width - 5) + _cell(value, colour) for value in row))
    return lines


def _cell(value: float | None, colour: bool) -> str:
    if value is None:
        return "    ·"
    text = f"{100 * value:3.0f}"
    if colour:
        level = min(len(_COLOURS) - 1, int(value * len(_COLOURS)))
        front = 15 if level < 6 else 16
        return f"\x1b[48;5;{_COLOURS[level]}m\x1b[38;5;{front}m {text} \x1b[0m"
    return f"{SHADES[min(len(SHADES) - 1, int(value * len(SHADES)))]}{text} "
