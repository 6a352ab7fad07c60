"""One run: for each experience train, then evaluate; resume where it was stopped; write one record.

Randomness comes from three seeds. Every stream of random numbers is derived from one of them and the
place in the run (experience, epoch, step), so that a resumed run draws what the uninterrupted one
would have drawn; the state of the global generators, which methods may use, is part of the
checkpoint.

What is on disk is verified before it is used. A damaged checkpoint in the middle of an experience costs
the experience, any other damaged file of an unfinished run starts it again, and a finished run whose
predictions are gone is done again; each is said in a warning.

It is one file, as a run is read from its first line to its last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pluggy
import torch

from benchmark import records
from benchmark.api import LoopMethod, Method
from benchmark.data import cache_root
from benchmark.errors import BenchError, DataMissing, RunBusy, RunFailed, UsageError, warn
from benchmark.files import replace_file
from benchmark.guard import Guard, memory_is_full, said
from benchmark.records import predictions
from benchmark.run import batches, checkpoint, costs, examination, places, recording, resuming, saving, streams
from benchmark.run.adapting import StreamRunner
from benchmark.run.execution import Execution
from benchmark.run.feature_files import FeatureFiles
from benchmark.run.interruption import Interrupted, Stop
from benchmark.run.judging import judge_of
from benchmark.run.keeper import Keeper
from benchmark.run.options import HELD_OUT
from benchmark.run.preparation import Prepared
from benchmark.run.progress import Progress
from benchmark.run.seeds import derive
from benchmark.run.selection import Selection
from benchmark.run.telling import Teller
from benchmark.run.training import Trainer
from benchmark.test_time import TestTimeMethod


def execute(
    prepared: Prepared,
    out: Path,
    *,
    hooks: pluggy.PluginManager,
    quiet: bool = False,
    force: bool = False,
    stop: Stop | None = None,
) -> Path:
    """Runs one prepared run to its record, or resumes it.

    Args:
        prepared: Scenario, method, backbone and identity (`benchmark.run.preparation.prepare`).
        out: Results folder; the record goes to ``out/<scenario>/<method>/<run id>.json``.
        hooks: Life-cycle plugins.
        quiet: No progress bars.
        force: Start again even if there is a record or a checkpoint.
        stop: Asks the run to end between two steps; default: Ctrl-C and SIGTERM do.

    Returns:
        Path of the record.

    Raises:
        RunBusy: Another process is working on this run.
        Interrupted: Ctrl-C; what is finished is kept.
        RunFailed: NaN loss, full disk, ...; the last checkpoint is kept.
        PluginError: The method or a life-cycle plugin breaks its contract.
        UsageError: The method cannot run with these options of the engine.
    """
    with prepared.ranks.folder(out) as folder:
        return _execute(prepared, out, folder, hooks=hooks, quiet=quiet, force=force, stop=stop)


def _execute(
    prepared: Prepared,
    out: Path,
    folder: Path,
    *,
    hooks: pluggy.PluginManager,
    quiet: bool,
    force: bool,
    stop: Stop | None,
) -> Path:
    """The same, written into ``folder``, which is ``out`` or, in all processes of a run but the first, any other."""
    path, shared = (places.record_path(one, prepared) for one in (folder, out))
    work = path.with_suffix(".work")
    with places.locked(path) as ours:
        if ours is None:
            raise RunBusy(
                f"run {prepared.run_id} ({prepared.label}) is being worked on by another process",
                hint="wait for it, or choose another --out folder",
            )
        if force:
            shutil.rmtree(work, ignore_errors=True)
            replace_file(work / places.FORCED, b"")
        elif places.is_finished(path, **(beside := prepared.plan.beside)):
            places.sweep(path)
            return path
        elif places.is_complete(path) and not (work / places.FORCED).exists():
            warn(f"{path} is complete, but {places.missing(path, **beside)}: the run is done again")
        prepared.ranks.copied(shared.with_suffix(".work"), work)
        run = _Run(prepared, path, work, hooks, stop or Stop(), quiet, ours)
        with checkpoint.isolated(), prepared.computing.installed():
            run.go()
        return path


class _Run:
    """State of one run while it is executed."""

    def __init__(
        self,
        prepared: Prepared,
        path: Path,
        work: Path,
        hooks: pluggy.PluginManager,
        stop: Stop,
        quiet: bool,
        still_ours: Callable[[], None],
    ) -> None:
        self.prepared = prepared
        self.plan = prepared.plan
        self.path = path
        self.work = work
        self.plugins = Teller(hooks, prepared, path)
        self.stop = stop
        self.quiet = quiet
        self.still_ours = still_ours  # called before anything is written
        self.guard = Guard(f"method `{self.plan.method_spec.name}` of `{self.plan.method.entry.distribution}`")
        gigabytes = self.plan.engine.feature_cache_gb
        files = FeatureFiles(cache_root(), int(gigabytes * 1e9)) if gigabytes else None
        self.keeper = Keeper(prepared.rules, files)
        self.done = Progress()
        self.found: list[predictions.Predictions] = []  # after each finished experience
        self.started = time.perf_counter()

    @property
    def count(self) -> int:
        """Number of training experiences."""
        return len(self.prepared.stream.scenario.experiences)

    def go(self) -> None:
        costs.reset_peak_memory(self.prepared.device)
        with self.stop.installed():
            try:
                left = resuming.read(self.work, self.prepared.label)
                self.done, self.found = left.done, left.found
                self.plugins.run_started(self.done, left.middle)
                method = self._build()
                batches.check_loop(method, self.plan)
                self._select(method)
                self._restore(method, left.method)
                for index in range(first := self.done.experience, self.count):
                    self._experience(method, index, left.middle if index == first else None)
                self._test_stream(method)
                record = self._finish(method)
            except KeyboardInterrupt:
                stopped = Interrupted(
                    f"{self.prepared.label}: stopped; {self.done.experience} of {self.count} experiences are finished "
                    "and kept",
                    hint=f"resume with: {self.prepared.command}",
                )
                self._end("interrupted", stopped)
                raise stopped from None
            except BaseException as error:
                if not memory_is_full(error):
                    self._end("failed", error)
                    raise
                full = RunFailed(
                    f"{self.prepared.label}: out of memory outside of steps and predictions ({said(error)})",
                    hint="use a smaller backbone, fewer samples or another device; " + places.kept(self.work),
                )
                self._end("failed", full)
                raise full from error
        places.sweep(self.path)
        self.plugins.run_finished(record)

    def _build(self) -> Method:
        checkpoint.seed_everything(derive(self.plan.seeds["init"], "build"))
        with self.guard("build"):
            method = self.plan.method_spec.build(self.plan.method_config, self.prepared.context)
        if not isinstance(method, Method):
            raise self.guard.refuse("build", method, hint="return a benchmark.api.Method")
        asked = self.prepared.rules.asked
        if getattr(type(method), asked) is getattr(Method, asked):
            raise self.guard.refuse("build", method, hint=f"the method has no `{asked}`, which this scenario needs")
        with self.guard("to"):
            method = method.to(self.prepared.device)
        ranks = self.prepared.ranks
        method.stepper = self.prepared.computing.stepper(ranks.add if ranks.count > 1 else None)
        return method

    def _select(self, method: Method) -> None:
        """Holds images out for model selection, if there will be epochs to select from: only the method can tell.

        Raises:
            UsageError: The method has a loop of its own, or there are too few images.
        """
        select = self.plan.engine.select
        if select != "last" and isinstance(method, LoopMethod):
            raise UsageError(
                f"engine.select={select}: method `{self.plan.method_spec.name}` brings its own training loop, "
                "there are no epochs to choose from",
                hint="use --set engine.select=last",
            )
        if select in HELD_OUT:
            stream = streams.held_out(self.prepared.stream)
            self.prepared = dataclasses.replace(self.prepared, stream=stream)
        self.examiner = examination.Examiner(self.prepared, self.guard, self.keeper)

    def _restore(self, method: Method, saved: Mapping[str, Any] | None) -> None:
        """Puts the method into the state at the end of the last finished experience."""
        if saved is not None:
            with self.guard("load_extra_state"):
                checkpoint.restore(method, saved)

    def _experience(self, method: Method, index: int, middle: dict[str, Any] | None) -> None:
        """Trains one experience, evaluates, and commits it to disk."""
        scenario, guard = self.prepared.stream.scenario, self.guard
        view = self.prepared.view(scenario, index, self.prepared.context.manifest)
        experience = scenario.experiences[index]
        trainer = self._trainer()
        checkpoint.seed_everything(derive(self.plan.seeds["init"], "experience", index))
        with guard("train"):
            method.train()
        with guard("begin_experience"):
            method.begin_experience(view)
        passes = trainer.passes(method)
        if index == 0 and middle is None:
            self.done.baseline = self.examiner.baseline(method)
        self.plugins.experience_started(index, method)
        selection = Selection(judge_of(self.prepared, self.examiner, self.guard, index))
        if isinstance(method, LoopMethod):
            losses, seconds = trainer.train_loop(method, view, index)
        else:
            losses, seconds = trainer.train(method, experience, index, passes, middle, selection)
        with guard("optimizer"):
            trainable = costs.trainable(method)
        with guard("end_experience"):
            method.end_experience(view)
        view.close()
        started = time.perf_counter()
        self.keeper.keep_only(self.prepared.stream.tests)
        found = self.examiner.after(method, index)
        self.examiner.count_shortened(method, index, self.done)
        self.found.append(found)
        part = places.part(self.work, index)
        self.still_ours()
        predictions.write(part, found)
        self.done.parts.append(places.sha256(part) or "")  # gone already: noticed on resume
        self.done.eval_images += len(found)
        row = self.examiner.row(found, index)
        self.done.rows.append(row)
        self.done.losses.append(losses)
        self.done.selected.append((selection.chosen, selection.scores))
        self.done.selection_facts |= selection.facts
        self.done.train_seconds.append(seconds)
        self.done.eval_seconds.append(time.perf_counter() - started)
        self.done.trainable.append(trainable)
        with guard("kept_between_experiences"):
            self.done.storage.append(costs.storage_bytes(method))
        self.done.experience = index + 1
        peak = costs.peak_memory_bytes(self.prepared.device)
        self.done.peak_memory_bytes = max(self.done.peak_memory_bytes, peak)
        with guard("extra_state"):
            done = {**self.done.state(), "seconds": self._seconds()}
            checkpoint.save(self.work / places.BOUNDARY, {"done": done, "method": checkpoint.snapshot(method)})
        (self.work / places.MIDDLE).unlink(missing_ok=True)
        self.plugins.experience_ended(index, row, method)

    def _test_stream(self, method: Method) -> None:
        """Lets the method answer the stream of test batches, if there is one: its answers are what a run is judged by.

        What it predicted of the same images after training is the baseline.
        """
        stream = self.prepared.stream.scenario.test_stream
        if stream is None:
            return
        if not isinstance(method, TestTimeMethod):
            raise self.guard.refuse("build", method, hint="its MethodSpec says `adapts`: return a TestTimeMethod")
        self.done.baseline = [value or 0.0 for value in self.examiner.row(self.found[0], 0)]
        runner = StreamRunner(self._execution())
        self.found = [runner.run(method, stream)]

    def _trainer(self) -> Trainer:
        return Trainer(self._execution(), self.keeper, self.plugins.epoch_ended)

    def _execution(self) -> Execution:
        return Execution(
            prepared=self.prepared,
            done=self.done,
            work=self.work,
            stop=self.stop,
            guard=self.guard,
            examiner=self.examiner,
            wall=self._seconds,
            still_ours=self.still_ours,
            quiet=self.quiet,
        )

    def _seconds(self) -> float:
        """Wall time of all processes that worked on the run."""
        return self.done.seconds + time.perf_counter() - self.started

    def _finish(self, method: Method) -> dict[str, Any]:
        """Writes predictions, then the record: a record never points to a file that is not there."""
        found = predictions.concat(self.found)
        file = self.path.with_suffix(".parquet")
        self.still_ours()
        predictions.write(file, found)
        one = self.examiner.one()
        asked = self.prepared.rules.asked
        with self.guard(asked), torch.no_grad(), self.prepared.computing.forward():
            method.eval()
            forward = (
                costs.count_flops(method, lambda twin: getattr(twin, asked)(one)) if self.prepared.counting else None
            )
        total = costs.total(method)
        cost = {
            "params_total": total,
            "params_trainable": max(self.done.trainable),
            "params_trainable_per_experience": self.done.trainable,
            "params_added": total - self.prepared.pretrained.parameters - costs.pretrained_rest(method),
            "flops_forward": forward,
            "macs_forward": None if forward is None else forward // 2,
            "flops_train_step": self.done.flops_train_step,
            "storage_bytes": self.done.storage,
        }
        record = recording.build(
            self.prepared,
            status="completed",
            done=self.done,
            found=found,
            predictions_file=file,
            model=saving.keep(self.path, self.prepared, method, self.guard),
            cost=cost,
            seconds=self._seconds(),
        )
        self.still_ours()
        return records.plain(records.write(self.path, record))

    def _end(self, status: Literal["failed", "interrupted"], error: BaseException) -> None:
        """Leaves a record of what is finished and tells plugins; neither may hide the error that led here."""
        if not isinstance(error, UsageError):  # refused: there was no run
            self._write_unfinished(status)
        try:
            self.plugins.run_failed(status, error)
        except BenchError as further:
            warn(further.message)

    def _write_unfinished(self, status: str) -> None:
        """Leaves a record of what is finished, so that tables can show the run as missing.

        If it cannot be written either, the checkpoint alone is what is kept.
        """
        try:
            self.still_ours()
        except RunBusy:
            return  # what is there is another's
        with contextlib.suppress(DataMissing):  # a damaged record is replaced
            if places.is_complete(self.path):
                return  # a repetition failed: the record of the earlier execution stays
        kept_parts = self.found[: self.done.experience]
        record = recording.build(
            self.prepared,
            status=status,
            done=self.done,
            found=predictions.concat(kept_parts) if kept_parts else None,
            predictions_file=None,
            cost={
                **dict.fromkeys(costs.NAMES),
                "params_trainable_per_experience": self.done.trainable,
                "storage_bytes": self.done.storage,
            },
            seconds=self._seconds(),
        )
        with contextlib.suppress(RunFailed):
            records.write(self.path, record)
