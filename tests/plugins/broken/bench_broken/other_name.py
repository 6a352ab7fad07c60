"""Registers another name than its entry point's."""

from benchmark import MethodSpec, hookimpl
from benchmark.api import Method, MethodConfig


@hookimpl
def bench_register_methods():
    return [MethodSpec(name="something-else", build=Method, config=MethodConfig, summary="misnamed")]
