"""``log.txt`` of Dassl and of what is built on it (CoOp, CoCoOp, ...): one accuracy on one test set.

Sources: KaiyangZhou/Dassl.pytorch (``evaluation/evaluator.py`` at 0eff13a87550, ``engine/trainer.py`` at 01fc53e9724a),
KaiyangZhou/CoOp. A block ``=> result`` follows every test; the result is the last one after training has finished,
which versions say in two ways. Counts are exact where the printed accuracy has two decimals, so they are taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_FINISHED = re.compile(r"Finish(ed)? training\b")
_SET = re.compile(r"\bon \W?(?:the )?\W?(val|test|train)\w*\W? set", re.IGNORECASE)
_NUMBER = re.compile(r"\* (total|correct|accuracy|error|macro_f1): ([\d,.]+)%?")
_CLASSES = re.compile(r"\* average: ([\d.]+)%")
_OPTION = re.compile(r"( *)([A-Za-z_][\w.-]*):(?: (.*))?")
_HEADS = ("** Arguments **", "** Config **", "** System info **")
FACTS = ("SEED", "OUTPUT_DIR", "DATASET.ROOT")
DECIMALS = 2


@dataclass
class _Block:
    """One test."""

    line: int
    on: str
    finished: bool
    values: dict[str, float] = field(default_factory=dict)


def read(file: SourceFile) -> list[ForeignRun]:
    """Reads the run of a file."""
    lines = file.lines
    sections = _sections(lines)
    if _HEADS[1] not in sections:
        file.other("no `** Config **`")
    arguments = _options(sections.get(_HEADS[0], []))
    config = _options(sections[_HEADS[1]])
    blocks = _blocks(file, lines)
    only_tested = arguments.get("eval_only") == "True"
    ended = any(_FINISHED.match(line.strip()) for line in lines)
    final = next((block for block in reversed(blocks) if block.finished or only_tested), None)
    notes = []
    if final is None:
        notes.append("the run did not come to its last test" if not ended else "no test after training")
    if only_tested:
        notes.append("eval only: what it was trained on stands in the path of model_dir alone")
    seed = config.get("SEED", "")
    if arguments.get("seed") == "0" and seed.startswith("-"):
        notes.append("--seed 0 was given, which the suite takes for none: unseeded")
    target = _joined(config.get("DATASET.TARGET_DOMAINS", ""))
    source = _joined(config.get("DATASET.SOURCE_DOMAINS", ""))
    scenario = config.get("DATASET.NAME")
    if scenario and target:
        scenario += f" {source or '?'} -> {target}"
    if final is not None and final.on.startswith("val"):
        notes.append("tested on validation images")
    return [
        ForeignRun(
            first_line=1,
            last_line=max((number for number, line in enumerate(lines, 1) if line.strip()), default=1),
            complete=final is not None,
            method=config.get("TRAINER.NAME"),
            scenario=scenario,
            backbone=config.get("MODEL.BACKBONE.NAME"),
            seed=int(seed) if re.fullmatch(r"\d{1,18}", seed) else None,
            config={name: value for name, value in config.items() if name not in FACTS},
            facts={
                **{name: config[name] for name in FACTS if name in config},
                **{f"arguments.{name}": value for name, value in arguments.items()},
            },
            decimals=DECIMALS,
            reported=[] if final is None else _scores(file, final),
            tables={"tests": [{"on": block.on, **block.values} for block in blocks]},
            notes=notes,
        )
    ]


def _sections(lines: Sequence[str]) -> dict[str, list[str]]:
    """The lines below each heading, up to the next one or to what is no option."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if line.strip() in _HEADS:
            current = found.setdefault(line.strip(), [])
        elif line.startswith("Collecting env info"):
            current = None
        elif current is not None:
            current.append(line)
    return found


def _options(lines: Sequence[str]) -> dict[str, str]:
    """Options by full key: depth is indentation. A line of another form ends them, but for rulers."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in lines:
        if not line.strip() or set(line.strip()) <= {"*"} or set(line.strip()) <= {"-"}:
            continue
        match = _OPTION.fullmatch(line.rstrip())
        if not match:
            break
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        name = ".".join([*(part for _, part in above), match[2]])
        if match[3] is None or not match[3].strip():
            above.append((depth, match[2]))
        else:
            found[name] = match[3].strip()
    return found


def _blocks(file: SourceFile, lines: Sequence[str]) -> list[_Block]:
    blocks: list[_Block] = []
    on, finished = "", False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if _FINISHED.match(text):
            finished = True
        elif match := _SET.search(text):
            on = match[1].lower()
        elif text == "=> result":
            blocks.append(_Block(number, on, finished))
        elif blocks and (match := _NUMBER.fullmatch(text)):
            blocks[-1].values[match[1]] = _number(file, number, match[2])
        elif blocks and (match := _CLASSES.fullmatch(text)):
            blocks[-1].values["class_mean"] = _number(file, number, match[1])
    return blocks


def _number(file: SourceFile, line: int, text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        file.damaged(line, f"{text!r} is no number")


def _scores(file: SourceFile, block: _Block) -> list[ForeignScore]:
    values = block.values
    missing = [name for name in ("total", "correct", "accuracy") if name not in values]
    if missing:
        file.damaged(block.line, f"the result has no {missing[0]}: it is cut off")
    total, correct = int(values["total"]), int(values["correct"])
    if not 0 <= correct <= total or not total or abs(100 * correct / total - values["accuracy"]) > 0.011:
        file.damaged(block.line, f"{correct} of {total} right are not {values['accuracy']} %")
    about: dict[str, Any] = {"n": total, "decimals": DECIMALS}
    mean = "sample mean over one test set, from the counts"
    found = [ForeignScore(name="accuracy", value=correct / total, definition=mean, n=total)]
    further: Mapping[str, str] = {
        "macro_f1": "mean over classes of F1",
        "class_mean": "mean over classes of their accuracy",
    }
    for name, definition in further.items():
        if name in values:
            found.append(ForeignScore(name=name, value=values[name] / 100, definition=definition, **about))
    return found


def _joined(text: str) -> str:
    """``['art_painting', 'photo']`` as ``art_painting+photo``."""
    return "+".join(re.findall(r"[\w-]+", text))


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    return [
        ImporterSpec(name="dassl", read=read, suite="Dassl", files="log.txt", summary="logs of Dassl, CoOp and kin")
    ]
