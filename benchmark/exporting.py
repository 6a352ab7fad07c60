"""Tables as text in the format of an exporter, which is a plugin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from benchmark import registry
from benchmark.errors import did_you_mean
from benchmark.guard import Guard
from benchmark.specs import ExporterSpec
from benchmark.tables import Table


def exporter(name: str, *, others: Sequence[str] = ()) -> Callable[[list[Table]], str]:
    """What turns tables into text, its answers checked.

    Args:
        name: Of the exporter.
        others: Names of formats that the caller has itself, for the message.

    Raises:
        UsageError: There is no such exporter.
        PluginError: It cannot be loaded; or, later, it fails or returns no text.
    """
    known = registry.names("exporters")
    if name not in known:
        raise did_you_mean("format", name, [*others, *known])
    loaded = registry.load("exporters", name)
    spec = cast("ExporterSpec", loaded.spec)
    guard = Guard(f"exporter `{name}` of `{loaded.entry.distribution}`", hint=f"-v shows where; bench check {name}")

    def export(tables: list[Table]) -> str:
        with guard("export"):
            text = spec.export(tables)
        if not isinstance(text, str):
            raise guard.refuse("export", text, hint="return text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise guard.refuse("export", text, hint=f"return text that is Unicode: {error.reason}") from error
        return text

    return export
