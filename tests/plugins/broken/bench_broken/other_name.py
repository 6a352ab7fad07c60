"""Registers another name than its entry point's."""

from benchmark import MethodSpec, hookimpl


@hookimpl
def bench_register_methods():
    return [MethodSpec(name="something-else", build=dict, config=dict, summary="misnamed")]
