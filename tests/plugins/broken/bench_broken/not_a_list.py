"""Returns a record instead of a list of records."""

from benchmark import ScenarioSpec, hookimpl


@hookimpl
def bench_register_scenarios():
    return ScenarioSpec(name="broken-scenario", build=dict, config=dict, summary="", family="class-il", tracks={})
