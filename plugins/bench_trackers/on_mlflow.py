"""mlflow: an experiment per scenario and a run per run, in any store of MLflow (extra ``mlflow``).

Losses are metrics over the passes of the run, accuracies over its experiences; what the run is are parameters; the
record is kept as an artifact. A run is found again by its tag ``adaptbench.run_id``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import TrackerSpec, hookimpl
from benchmark.events import RunFailed, RunFinished, RunStarted
from benchmark.files import user_path
from benchmark.tracking import Kind, Point, Tracker, final, flat

TAG = "adaptbench.run_id"
LONGEST = 500  # characters of a parameter that every version of MLflow takes
MOST = 100  # parameters in one request


@dataclass(frozen=True)
class MlflowOptions:
    """Options of the tracker, ``--tracker-set mlflow.KEY=VALUE``.

    Attributes:
        uri: Of the store: ``http://...``, ``sqlite:///FILE``, or a folder, which is a file store; empty:
            ``MLFLOW_TRACKING_URI``, else ``tracking/mlruns``.
        experiment: Name of the experiment; empty: the scenario's.
    """

    uri: str = ""
    experiment: str = ""


class Mlflow(Tracker):
    """One run of MLflow."""

    def __init__(self, options: MlflowOptions) -> None:
        self._options = options

    def begin(self, event: RunStarted) -> Collection[tuple[Kind, int]]:
        """Makes the run, or finds it by its tag."""
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions refuse these otherwise
        from mlflow.tracking import MlflowClient

        client: Any = MlflowClient(tracking_uri=_uri(self._options.uri))
        self._client = client
        name = self._options.experiment or event.scenario
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        found = client.search_runs([experiment], f"tags.`{TAG}` = '{event.run_id}'")
        if found:
            self._run = found[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            return self._known(found[0].data.metrics)
        tags = {TAG: event.run_id}
        self._run = client.create_run(experiment, tags=tags, run_name=f"{event.method} seed {event.seed}").info.run_id
        self._describe(flat(event))
        return ()

    def write(self, point: Point) -> None:
        """One request for all values of a point."""
        self._log(point.values, point.index)

    def finish(self, event: RunFinished) -> None:
        """Final metrics and the record; the run is ``FINISHED``."""
        self._log({f"final/{name}": value for name, value in final(event.record).items()}, 0)
        self._client.log_artifact(self._run, str(event.path))
        self._client.set_terminated(self._run, status="FINISHED")

    def fail(self, event: RunFailed) -> None:
        """The run is ``KILLED`` by Ctrl-C, else ``FAILED``; a tag says why."""
        self._client.set_tag(self._run, "adaptbench.end", event.error[:LONGEST])
        self._client.set_terminated(self._run, status="KILLED" if event.status == "interrupted" else "FAILED")

    def _known(self, metrics: Mapping[str, float]) -> set[tuple[Kind, int]]:
        known: set[tuple[Kind, int]] = set()
        for name in metrics:
            kind: Kind | None = "epoch" if name.startswith("loss/") else None
            kind = "experience" if name == "average_accuracy" else kind
            if kind is not None:
                known |= {(kind, one.step) for one in self._client.get_metric_history(self._run, name)}
        return known

    def _describe(self, facts: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        told = [Param(_name(name), str(value)[:LONGEST]) for name, value in facts.items()]
        for first in range(0, len(told), MOST):
            self._client.log_batch(self._run, params=told[first : first + MOST])

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(_name(name), one, now, step) for name, one in values.items()])


def _uri(asked: str) -> str:
    """Where runs are kept, as MLflow names it."""
    where = asked or os.environ.get("MLFLOW_TRACKING_URI", "") or "tracking/mlruns"
    if "://" in where or where.startswith(("file:", "databricks")):
        return where
    folder: Path = user_path(where).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


def _name(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w.\-/ ]", "_", name)


@hookimpl
def bench_register_trackers() -> list[TrackerSpec]:
    """Returns the tracker."""
    return [
        TrackerSpec(
            name="mlflow",
            open=Mlflow,
            summary="runs of MLflow, in a folder, a database or on a server: metrics, parameters, the record",
            config=MlflowOptions,
            needs="mlflow",
            install="pip install adaptbench[mlflow]",
        )
    ]
