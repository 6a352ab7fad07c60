"""Where the values of options come from: ``--set``, configuration files, and what a stream demands of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from benchmark import config as configs
from benchmark import families, registry
from benchmark.arrival import ArrivalConfig, demands
from benchmark.errors import UsageError, did_you_mean
from benchmark.jobs import Job
from benchmark.specs import MethodSpec, ScenarioSpec


def grouped(settings: Mapping[str, str], method: MethodSpec, scenario: ScenarioSpec) -> dict[str, dict[str, str]]:
    """Sorts ``--set`` keys into groups: ``engine.x``, ``scenario.x``, ``l2p.x`` (that method only), ``x``.

    Full keys, as ``--dry-run`` and messages have them, are the same: ``method.l2p.x``, ``scenario.split-cifar.x``.
    A bare key is the method's; one that only the scenario has is the scenario's.
    """
    own, other = ({part.name for part in fields(spec.config)} for spec in (method, scenario))
    other |= _arrival_names(scenario)
    groups: dict[str, dict[str, str]] = {"scenario": {}, "method": {}, "engine": {}}
    for key, value in settings.items():
        prefix, dot, name = key.partition(".")
        owner, full, last = name.partition(".")
        if full and prefix == "method" and owner in registry.names("methods"):
            groups[prefix] |= {last: value} if owner == method.name else {}
        elif full and prefix == "scenario" and owner in registry.names("scenarios"):
            groups[prefix] |= {last: value} if owner == scenario.name else {}
        elif not dot:
            groups["scenario" if key in other - own else "method"][key] = value
        elif prefix in groups:
            groups[prefix][name] = value
        elif prefix == method.name:
            groups["method"][name] = value
        elif prefix not in registry.names("methods"):
            raise did_you_mean("group in --set", prefix, ["engine", "scenario", "method", *registry.names("methods")])
    return groups


def _arrival_names(scenario: ScenarioSpec) -> set[str]:
    """Options that a scenario has because its classes grow and wait for their experience."""
    if not families.get(scenario.family).waits:
        return set()
    return {part.name for part in fields(ArrivalConfig)} - {part.name for part in fields(scenario.config)}


def arrival(
    layers: Sequence[configs.Layer], scenario: ScenarioSpec
) -> tuple[ArrivalConfig, dict[str, str], list[configs.Layer]]:
    """How the samples of a stream arrive, the origins of these options, and the layers without them.

    Raises:
        UsageError: A value is not possible.
    """
    names = _arrival_names(scenario)
    own, rest = (
        [configs.Layer(layer.origin, {key: layer.values[key] for key in layer.values if keep(key)}) for layer in layers]
        for keep in (names.__contains__, lambda key: key not in names)
    )
    found, origin = configs.resolve(ArrivalConfig, own, key=f"scenario.{scenario.name}")
    return found, {name: origin[name] for name in names}, rest


def demanded(method: MethodSpec, config: Any, how: ArrivalConfig) -> configs.Layer:
    """The values of a method's options that a stream demands; none of an upper bound, which is trained as always."""
    values = demands(how, config.epochs) if method.stream == "sequential" else {}
    return configs.Layer(f"scenario.stream={how.stream}", values)


def file_layers(job: Job, group: str, names: set[str]) -> list[configs.Layer]:
    """The values of a configuration file for a scenario or method of one of these names."""
    tables = job.tables.get(group, {})
    return [configs.Layer(job.tables_from, tables[name]) for name in sorted(names) if name in tables]


def part_options(
    config: type | None, what: str, name: str, layers: Sequence[configs.Layer]
) -> tuple[Any, dict[str, str]]:
    """Options of an executor or a tracker: an object of its class of options, or None, and the origin of each value.

    Args:
        config: The class; None where there are none.
        what: ``executor`` or ``tracker``.
        name: Its name.
        layers: Values, those that win last.

    Raises:
        UsageError: There is no such option or value.
    """
    if config is not None:
        return configs.resolve(config, layers, key=f"{what}.{name}")
    for layer in layers:
        for key in layer.values:
            raise UsageError(f"{what} `{name}` has no option `{key}`: it has none", hint="leave it out")
    return None, {}


def check_file(job: Job) -> None:
    """Looks at the tables of a configuration file.

    Raises:
        UsageError: One is not known, or is no table.
    """
    allowed = {"run", "engine", "scenario", "method"}
    for name, table in job.tables.items():
        if name not in allowed:
            error = did_you_mean("table", f"[{name}]", [f"[{item}]" for item in sorted(allowed)])
            raise UsageError(f"{job.tables_from}: {error.message}", hint=error.hint)
        if not isinstance(table, Mapping):
            raise UsageError(f"{job.tables_from}: `{name}` is not a table", hint=f"write [{name}] on its own line")
        if name in ("scenario", "method"):
            known = registry.names("scenarios" if name == "scenario" else "methods")
            for plugin, options in table.items():
                if plugin not in known:
                    error = did_you_mean(name, plugin, known)
                    raise UsageError(f"{job.tables_from}: [{name}.{plugin}]: {error.message}", hint=error.hint)
                if not isinstance(options, Mapping):
                    raise UsageError(
                        f"{job.tables_from}: {name}.{plugin} is not a table", hint=f"write [{name}.{plugin}]"
                    )
