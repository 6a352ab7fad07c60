"""ray: runs as tasks of a Ray cluster (the extra ``ray``), an existing one or one of its own on this machine.

Each run is a task with resources of its own. Processes of Ray live for many tasks, so that imports are paid once in
each. A run whose process or machine is lost is tried again by Ray, from its checkpoint in the results folder, which all
machines share.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import socket
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from bench_executors.parcels import World, sent
from benchmark import ExecutorSpec, How, Job, Outcome, hookimpl, registry, run_jobs
from benchmark.config import Range
from benchmark.errors import RunFailed, UsageError, plain, shorten, warn, warnings_told
from benchmark.jobs import threads

LOOKS = 0.5  # seconds between two looks at what tasks tell
PATIENCE = 60.0  # seconds in which runs that are stopped may write checkpoints
KNOCK = 10.0  # seconds in which a cluster must take a connection
PASSED_ON = ("BENCH_", "HF_", "TORCH_")  # beginnings of names of variables that runs see


@dataclass(frozen=True)
class RayOptions:
    """Options of the executor, ``--executor-set KEY=VALUE``.

    Attributes:
        address: Of a cluster, ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; empty: one of its own on this machine.
        cpus: Cores of a run.
        gpus: Of a run; a fraction where several share one.
        mem_gb: Memory that Ray sets aside for a run, in GB, or none.
        resources: Further ones of a run, e.g. ``big=1``.
        tries: How often a run is begun whose process or machine is lost.
    """

    address: str = ""
    cpus: Annotated[float, Range(above=0)] = 1.0
    gpus: Annotated[float, Range(min=0)] = 0.0
    mem_gb: Annotated[float | None, Range(above=0)] = None
    resources: tuple[str, ...] = ()
    tries: Annotated[int, Range(min=1)] = 2

    def __post_init__(self) -> None:
        self.amounts()

    def amounts(self) -> dict[str, float]:
        """The further resources."""
        found = {}
        for one in self.resources:
            name, _, amount = one.partition("=")
            try:
                found[name.strip()] = float(amount)
            except ValueError:
                raise ValueError(f"resources: {one!r} is no name and amount; use e.g. big=1") from None
        return found


# --- in the processes of Ray ----------------------------------------------------------------------

_orders: deque[Job] = deque()
_outcomes: Generator[Outcome, None, None] | None = None


def do(number: int, values: dict[str, Any], world: World, desk: Any) -> dict[str, Any]:
    """Does a run in this process, and what it comes to as plain values.

    All runs of a process are of one call of `run_jobs`, which keeps a scenario that the next one needs as well.

    Args:
        number: Of the run.
        values: Its job as `sent`.
        world: Of the process that sends it.
        desk: Is told where it begins.
    """
    global _outcomes
    desk.began.remote(number, f"{platform.node()}, process {os.getpid()}")
    if _outcomes is None:
        world.enter()
        contextlib.ExitStack().enter_context(registry.remembered())  # until the process ends
        _outcomes = run_jobs(iter(_orders.popleft, None))
    job, kept = Job.of(values), list[str]()
    _orders.append(job)
    with warnings_told(kept.append):
        try:
            outcome = next(_outcomes)
        except Exception as error:
            _outcomes = None
            trace = plain(traceback.format_exc().strip())[-500:]
            told = f"unexpected error: {type(error).__name__}: {shorten(plain(str(error)))}; trace: {trace}"
            outcome = Outcome(job=job, status="failed", error=RunFailed(told))
        except BaseException:
            _outcomes = None
            raise
    return {**outcome.as_dict(), "warnings": kept}


class Desk:
    """What tasks tell while they go on; an actor."""

    def __init__(self) -> None:
        self._news: list[tuple[int, str]] = []

    def began(self, number: int, where: str) -> None:
        """A run begins somewhere."""
        self._news.append((number, where))

    def news(self) -> list[tuple[int, str]]:
        """What has begun since the last call."""
        found, self._news = self._news, []
        return found


# --- in the process that sends them ---------------------------------------------------------------


def execute(jobs: Sequence[Job], how: How) -> Iterator[Outcome]:
    """Does jobs on the cluster, ``how.workers`` at once.

    Raises:
        UsageError: Ray is not there, there is no cluster at the address, or none of its machines has the resources.
    """
    if not jobs:
        return
    if importlib.util.find_spec("ray") is None:
        raise UsageError("the executor `ray` needs Ray", hint="pip install 'adaptbench[ray]'")
    options: RayOptions = how.options
    with _connected(options):
        sweep = _Sweep(jobs, how, options)
        try:
            yield from sweep.go()
        finally:
            sweep.end()


@contextlib.contextmanager
def _connected(options: RayOptions) -> Iterator[None]:
    """A connection to the cluster; that of a caller who has one is used and kept."""
    import ray

    if ray.is_initialized():
        yield
        return
    own = {} if options.address else {"include_dashboard": False}
    try:
        _knock(options.address)
        ray.init(address=options.address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster at {options.address or 'this machine'}: {shorten(plain(str(error).strip()))}",
            hint="`ray status` shows a cluster; without address= there is one of its own on this machine",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Asks whether anybody listens: Ray itself would try for minutes, deaf to Ctrl-C.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():  # else auto, or none
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


class _Sweep:
    """Runs on their way."""

    def __init__(self, jobs: Sequence[Job], how: How, options: RayOptions) -> None:
        import ray

        self._jobs, self._how, self._options = jobs, how, options
        self._began: dict[int, int] = {}  # how often a run has
        self._flying: dict[Any, int] = {}
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        self._world = World.here({**passed, **threads(max(1, int(options.cpus)))})
        amounts = options.amounts()
        memory = None if options.mem_gb is None else int(options.mem_gb * 2**30)
        self._check(amounts, memory)
        self._desk = ray.remote(Desk).options(num_cpus=0, max_restarts=-1, max_task_retries=0).remote()
        self._task = ray.remote(do).options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            memory=memory,
            resources=amounts or None,
            max_retries=options.tries - 1,
        )

    def _check(self, amounts: dict[str, float], memory: int | None) -> None:
        """A task that fits nowhere would wait for ever."""
        import ray

        asked = {"CPU": self._options.cpus, "GPU": self._options.gpus, **amounts}
        if memory is not None:
            asked["memory"] = memory
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in there):
            wanted = ", ".join(_said(name, amount) for name, amount in asked.items() if amount)
            most = ", ".join(_said(name, max(node.get(name, 0) for node in there)) for name in asked)
            raise UsageError(f"no machine of the Ray cluster has {wanted}", hint=f"the most of one machine: {most}")

    def go(self) -> Iterator[Outcome]:
        """Hands out runs and yields what becomes of them."""
        import ray

        waiting, most = deque(range(len(self._jobs))), max(1, self._how.workers)
        while waiting or self._flying:
            while waiting and len(self._flying) < most:
                number = waiting.popleft()
                task = self._task.remote(number, sent(self._jobs[number]), self._world, self._desk)
                self._flying[task] = number
            done, _ = ray.wait(list(self._flying), num_returns=1, timeout=LOOKS)
            self._news()
            for task in done:
                yield self._outcome(task, self._flying.pop(task))

    def _news(self) -> None:
        import ray

        try:
            news = ray.get(self._desk.news.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):  # it moves to another machine
            return
        for number, where in news:
            self._began[number] = self._began.get(number, 0) + 1
            if self._began[number] > 1:
                warn(f"{_name(self._jobs[number])}: its process was lost, it goes on in a new one ({where})")
            self._how.started(self._jobs[number], where)

    def _outcome(self, task: Any, number: int) -> Outcome:
        import ray

        job = self._jobs[number]
        try:
            values = ray.get(task)
        except ray.exceptions.RayError as error:
            why = (
                f"{_name(job)}: its process was lost, {self._options.tries} time(s): {plain(str(error).strip())[:300]}"
            )
            hint = "the same command goes on from the last checkpoint; Ray's logs are in its session folder"
            return Outcome(job=job, status="failed", label=_name(job), error=RunFailed(why, hint=hint))
        for text in values["warnings"]:
            warn(text)
        outcome = Outcome.of(job, values)
        if outcome.path is not None and not outcome.path.is_file():
            far = RunFailed(
                f"{_name(job)}: its record {outcome.path} is on another machine",
                hint="--out must be a folder that all machines of the cluster share",
            )
            return Outcome(job=job, status="failed", label=outcome.label, error=far)
        return outcome

    def end(self) -> None:
        """Stops what is left at its next step, with a checkpoint."""
        import ray

        left = list(self._flying)
        if left:
            warn(f"waiting until {len(left)} run(s) have written a checkpoint; Ctrl-C again ends them at once")
            for task in left:
                ray.cancel(task)
            ray.wait(left, num_returns=len(left), timeout=PATIENCE)
        ray.kill(self._desk)


def _said(name: str, amount: float) -> str:
    return f"{amount / 2**30:g} GB of memory" if name == "memory" else f"{amount:g} {name}"


def _name(job: Job) -> str:
    return f"{job.method} on {job.scenario}, seed {job.seed}"


@hookimpl
def bench_register_executors() -> list[ExecutorSpec]:
    """Registers the executor."""
    return [
        ExecutorSpec(name="ray", execute=execute, summary="a Ray cluster, or one on this machine", config=RayOptions)
    ]
