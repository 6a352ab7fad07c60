"""slurm: runs as jobs of a Slurm cluster, through submitit (the extra ``slurm``).

A Slurm job holds a pack of runs, and is one of an array. It tells what it does in a file of the results folder, which
all machines share. Before its time is up, its runs write checkpoints, and it goes back into the queue. A job that is
gone before its runs are done (a node that failed, a job that was cancelled or killed) is submitted again, once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bench_executors.parcels import Pack, Told, World, packed, sent
from benchmark import ExecutorSpec, How, Job, Outcome, hookimpl
from benchmark.config import Range
from benchmark.errors import RunFailed, UsageError, plain, warn
from benchmark.files import cannot_write, user_path
from benchmark.jobs import threads

MOST = 1000  # jobs of an array: Slurm's own default is 1001
TRIES = 2  # of a pack whose job is gone
LOOKS = 1.0  # seconds between two looks at what jobs tell
LAST_LINES = 10
PATIENCE = 30.0  # seconds
GONE = 2  # looks at the queue in which a job is missing, so that its last words have time to arrive


@dataclass(frozen=True)
class SlurmOptions:
    """Options of the executor, ``--executor-set KEY=VALUE``.

    Attributes:
        partition: Or empty: the cluster's own.
        account: Who pays, or empty.
        qos: Quality of service, or empty.
        constraint: On nodes, e.g. ``a100``, or empty.
        walltime: Minutes of one job; unfinished runs go on after it in a new turn.
        requeue: How often a job may go back into the queue when its time is up.
        grace: Seconds before the end in which runs write checkpoints.
        cpus: Cores of a job.
        gpus: Of a job.
        mem_gb: Memory of a job in GB, or none: the cluster's own.
        pack: Runs that one job holds.
        at_once: Runs that a job does at once; they share its cores and GPUs.
        setup: Lines of shell before a job begins, with ``;`` between them, e.g. ``module load cuda``.
        sbatch: Further options of sbatch, e.g. ``reservation=school,nice=100``.
        poll: Seconds between two questions to Slurm.
        cluster: ``slurm``, or ``local``: the same on this machine, without Slurm.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    walltime: Annotated[int, Range(min=1)] = 240
    requeue: Annotated[int, Range(min=0)] = 10
    grace: Annotated[int, Range(min=1)] = 120
    cpus: Annotated[int, Range(min=1)] = 1
    gpus: Annotated[int, Range(min=0)] = 0
    mem_gb: Annotated[float | None, Range(above=0)] = None
    pack: Annotated[int, Range(min=1)] = 1
    at_once: Annotated[int, Range(min=1)] = 1
    setup: str = ""
    sbatch: tuple[str, ...] = ()
    poll: Annotated[float, Range(above=0)] = 15.0
    cluster: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        if self.at_once > self.pack:
            raise ValueError(f"at_once: {self.at_once} runs at once, but a job holds {self.pack}; raise pack")
        if self.grace >= self.walltime * 60:
            raise ValueError(f"grace: {self.grace} s are not less than the walltime of {self.walltime} min")
        if wrong := [one for one in self.sbatch if not one.partition("=")[0].strip()]:
            raise ValueError(f"sbatch: {wrong[0]!r} has no name; use e.g. reservation=school")


@dataclass
class _Flight:
    """A pack on its way.

    Attributes:
        numbers: Runs that have no outcome yet.
        told: Where its job tells what it does.
        handle: submitit's job.
        tries: How often it was submitted.
        missed: Looks in which it was not in the queue.
    """

    numbers: list[int]
    told: Told
    pack: Pack
    handle: Any = None
    tries: int = 0
    missed: int = 0


