"""Every hook of adaptbench. There is no hook outside this file.

Registration hooks return frozen records (`benchmark.specs`); they are called on one plugin at a
time by the registry. Life-cycle hooks are called for every plugin of the entry-point group
``bench`` and for ``-p FILE.py`` plugins, in the order of their names.

A plugin names only the arguments it needs; pluggy passes those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from benchmark.api import Method
    from benchmark.specs import ExporterSpec, MethodSpec, RunFinished, ScenarioSpec

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
def bench_before_task(run_id: str, experience: int, method: Method) -> None:
    """Called before the first training step of an experience (group ``bench``).

    Example::

        @hookimpl
        def bench_before_task(run_id: str, experience: int) -> None:
            print(f"{run_id}: experience {experience} begins")

    .. versionadded:: 0.1
    """


@hookspec
def bench_after_task(run_id: str, experience: int, accuracies: list[float | None]) -> None:
    """Called after an experience was trained and evaluated (group ``bench``).

    Args:
        run_id: Identity of the run.
        experience: Index of the experience, from 0.
        accuracies: Row of the accuracy matrix, fractions in [0, 1]; None where not evaluated.

    .. versionadded:: 0.1
    """


@hookspec
def bench_run_finished(result: RunFinished) -> None:
    """Called once the record of a completed run is on disk (group ``bench``).

    Example::

        @hookimpl
        def bench_run_finished(result: RunFinished) -> None:
            upload(result.path)

    .. versionadded:: 0.1
    """
