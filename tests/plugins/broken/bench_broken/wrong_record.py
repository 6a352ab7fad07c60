"""Returns a dict where a record is due."""

from benchmark import hookimpl


@hookimpl
def bench_register_methods():
    return [{"name": "broken-record"}]
