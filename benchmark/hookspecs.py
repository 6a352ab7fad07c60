"""Every hook of adaptbench. There is no hook outside this file.

Registration hooks return frozen records (`benchmark.specs`); they are called on one plugin at a
time by the registry. Life-cycle hooks are called for every plugin of the entry-point group
``bench`` and for ``-p FILE.py`` plugins, in the order of their names, each with one record (`benchmark.events`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from benchmark.events import EpochEnded, ExperienceEnded, ExperienceStarted, RunFailed, RunFinished, RunStarted
    from benchmark.families import Family
    from benchmark.inputs.presets import InputPreset
    from benchmark.specs import (
        BackboneSpec,
        ExecutorSpec,
        ExporterSpec,
        ImporterSpec,
        MethodSpec,
        MetricSpec,
        PlotSpec,
        ProtocolSpec,
        ScenarioSpec,
        TrackerSpec,
    )
    from benchmark.tracks import Track

hookspec = pluggy.HookspecMarker("bench")
hookimpl = pluggy.HookimplMarker("bench")


@hookspec
def bench_register_methods() -> list[MethodSpec]:  # type: ignore[empty-body]
    """Returns the methods of this plugin (entry-point group ``bench.methods``).

    Example::

        @hookimpl
        def bench_register_methods() -> list[MethodSpec]:
            return [MethodSpec(name="mine", build=Mine, config=MineConfig, summary="my method")]

    .. versionadded:: 0.1
    """


@hookspec
def bench_register_scenarios() -> list[ScenarioSpec]:  # type: ignore[empty-body]
    """Returns the scenarios of this plugin (entry-point group ``bench.scenarios``).

    Example::

        @hookimpl
        def bench_register_scenarios() -> list[ScenarioSpec]:
            return [ScenarioSpec(name="my-stream", build=build, config=MyConfig,
                                 summary="...", family="class-il", tracks={"mini": "plain"})]

    .. versionadded:: 0.1
    """


@hookspec
def bench_register_exporters() -> list[ExporterSpec]:  # type: ignore[empty-body]
    """Returns the table formats of this plugin (entry-point group ``bench.exporters``).

    Example::

        @hookimpl
        def bench_register_exporters() -> list[ExporterSpec]:
            return [ExporterSpec(name="rst", export=to_rst, summary="reStructuredText")]

    .. versionadded:: 0.1
    """


@hookspec
def bench_register_importers() -> list[ImporterSpec]:  # type: ignore[empty-body]
    """Returns the formats of other suites' results that this plugin reads (entry-point group ``bench.importers``).

    Example::

        @hookimpl
        def bench_register_importers() -> list[ImporterSpec]:
            return [ImporterSpec(name="their-suite", read=read, suite="TheirSuite", files="scores.csv",
                                 summary="one run per file")]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_backbones() -> list[BackboneSpec]:  # type: ignore[empty-body]
    """Returns the pretrained models of this plugin (entry-point group ``bench.backbones``).

    A record is one model, or a library whose models are called ``name:TAG``.

    Example::

        @hookimpl
        def bench_register_backbones() -> list[BackboneSpec]:
            return [BackboneSpec(name="my-vit", load=load, summary="a ViT trained on butterflies")]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_tracks() -> list[Track]:  # type: ignore[empty-body]
    """Returns the tracks of this plugin (entry-point group ``bench.tracks``).

    Example::

        @hookimpl
        def bench_register_tracks() -> list[Track]:
            return [Track(name="field", backbone="my-vit", summary="photographs from camera traps")]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_presets() -> list[InputPreset]:  # type: ignore[empty-body]
    """Returns the input presets of this plugin (entry-point group ``bench.presets``).

    A scenario names one for each track that it is offered on.

    Example::

        @hookimpl
        def bench_register_presets() -> list[InputPreset]:
            return [InputPreset(name="mirror", train="none", flip=True)]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_families() -> list[Family]:  # type: ignore[empty-body]
    """Returns the families of scenarios of this plugin (entry-point group ``bench.families``).

    Records of runs keep what tables need of a family, so that their tables need no plugin.

    Example::

        @hookimpl
        def bench_register_families() -> list[Family]:
            return [Family(name="noise-il", summary="the same classes under more and more noise",
                           stream=True, domains=True)]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_metrics() -> list[MetricSpec]:  # type: ignore[empty-body]
    """Returns the metrics of this plugin (entry-point group ``bench.metrics``); all are computed for every run.

    Example::

        @hookimpl
        def bench_register_metrics() -> list[MetricSpec]:
            return [MetricSpec(name="median_acc", heading="Median (%)", summary="median over test sets",
                               compute=lambda accuracy: float(np.median(accuracy[-1])))]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_plots() -> list[PlotSpec]:  # type: ignore[empty-body]
    """Returns the figures of this plugin (entry-point group ``bench.plots``).

    Example::

        @hookimpl
        def bench_register_plots() -> list[PlotSpec]:
            return [PlotSpec(name="losses", draw=draw, summary="training losses of each experience")]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_executors() -> list[ExecutorSpec]:  # type: ignore[empty-body]
    """Returns the executors of this plugin (entry-point group ``bench.executors``).

    Example::

        @hookimpl
        def bench_register_executors() -> list[ExecutorSpec]:
            return [ExecutorSpec(name="cluster", execute=submit, summary="one job of the queue per run")]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_protocols() -> list[ProtocolSpec]:  # type: ignore[empty-body]
    """Returns the protocols of this plugin by which options are chosen (entry-point group ``bench.protocols``).

    Example::

        @hookimpl
        def bench_register_protocols() -> list[ProtocolSpec]:
            return [ProtocolSpec(name="ours", summary="ten draws", family="uda", budget=10,
                                 axes={"lr": Range(log=True, search=(1e-5, 1e-2))})]

    .. versionadded:: 0.2
    """


@hookspec
def bench_register_trackers() -> list[TrackerSpec]:  # type: ignore[empty-body]
    """Returns the experiment trackers of this plugin (entry-point group ``bench.trackers``).

    Example::

        @hookimpl
        def bench_register_trackers() -> list[TrackerSpec]:
            return [TrackerSpec(name="ours", open=lambda options: Ours(), summary="curves for our server")]

    .. versionadded:: 0.2
    """


@hookspec
def bench_run_started(event: RunStarted) -> None:
    """Called when a run begins or is taken up again (group ``bench``).

    Example::

        @hookimpl
        def bench_run_started(event: RunStarted) -> None:
            tracker.open(event.run_id, event.method, event.scenario)

    .. versionadded:: 0.1
    """


@hookspec
def bench_experience_started(event: ExperienceStarted) -> None:
    """Called before the first training step of an experience (group ``bench``).

    Example::

        @hookimpl
        def bench_experience_started(event: ExperienceStarted) -> None:
            print(f"{event.run_id}: experience {event.experience} begins")

    .. versionadded:: 0.1
    """


@hookspec
def bench_epoch_ended(event: EpochEnded) -> None:
    """Called after every pass over the training images of an experience (group ``bench``).

    Example::

        @hookimpl
        def bench_epoch_ended(event: EpochEnded) -> None:
            tracker.log(event.losses, step=event.epoch)

    .. versionadded:: 0.1
    """


@hookspec
def bench_experience_ended(event: ExperienceEnded) -> None:
    """Called after an experience was trained, evaluated and written to disk (group ``bench``).

    Example::

        @hookimpl
        def bench_experience_ended(event: ExperienceEnded) -> None:
            print(f"after {event.experience}: {event.accuracies}")

    .. versionadded:: 0.1
    """


@hookspec
def bench_run_finished(event: RunFinished) -> None:
    """Called once the record of a completed run is on disk (group ``bench``).

    Example::

        @hookimpl
        def bench_run_finished(event: RunFinished) -> None:
            upload(event.path)

    .. versionadded:: 0.1
    """


@hookspec
def bench_run_failed(event: RunFailed) -> None:
    """Called when a run ends before its last experience, by an error or by Ctrl-C (group ``bench``).

    Example::

        @hookimpl
        def bench_run_failed(event: RunFailed) -> None:
            notify(f"{event.run_id} {event.status}: {event.error}")

    .. versionadded:: 0.1
    """
