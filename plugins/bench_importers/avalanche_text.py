"""What Avalanche's TextLogger and InteractiveLogger write: metrics by name, below headings of phases.

Source: ContinualAI/avalanche at eb075be393e1 (``logging/text_logging.py``, ``logging/interactive_logging.py``). A line
is ``Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000 = 0.9800``; the task is absent where an experience has several.
The time of an evaluation is that of the last training before it. Evaluations within a training phase (``eval_every``)
are of no trained experience and are left out. ``Top1_Acc_Stream`` counts experiences that were not trained yet, too.
Bars of progress lie between the lines, ended by carriage returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bench_importers.avalanche import Cells, run_of
from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile

_TRAINING = re.compile(r"-- Starting training on experience (\d+)\b.*--")
_END_OF_TRAINING = "-- >> End of training phase << --"
_SCORE = re.compile(r"(\w+)/eval_phase/(\w+)_stream(?:/Task\d+)?(?:/Exp(\d+))? = (\S+)")
ACCURACY, FORGETTING = "Top1_Acc_Exp", "ExperienceForgetting"
DECIMALS = 2  # of percent: four of a fraction
STREAMS = {
    "Top1_Acc_Stream": ("", "sample mean over everything that was evaluated, untrained experiences too"),
    "Accuracy_On_Trained_Experiences": ("final_acc", "sample mean over the experiences trained so far"),
    "StreamForgetting": ("", "mean over earlier experiences of accuracy right after learning minus accuracy now"),
}


@dataclass
class _Run:
    """Scores of one run."""

    first: int
    time: int | None = None
    training: bool = False
    last: int = 1
    accuracy: Cells = field(default_factory=dict)
    lost: Cells = field(default_factory=dict)
    streams: dict[str, float] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)


def read(file: SourceFile) -> Iterator[ForeignRun]:
    """Reads every run of a file."""
    runs = [_Run(1)]
    for number, line in enumerate(file.lines, 1):
        text = line.strip()
        run = runs[-1]
        if match := _TRAINING.fullmatch(text):
            time = int(match[1])
            if run.time is not None and time <= run.time:  # a run of its own, by a strategy of its own
                run = _Run(number)
                runs.append(run)
            run.time, run.training = time, True
        elif text == _END_OF_TRAINING:
            run.training = False
        elif match := _SCORE.fullmatch(text):
            _keep(file, number, run, match)
        if text:
            run.last = number
    if not any(run.accuracy for run in runs):
        file.other(f"no line `{ACCURACY}/eval_phase/test_stream/... = ...`")
    for run in runs:
        yield _run(run)


def _keep(file: SourceFile, line: int, run: _Run, match: re.Match[str]) -> None:
    """Keeps one score, if it is of the test stream and of a state after training, or before any."""
    name, stream, test, text = match.groups()
    if name not in (ACCURACY, FORGETTING, *STREAMS):
        return
    if stream != "test":
        run.notes.add(f"evaluations of the {stream} stream are left out")
        return
    if run.training:
        run.notes.add("evaluations within training are left out")
        return
    try:
        value = float(text)
    except ValueError:
        file.damaged(line, f"{text!r:.60} is no number")
    if not (0 if name in (ACCURACY, "Top1_Acc_Stream", "Accuracy_On_Trained_Experiences") else -1) <= value <= 1:
        file.damaged(line, f"{text!r:.60} is no fraction")
    if name in STREAMS:
        run.streams[name] = value
    elif test is not None:
        cells = run.accuracy if name == ACCURACY else run.lost
        cells[run.time, int(test)] = value


def _run(run: _Run) -> ForeignRun:
    made = run_of(run.last, run.accuracy, run.lost, double=False)
    scores = [
        ForeignScore(name=name, value=value, definition=STREAMS[name][1], metric=STREAMS[name][0], decimals=DECIMALS)
        for name, value in run.streams.items()
    ]
    if "StreamForgetting" not in run.streams:
        scores += made.reported
    return replace(made, first_line=run.first, reported=scores, notes=[*made.notes, *sorted(run.notes)])


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    """Registers the format."""
    files = "what TextLogger was given, or the console output"
    summary = "text logs of Avalanche"
    return [ImporterSpec(name="avalanche-text", read=read, suite="Avalanche", files=files, summary=summary)]
