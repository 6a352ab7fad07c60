"""Misspells a hook."""

from benchmark import hookimpl


@hookimpl
def bench_register_method():
    return []