def execute(jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    """Does jobs on the cluster; ``how.workers`` runs at once, at most.

    Raises:
        UsageError: submitit or Slurm is not there, Slurm refuses, or there are more packs than an array holds.
        RunFailed: The results folder cannot be written.
    """
    if not jobs:
        return
    options: SlurmOptions = how.options
    _there(options)
    packs = packed(range(len(jobs)), options.pack)
    if len(packs) > MOST and options.cluster == "slurm":
        raise UsageError(
            f"{len(jobs)} runs are {len(packs)} Slurm jobs, an array holds {MOST}",
            hint=f"add --executor-set pack={-(-len(jobs) // MOST)}, so that one job holds several runs",
        )
    sweep = _Sweep(jobs, how, options)
    try:
        yield from sweep.go(packs)
    finally:
        sweep.end()


def _there(options: SlurmOptions) -> None:
    if importlib.util.find_spec("submitit") is None:
        raise UsageError("the executor `slurm` needs submitit", hint="pip install 'adaptbench[slurm]'")
    if options.cluster == "local":
        return
    for program in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
        if shutil.which(program) is None:
            raise UsageError(
                f"the executor `slurm` needs Slurm, and there is no `{program}` on this machine",
                hint="give the command on a login node of the cluster, or try it with --executor-set cluster=local",
            )


class _Sweep:
    """Packs on their way, and what is known of them."""

    def __init__(self, jobs: Sequence[Job], how: How, options: SlurmOptions) -> None:
        self._jobs, self._how, self._options = jobs, how, options
        self._name = f"bench-{uuid.uuid4().hex[:8]}"
        self._folder = user_path(jobs[0].out).absolute() / ".slurm" / self._name
        self._flying: list[_Flight] = []
        self._ended: list[_Flight] = []
        self._failed = False
        self._asked = 0.0
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        self._executor = self._submitit()

    def _submitit(self) -> Any:
        import submitit

        options, slurm = self._options, self._options.cluster == "slurm"
        extra = {key.strip(): value or True for key, _, value in (one.partition("=") for one in options.sbatch)}
        asked: dict[str, Any] = {
            "slurm_partition": options.partition,
            "slurm_account": options.account,
            "slurm_qos": options.qos,
            "slurm_constraint": options.constraint,
            "slurm_additional_parameters": extra,
        }
        found = submitit.AutoExecutor(
            folder=self._folder,
            cluster=options.cluster,
            slurm_max_num_timeout=options.requeue,
            local_max_num_timeout=options.requeue,
        )
        found.update_parameters(
            name=self._name,
            timeout_min=options.walltime,
            cpus_per_task=options.cpus,
            gpus_per_node=options.gpus or None,
            mem_gb=options.mem_gb,
            slurm_array_parallelism=self._at_once(),
            slurm_signal_delay_s=options.grace,
            slurm_setup=[line.strip() for line in options.setup.split(";") if line.strip()] or None,
            **{key: value for key, value in asked.items() if value and slurm},
        )
        return found

    def _at_once(self) -> int:
        """Packs at once."""
        return -(-max(1, self._how.workers) // self._options.at_once)

    def go(self, packs: list[list[int]]) -> Iterator[Outcome]:
        """Submits packs and yields what becomes of their runs."""
        waiting = deque(self._flight(numbers) for numbers in packs)
        room = len(packs) if self._options.cluster == "slurm" else self._at_once()  # the array keeps to it itself
        while waiting or self._flying:
            if new := [waiting.popleft() for _ in range(min(len(waiting), room - len(self._flying)))]:
                self._submit(new)
            for flight in list(self._flying):
                yield from self._news(flight)
                if not flight.numbers:
                    self._flying.remove(flight)
                    self._ended.append(flight)
            for flight in self._gone():
                self._flying.remove(flight)
                yield from self._news(flight)
                if flight.numbers and flight.tries < TRIES and not self._out_of_time(flight):
                    warn(f"Slurm job {flight.handle.job_id} is gone before its runs are done: they are submitted again")
                    waiting.append(flight)
                elif flight.numbers:
                    yield from self._lost(flight)
            if self._flying:
                time.sleep(LOOKS)

    def _flight(self, numbers: list[int]) -> _Flight:
        told = self._folder / f"{numbers[0]}.jsonl"
        warning = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
        parts = tuple((number, sent(self._jobs[number])) for number in numbers)
        options = self._options
        world = World.here(threads(max(1, options.cpus // options.at_once)))
        pack = Pack(parts, world, str(told), options.at_once, warning)
        return _Flight(numbers, Told(told), pack)

    def _submit(self, flights: list[_Flight]) -> None:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with self._executor.batch():
                handles = [self._executor.submit(flight.pack) for flight in flights]
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError, OSError) as error:
            raise UsageError(
                f"Slurm did not take the jobs: {plain(str(error).strip())[-500:]}",
                hint="see the options of `bench info slurm`, and `sinfo` for partitions",
            ) from error
        for flight, handle in zip(flights, handles, strict=True):
            flight.handle, flight.missed = handle, 0
            flight.tries += 1
        self._flying += flights
        self._asked = time.monotonic()

    def _news(self, flight: _Flight) -> Iterator[Outcome]:
        """What a pack has told since the last look."""
        for line in flight.told.news():
            if "warning" in line:
                warn(line["warning"])
            elif "status" not in line:
                self._how.started(self._jobs[line["number"]], f"{line['where']} ({flight.handle.job_id})")
            elif line["number"] in flight.numbers:
                flight.numbers.remove(line["number"])
                yield Outcome.of(self._jobs[line["number"]], line)

    def _gone(self) -> list[_Flight]:
        """Packs whose jobs are neither running nor going to, asked for once in a while."""
        if not self._flying or time.monotonic() - self._asked < self._options.poll:
            return []
        self._asked = time.monotonic()
        if self._options.cluster == "local":
            alive = {flight.handle.job_id for flight in self._flying if not flight.handle.done()}
        elif (found := self._queue()) is None:
            return []
        else:
            alive = found
        for flight in self._flying:
            flight.missed = 0 if flight.handle.job_id in alive else flight.missed + 1
        return [flight for flight in self._flying if flight.missed >= GONE]

    def _queue(self) -> set[str] | None:
        """Our jobs that Slurm knows and that have not ended, or None where it does not answer.

        squeue, since sacct (which submitit asks) needs a data base that not every cluster has.
        """
        asked = ["squeue", "--noheader", "--array", f"--name={self._name}", "--format=%i"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return set(done.stdout.split())

    def _out_of_time(self, flight: _Flight) -> bool:
        return "timed-out too many times" in self._words(flight, 50)

    def _lost(self, flight: _Flight) -> Iterator[Outcome]:
        self._failed = True
        job, words = flight.handle.job_id, self._words(flight, LAST_LINES)
        if self._out_of_time(flight):
            why = f"Slurm job {job} was not done after {self._options.requeue + 1} times {self._options.walltime} min"
            hint = "give the same command again, or raise walltime or requeue"
        else:
            why = f"Slurm job {job} ended before its runs, {flight.tries} times; its last lines: {words or 'none'}"
            hint = f"log: {flight.handle.paths.stderr}; the same command goes on from the last checkpoint"
        for number in flight.numbers:
            yield Outcome(job=self._jobs[number], status="failed", error=RunFailed(why, hint=hint))

    def _words(self, flight: _Flight, most: int) -> str:
        """The last lines that a job has printed."""
        lines: list[str] = []
        for path in (flight.handle.paths.stdout, flight.handle.paths.stderr):
            with contextlib.suppress(OSError):
                lines += path.read_text(encoding="utf-8", errors="replace")[-8192:].splitlines()
        return " | ".join(plain(line.strip()) for line in lines[-most:] if line.strip())

    def _has_ended(self, flight: _Flight) -> bool:
        local = self._options.cluster == "local"
        return bool(flight.handle.done() if local else flight.handle.paths.result_pickle.exists())

    def end(self) -> None:
        """Cancels what is left, which then writes checkpoints, and removes the files of a sweep that went well."""
        left = [flight.handle.job_id for flight in self._flying]
        if left and self._options.cluster == "slurm":
            warn(f"{len(left)} Slurm job(s) are cancelled; their runs write checkpoints")
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["scancel", *left], capture_output=True, timeout=60, check=False)
        elif left:
            for handle in (flight.handle for flight in self._flying):
                with contextlib.suppress(OSError):
                    os.kill(int(handle.job_id), signal.SIGTERM)  # submitit's own way is SIGKILL after a second
            for handle in (flight.handle for flight in self._flying):
                handle.wait()
        if not left and not self._failed:
            until = time.monotonic() + PATIENCE  # jobs that are done have still to end
            while time.monotonic() < until and not all(self._has_ended(one) for one in self._ended):
                time.sleep(LOOKS)
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # it is not empty
                self._folder.parent.rmdir()


@hookimpl
def bench_register_executors() -> list[ExecutorSpec]:
    """Registers the executor."""
    return [
        ExecutorSpec(
            name="slurm",
            execute=execute,
            summary="a Slurm cluster: job arrays, put back in the queue when their time is up",
            config=SlurmOptions,
        )
    ]
