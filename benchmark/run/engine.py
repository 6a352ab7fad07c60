"""The loop: for each experience train, then evaluate; resume where it was stopped; write one record.

Randomness comes from three seeds. Every stream of random numbers is derived from one of them and the
place in the run (experience, epoch, step), so that a resumed run draws what the uninterrupted one
would have drawn; the state of the global generators, which methods may use, is part of the
checkpoint.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import pluggy
import torch
from tqdm import tqdm

from benchmark import metrics, records
from benchmark.api import Experience, ExperienceView, ImageSet, LoopMethod, Method, Transform
from benchmark.errors import BenchError, DataMissing, PluginError, RunBusy, RunFailed
from benchmark.files import cannot_write, replace_file
from benchmark.records import predictions
from benchmark.run import checkpoint, costs, evaluation, recording
from benchmark.run.feed import Feed
from benchmark.run.interruption import Interrupted, Stop
from benchmark.run.preparation import Prepared
from benchmark.run.seeds import derive
from benchmark.run.selection import Selection
from benchmark.specs import RunFinished

BOUNDARY = "boundary.safetensors"
MIDDLE = "middle.safetensors"
FORCED = "forced"  # empty file beside the checkpoints of a repetition: until it is done, the record is an earlier one's
COSTS = (
    "params_total",
    "params_trainable",
    "params_trainable_per_experience",
    "params_added",
    "flops_forward",
    "macs_forward",
    "flops_train_step",
    "storage_bytes",
)


def execute(
    prepared: Prepared, out: Path, *, hooks: pluggy.PluginManager, quiet: bool = False, force: bool = False
) -> Path:
    """Runs one prepared run to its record, or resumes it.

    Args:
        prepared: Scenario, method, backbone and identity (`benchmark.run.preparation.prepare`).
        out: Results folder; the record goes to ``out/<scenario>/<method>/<run id>.json``.
        hooks: Life-cycle plugins.
        quiet: No progress bars.
        force: Start again even if there is a record or a checkpoint.

    Returns:
        Path of the record.

    Raises:
        RunBusy: Another process is working on this run.
        Interrupted: Ctrl-C; what is finished is kept.
        RunFailed: NaN loss, full disk, ...; the last checkpoint is kept.
        PluginError: The method breaks its contract.
    """
    path = record_path(out, prepared)
    work = path.with_suffix(".work")
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunBusy(
            f"run {prepared.run_id} ({prepared.label}) is being worked on by another process",
            hint="wait for it, or choose another --out folder",
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        if force:
            shutil.rmtree(work, ignore_errors=True)
            replace_file(work / FORCED, b"")
        elif is_finished(path):
            return path
        run = _Run(prepared, path, work, hooks, quiet)
        with checkpoint.isolated():
            run.go()
        (work / FORCED).unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        return path
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            path.with_suffix(".lock").unlink()


def record_path(out: Path, prepared: Prepared) -> Path:
    """Where the record of a run goes."""
    folder = prepared.plan.scenario_name.replace("/", "-")
    return out / folder / prepared.plan.method_label / f"{prepared.run_id}.json"


def is_complete(path: Path) -> bool:
    """Whether there is a readable record of a completed run."""
    return path.exists() and records.read(path)["status"] == "completed"


def is_finished(path: Path) -> bool:
    """Whether there is nothing left to do: the run is complete, and no repetition of it was stopped halfway."""
    return is_complete(path) and not (path.with_suffix(".work") / FORCED).exists()


class _Run:
    """State of one run while it is executed."""

    def __init__(self, prepared: Prepared, path: Path, work: Path, hooks: pluggy.PluginManager, quiet: bool) -> None:
        self.prepared = prepared
        self.plan = prepared.plan
        self.stream = prepared.stream
        self.path = path
        self.work = work
        self.hooks = hooks
        self.quiet = quiet
        self.stop = Stop()
        # What goes into the record and survives a restart.
        self.done: dict[str, Any] = {
            "experience": 0,
            "losses": [],
            "selected": [],
            "baseline": None,
            "train_seconds": [],
            "eval_seconds": [],
            "eval_images": 0,
            "trainable": [],
            "storage": [],
            "flops_train_step": None,
            "resumed": 0,
            "peak_memory_bytes": 0,
        }

    def go(self) -> None:
        started = time.perf_counter()
        costs.reset_peak_memory(self.prepared.device)
        with self.stop.installed():
            try:
                method = self._build()
                first, middle = self._resume(method)
                for index in range(first, len(self.stream.scenario.experiences)):
                    self._experience(method, index, middle if index == first else None)
                record = self._finish(method, time.perf_counter() - started)
            except KeyboardInterrupt:
                self._write_unfinished("interrupted", time.perf_counter() - started)
                done, count = self.done["experience"], len(self.stream.scenario.experiences)
                raise Interrupted(
                    f"{self.prepared.label}: stopped; {done} of {count} experiences are finished and kept",
                    hint=f"resume with: {self.prepared.command}",
                ) from None
            except Exception as error:
                self._write_unfinished("failed", time.perf_counter() - started)
                explained = self._explain(error)
                if explained is error:
                    raise
                raise explained from error
        self.hooks.hook.bench_run_finished(result=RunFinished(self.path, record))

    def _explain(self, error: Exception) -> Exception:
        """Turns memory errors and exceptions out of a plugin's own code into one clear message."""
        if isinstance(error, BenchError):
            return error
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            return RunFailed(
                f"{self.prepared.label}: out of memory",
                hint=f"lower batch_size or engine.eval_batch_size; {self._kept()}",
            )
        files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        build = self.plan.method_spec.build
        if inspect.isclass(build) and inspect.getsourcefile(build) in files:
            return PluginError(
                f"method `{self.plan.method_spec.name}` of `{self.plan.method.entry.distribution}` failed: "
                f"{type(error).__name__}: {error}",
                hint="-v shows where; `bench check` runs the contract that every method must pass",
            )
        return error

    def _build(self) -> Method:
        checkpoint.seed_everything(derive(self.plan.seeds["init"], "build"))
        method = self.plan.method_spec.build(self.plan.method_config, self.prepared.context)
        return method.to(self.prepared.device)

    def _resume(self, method: Method) -> tuple[int, dict[str, Any] | None]:
        """Loads the last checkpoints; returns the experience to go on with and its middle, if any."""
        boundary, middle = self.work / BOUNDARY, self.work / MIDDLE
        if boundary.exists():
            saved = checkpoint.load(boundary)
            self.done |= saved["done"]
            checkpoint.restore(method, saved["method"])
            self.done["resumed"] += 1
        state = checkpoint.load(middle) if middle.exists() else None
        if state is not None and state["experience"] != self.done["experience"]:
            state = None  # left over from an experience that was finished afterwards
        if state is not None:
            self.done["resumed"] = state["resumed"] + 1
        return self.done["experience"], state

    def _experience(self, method: Method, index: int, middle: dict[str, Any] | None) -> None:
        """Trains one experience, evaluates, and commits it to disk."""
        uses = self.prepared.context.uses
        view = ExperienceView(self.stream.scenario, index, uses, self.plan.method_spec.name)
        experience = self.stream.scenario.experiences[index]
        checkpoint.seed_everything(derive(self.plan.seeds["init"], "experience", index))
        method.train()
        method.begin_experience(view)
        passes = tuple(method.passes())
        if index == 0 and middle is None:
            self.done["baseline"] = self._baseline(method)
        self.hooks.hook.bench_before_task(run_id=self.prepared.run_id, experience=index, method=method)
        selection = Selection(self._selection_images(experience))
        if isinstance(method, LoopMethod):
            losses, seconds = self._train_loop_method(method, view, index)
        else:
            losses, seconds = self._train(method, experience, index, passes, middle, selection)
        trainable = costs.trainable(method)
        method.end_experience(view)
        view.close()
        started = time.perf_counter()
        row = self._evaluate(method, index)
        eval_seconds = time.perf_counter() - started
        self.done["losses"].append(losses)
        self.done["selected"].append((selection.chosen, selection.scores))
        self.done["train_seconds"].append(seconds)
        self.done["eval_seconds"].append(eval_seconds)
        self.done["trainable"].append(trainable)
        self.done["storage"].append(costs.storage_bytes(method))
        self.done["experience"] = index + 1
        self.done["peak_memory_bytes"] = max(
            self.done["peak_memory_bytes"], costs.peak_memory_bytes(self.prepared.device)
        )
        checkpoint.save(self.work / BOUNDARY, {"done": self.done, "method": checkpoint.snapshot(method)})
        (self.work / MIDDLE).unlink(missing_ok=True)
        self.hooks.hook.bench_after_task(run_id=self.prepared.run_id, experience=index, accuracies=row)

    def _train_loop_method(
        self, method: LoopMethod, view: ExperienceView, index: int
    ) -> tuple[list[dict[str, float]], float]:
        if index == len(self.stream.scenario.experiences) - 1:
            self.done["flops_train_step"] = costs.loop_step_flops(
                method, self.stream.scenario, index, self.prepared.context.uses, self.plan.method_spec.name
            )
        started = time.perf_counter()
        with self._bar(1, index) as bar:
            losses = {name: float(value) for name, value in method.train_experience(view).items()}
            bar.update()
        if any(not math.isfinite(value) for value in losses.values()):
            raise self._not_finite(index, 0, 0, losses)
        return [losses], time.perf_counter() - started

    def _train(
        self,
        method: Method,
        experience: Experience,
        index: int,
        passes: Sequence[Transform],
        middle: dict[str, Any] | None,
        selection: Selection,
    ) -> tuple[list[dict[str, float]], float]:
        """The loop over epochs and batches, with checkpoints in the middle."""
        feed = Feed(
            method,
            experience,
            index,
            passes,
            batch_size=self.plan.method_config.batch_size,
            uses=self.prepared.context.uses,
            seed=self.plan.seeds["data"],
            pipeline=self.prepared.pipeline,
            device=self.prepared.device,
        )
        first_epoch, first_step = 0, 0
        losses: list[dict[str, float]] = []
        sums: dict[str, float] = {}
        before = 0.0
        if middle is not None:
            checkpoint.restore(method, middle["method"])
            checkpoint.set_random_state(middle["random"])
            first_epoch, first_step, losses, sums = (middle[name] for name in ("epoch", "step", "losses", "sums"))
            before = middle["seconds"]
            self.done["baseline"] = middle["baseline"]
            self.done["flops_train_step"] = middle["flops"]
            selection.load(middle["selection"])
        started = saved = time.perf_counter()
        with self._bar(sum(feed.steps), index, sum(feed.steps[:first_epoch]) + first_step) as bar:
            for epoch in range(first_epoch, feed.epochs):
                for step in range(first_step if epoch == first_epoch else 0, feed.steps[epoch]):
                    batch = feed.batch(epoch, step)
                    if self._measures_step(index, epoch, step):
                        pause = time.perf_counter()
                        self.done["flops_train_step"] = costs.step_flops(method, batch)
                        started += time.perf_counter() - pause  # counting is not training
                    with self.stop.deferring():
                        terms = {name: float(value) for name, value in method.train_step(batch).items()}
                    if any(not math.isfinite(value) for value in terms.values()):
                        raise self._not_finite(index, epoch, step, terms)
                    for name, value in terms.items():
                        sums[name] = sums.get(name, 0.0) + value * feed.weight(batch)
                    bar.update()
                    now = time.perf_counter()
                    if self.stop.requested or now - saved >= self.plan.engine.checkpoint_seconds:
                        place = {"epoch": epoch, "step": step + 1, "losses": losses, "sums": sums}
                        self._save_middle(
                            method, index, {**place, "selection": selection.state()}, before + now - started
                        )
                        saved = time.perf_counter()
                    if self.stop.requested:
                        raise KeyboardInterrupt
                losses.append({name: value / feed.images(epoch) for name, value in sums.items()})
                sums = {}
                if selection.images is not None and feed.epochs > 1:
                    pause = time.perf_counter()
                    score = self._score(method, index, selection.images)
                    selection.consider(method, epoch, score, candidate=feed.adapted(epoch))
                    started += time.perf_counter() - pause  # selecting is not training
        selection.put_back(method)
        return losses, before + time.perf_counter() - started

    def _selection_images(self, experience: Experience) -> ImageSet | None:
        """What the epochs of an experience are compared on, or None when the last one is taken."""
        rule = self.plan.engine.select
        if rule == "source-validation":
            return experience.validation
        return experience.test if rule == "target-oracle" else None

    def _score(self, method: Method, index: int, images: ImageSet) -> float:
        """Accuracy on images for selection."""
        found = self._predictions(method, index, [(0, images)], {})
        return float((found.prediction == found.label).double().mean())

    def _measures_step(self, index: int, epoch: int, step: int) -> bool:
        return index == len(self.stream.scenario.experiences) - 1 and epoch == 0 and step == 0

    def _save_middle(self, method: Method, index: int, place: Mapping[str, Any], seconds: float) -> None:
        checkpoint.save(
            self.work / MIDDLE,
            {
                "experience": index,
                **place,
                "seconds": seconds,
                "baseline": self.done["baseline"],
                "flops": self.done["flops_train_step"],
                "resumed": self.done["resumed"],
                "random": checkpoint.random_state(),
                "method": checkpoint.snapshot(method),
            },
        )

    def _bar(self, total: int, index: int, initial: int = 0) -> Any:
        name = f"{self.plan.method_label} {index + 1}/{len(self.stream.scenario.experiences)}"
        disable = True if self.quiet else None  # None: only on a terminal
        return tqdm(total=total, initial=initial, desc=name, disable=disable, leave=False, unit="step")

    def _not_finite(self, index: int, epoch: int, step: int, terms: Mapping[str, float]) -> RunFailed:
        bad = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
        return RunFailed(
            f"{self.prepared.label}: {bad} at experience {index}, epoch {epoch}, step {step}",
            hint=f"lower the learning rate; {self._kept()}",
        )

    def _kept(self) -> str:
        """What is left of a run that failed, for its message."""
        if (self.work / BOUNDARY).exists() or (self.work / MIDDLE).exists():
            return "the last checkpoint is kept"
        return "there is no checkpoint yet"

    def _baseline(self, method: Method) -> list[float] | None:
        """Accuracy of the untrained model per test set, where forward transfer means something."""
        if self.stream.scenario.family in ("class-il", "task-il") or len(self.stream.scenario.experiences) == 1:
            return None
        one = self.prepared.pipeline.eval(self.stream.tests[0].images(slice(0, 1)).to(self.prepared.device))
        with torch.no_grad():
            columns = method.eval().predict(one).shape[1]
        method.train()
        if columns == 0:  # it does not know a single class before its first batch: there is no baseline
            return None
        found = predictions.table(0, self._predict(method, 0))
        return [float(value) for value in metrics.accuracy_matrix(found, 1, len(self.stream.tests))[0][0]]

    def _predict(self, method: Method, index: int) -> evaluation.Predictions:
        """Predictions on all test sets that may be shown after an experience."""
        tests = [(place, self.stream.tests[place]) for place in self.stream.tests_seen[index]]
        names = self.stream.scenario.class_names
        vocabularies = {
            place: evaluation.Vocabulary(labels, tuple(names[label] for label in labels))
            for place, labels in self.stream.vocabularies.items()
        }
        return self._predictions(method, index, tests, vocabularies)

    def _predictions(
        self,
        method: Method,
        index: int,
        tests: list[tuple[int, ImageSet]],
        vocabularies: Mapping[int, evaluation.Vocabulary],
    ) -> evaluation.Predictions:
        scenario, uses = self.stream.scenario, self.prepared.context.uses
        state = checkpoint.random_state()
        try:
            return evaluation.evaluate(
                method,
                tests,
                vocabularies=vocabularies,
                pipeline=self.prepared.pipeline,
                seen=len(scenario.seen_classes(index)),
                open_head="num_classes" in uses,
                per_image="test_batch" not in uses,
                batch_size=self.plan.engine.eval_batch_size,
                order=self.plan.engine.eval_order,
                seed=derive(self.plan.seeds["data"], "evaluation"),
                device=self.prepared.device,
                keep_logits=self.plan.engine.save_logits,
                name=self.plan.method_spec.name,
            )
        finally:
            checkpoint.set_random_state(state)

    def _evaluate(self, method: Method, index: int) -> list[float | None]:
        """Predicts, keeps the predictions, and returns the row of the accuracy matrix."""
        found = predictions.table(index, self._predict(method, index))
        predictions.write(self._part(index), found)
        self.done["eval_images"] += len(found)
        matrix, _ = metrics.accuracy_matrix(found, index + 1, len(self.stream.tests))
        return list(metrics.null(matrix[index]))

    def _part(self, index: int) -> Path:
        return self.work / f"predictions-{index:04d}.parquet"

    def _finish(self, method: Method, seconds: float) -> dict[str, Any]:
        """Writes predictions, then the record: a record never points to a file that is not there."""
        found = predictions.concat([predictions.read(self._part(i)) for i in range(self.done["experience"])])
        file = self.path.with_suffix(".parquet")
        predictions.write(file, found)
        total = costs.total(method)
        one = self.prepared.pipeline.eval(self.stream.tests[0].images(slice(0, 1)).to(self.prepared.device))
        method.eval()
        with torch.no_grad():
            forward = costs.count_flops(method, lambda twin: twin.predict(one))
        cost = {
            "params_total": total,
            "params_trainable": max(self.done["trainable"]),
            "params_trainable_per_experience": self.done["trainable"],
            "params_added": total - self.prepared.backbone.parameters - costs.pretrained_text(method),
            "flops_forward": forward,
            "macs_forward": forward // 2,
            "flops_train_step": self.done["flops_train_step"],
            "storage_bytes": self.done["storage"],
        }
        record = recording.build(
            self.prepared,
            status="completed",
            done=self.done,
            found=found,
            predictions_file=file,
            cost=cost,
            seconds=seconds,
        )
        records.write(self.path, record)
        return record

    def _write_unfinished(self, status: str, seconds: float) -> None:
        """Leaves a record of what is finished, so that tables can show the run as missing.

        It must not hide the error that led here: if it cannot be written either, the checkpoint
        alone is what is kept.
        """
        with contextlib.suppress(DataMissing):  # a damaged record is replaced
            if is_complete(self.path):
                return  # --force failed: the record of the earlier execution stays
        parts = [predictions.read(self._part(index)) for index in range(self.done["experience"])]
        record = recording.build(
            self.prepared,
            status=status,
            done=self.done,
            found=predictions.concat(parts) if parts else None,
            predictions_file=None,
            cost={
                **dict.fromkeys(COSTS),
                "params_trainable_per_experience": self.done["trainable"],
                "storage_bytes": self.done["storage"],
            },
            seconds=seconds,
        )
        with contextlib.suppress(RunFailed):
            records.write(self.path, record)
