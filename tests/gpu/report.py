"""What a GPU does with adaptbench, as a report in Markdown to paste into an issue: ``tox -e gpu``.

Contract checks of every method on the device, in a few processes until their share of the time is used up; precision,
compilation, memory; images per second of the engine against a bare loop. Exit code 0: all passed; 1: something failed,
or methods were not reached; 2: there is no GPU.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmark import records, registry
from benchmark.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from benchmark.events import EpochEnded
from benchmark.hookspecs import hookimpl
from benchmark.records import predictions
from benchmark.run import engine
from benchmark.testing import checks, toys
from benchmark.testing.laboratory import MethodSubject, manager

ELSEWHERE = frozenset({"device"})  # is about the pretended one
BATCH, CLASSES = 64, 10


@dataclass
class Report:
    """Lines of Markdown, and whether anything failed."""

    lines: list[str] = field(default_factory=list)
    failed: bool = False

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)

    def table(self, *head: str) -> None:
        self.say()
        self.row(*head)
        self.row(*["---"] * len(head))

    def row(self, *cells: object) -> None:
        self.say("| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |")

    def attempt(self, what: str, work: Callable[[], Sequence[object]], columns: int) -> None:
        """A row, or the error in its place: one thing that fails keeps none of the others from being told."""
        try:
            cells = work()
        except Exception as error:
            self.failed = True
            cells = [f"**fail** {type(error).__name__}: {str(error)[:200]}", *[""] * (columns - 1)]
        self.row(what, *cells)


def missing(device: str) -> str | None:
    """Why there is no such device, or None."""
    try:
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def machine(report: Report, device: str) -> None:
    report.say("# adaptbench on a GPU")
    report.table("", "")
    report.row("torch", torch.__version__)
    report.row("Python, system", f"{platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores")
    if torch.device(device).type == "cuda":
        card = torch.cuda.get_device_properties(device)
        report.row("GPU", f"{card.name}, {card.total_memory / 2**30:.1f} GiB, capability {card.major}.{card.minor}")
        report.row("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    else:
        report.row("device", device)


# --- contract


def contract(name: str, device: str) -> list[tuple[str, str, str]]:
    """Results of the checks of one method: check, result, message."""
    torch.set_num_threads(1)
    subject = checks.method_subject(name)
    subject.device = device
    wanted = frozenset(checks.METHOD_CHECKS) - ELSEWHERE
    return [(found.check, found.result, found.message) for found in checks.run_checks(subject, wanted)]


def in_processes(names: Sequence[str], device: str, jobs: int, until: float) -> Iterator[tuple[str, Any]]:
    """Methods with their results, as they are finished; what is not begun in time does not come."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {pool.submit(contract, name, device): name for name in names}
        try:
            for done in concurrent.futures.as_completed(waiting, timeout=max(1.0, until - time.monotonic())):
                yield waiting[done], done
        except concurrent.futures.TimeoutError:
            for future in waiting:
                future.cancel()


def contracts(report: Report, names: Sequence[str], device: str, jobs: int, seconds: float) -> None:
    started = time.monotonic()
    report.say()
    report.say("## Contract")
    report.table("method", "passed", "skipped", "failed")
    reached, bad = set(), []
    for name, done in in_processes(names, device, jobs, started + seconds):
        reached.add(name)
        try:
            found = done.result()
        except Exception as error:
            found = [("all", "fail", f"{type(error).__name__}: {error}")]
        counts = [sum(result == kind for _, result, _ in found) for kind in ("pass", "skip", "fail")]
        report.row(name, *counts)
        bad += [(name, check, message) for check, result, message in found if result == "fail"]
    report.say()
    left = [name for name in names if name not in reached]
    report.say(
        f"{len(reached)} of {len(names)} methods in {time.monotonic() - started:.0f} s, {len(bad)} checks failed."
    )
    if left:
        report.say(f"Not reached in time (`--minutes`): {', '.join(left)}.")
    for name, check, message in bad:
        report.say(f"- **{name}**, `{check}`: {message}")
    report.failed |= bool(bad or left)


# --- precision, compilation, memory, speed


def subject_on(device: str, size: int) -> MethodSubject:
    """Fine-tuning of a ViT of 12 blocks and some width, on 16 patches."""
    subject = checks.method_subject("finetune")
    subject.device = device
    subject.model = lambda: toys.tiny_backbone(embed_dim=size, depth=12, num_heads=size // 64)
    return subject


class Clock:
    """Training seconds at the end of every pass; the first pass warms up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @hookimpl
    def bench_epoch_ended(self, event: EpochEnded) -> None:
        """Losses were read: the device has done what it was sent."""
        self.seconds.append(event.seconds)


@dataclass(frozen=True)
class Measured:
    """One run: images per second of the second pass, peak memory in bytes, last loss, logits."""

    speed: float
    peak: int
    loss: float
    logits: torch.Tensor


def measured(subject: MethodSubject, images: int, **options: Any) -> Measured:
    """Trains for two passes over some images."""
    scenario = subject.scenario(experiences=1, classes=CLASSES, train=images // CLASSES, test=2)
    config = subject.small(subject.recipe, epochs=2, batch_size=BATCH)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        prepared = subject.prepare(scenario, config=config, **options)
        path = engine.execute(prepared, Path(folder), hooks=manager([clock]), quiet=True)
        record, found = records.read(path), predictions.read(path.with_suffix(".parquet"))
    assert found.logits is not None
    first, second = clock.seconds
    peak, losses = record["timing"]["peak_memory_bytes"], record["losses"][0]
    return Measured(images / (second - first), peak, losses[-1]["loss"], torch.from_numpy(found.logits))


def engine_options(report: Report, device: str, size: int, images: int) -> None:
    """Precision, compilation, algorithms and activations: loss, deviation, speed and memory of each."""
    report.say()
    report.say(f"## Options of the engine (fine-tuning a ViT of width {size}, depth 12, batches of {BATCH})")
    report.table("engine", "loss", "largest change of a logit", "images/s", "peak GiB")
    subject = subject_on(device, size)
    plain = measured(subject, images)
    for options in (
        {},
        {"deterministic": False},
        {"precision": "tf32", "deterministic": False},
        {"precision": "bf16", "deterministic": False},
        {"precision": "fp16", "deterministic": False},
        {"precision": "bf16", "deterministic": False, "compile": True},
        {"precision": "bf16", "activation_checkpointing": True},
        {"precision": "bf16", "micro_batch": BATCH // 4},
    ):

        def work(options: dict[str, Any] = options) -> Sequence[object]:
            run = measured(subject, images, **options)
            if not options and not torch.equal(run.logits, plain.logits):
                raise AssertionError("two runs with deterministic algorithms differ")
            gap = float((run.logits - plain.logits).abs().max())
            return f"{run.loss:.4f}", f"{gap:.2g}", f"{run.speed:.0f}", f"{run.peak / 2**30:.2f}"

        report.attempt(", ".join(f"{name}={value}" for name, value in options.items()) or "default, again", work, 4)


def bare(device: str, size: int, images: int) -> float:
    """Images per second of the plainest loop over tensors that are on the device."""
    vit: Any = toys.tiny_backbone(embed_dim=size, depth=12, num_heads=size // 64).model
    vit = vit.to(device).requires_grad_(True).train()
    head = nn.Linear(size, CLASSES).to(device)
    optimizer = torch.optim.SGD([*vit.parameters(), *head.parameters()], lr=0.01, momentum=0.9)
    data, labels = torch.randn(images, 3, toys.SIZE, toys.SIZE).to(device), torch.randint(CLASSES, (images,)).to(device)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        for some, right in zip(data.split(BATCH), labels.split(BATCH), strict=True):
            loss = F.cross_entropy(head(vit(some)), right)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # waits
        seconds.append(time.perf_counter() - started)
    return images / seconds[-1]


def speed(report: Report, device: str, size: int, images: int) -> None:
    """The engine against a bare loop, in turns: the better of each."""
    report.say()
    report.say("## Images per second: engine against a bare loop (float32)")
    report.table("ViT", "engine", "bare loop", "ratio")

    def work() -> Sequence[object]:
        subject, ours, theirs = subject_on(device, size), list[float](), list[float]()
        for _ in range(3):
            ours.append(measured(subject, images, deterministic=False).speed)
            theirs.append(bare(device, size, images))
        return f"{max(ours):.0f}", f"{max(theirs):.0f}", f"{max(ours) / max(theirs):.2f}"

    report.attempt(f"width {size}, depth 12", work, 3)


def main(words: Sequence[str] | None = None) -> int:
    """Makes the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"), help="where the report goes as well")
    parser.add_argument("--minutes", type=float, default=6.0, help="for the contract; the rest takes about three")
    parser.add_argument("--jobs", type=int, default=max(1, min(6, (os.cpu_count() or 1) - 1)), help="processes")
    parser.add_argument("--methods", default="", help="names, with commas; default: all")
    parser.add_argument("--size", type=int, default=768, help="width of the ViT that is measured")
    parser.add_argument("--images", type=int, default=2560, help="that it is trained on")
    given = parser.parse_args(words)
    if (reason := missing(given.device)) is not None:
        print(f"no GPU: nothing was tested on `{given.device}` ({reason})", file=sys.stderr)
        return EXIT_USAGE
    report = Report()
    machine(report, given.device)
    engine_options(report, given.device, given.size, given.images)
    speed(report, given.device, given.size, given.images)
    names = given.methods.split(",") if given.methods else list(registry.names("methods"))
    contracts(report, names, given.device, given.jobs, given.minutes * 60)
    given.out.write_text("\n".join(report.lines) + "\n", encoding="utf-8")
    print(f"\nreport: {given.out}", file=sys.stderr)
    return EXIT_FAILED if report.failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
