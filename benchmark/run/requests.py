"""Lists of scenarios, methods, seeds and options, as people name them, to jobs: for the command line and for Python."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmark import registry
from benchmark.errors import UsageError, shorten
from benchmark.jobs import Job
from benchmark.run.jobs import expand, parse_seeds
from benchmark.scenario_names import base_of

Names = str | Sequence[str]
"""Names with commas between them, or a list of names."""
Seeds = int | str | Sequence[int | str]
"""``0``, ``"0-4"``, or a list of such."""


def jobs_of(
    common: Job,
    *,
    scenarios: Names,
    methods: Names,
    seeds: Seeds,
    class_order_seeds: Seeds | None = None,
    init_seeds: Seeds | None = None,
    data_seeds: Seeds | None = None,
    grid: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[list[Job], list[Mapping[str, str]]]:
    """Every combination, by scenario, then seed, then method, then options.

    Args:
        common: What all have in common; its scenario and method do not count.
        scenarios: A family stands for its variants (`benchmark.run.jobs.expand`).
        methods: With or without recipe.
        seeds: Of the runs.
        class_order_seeds: Of the class order alone; None: as the run's.
        init_seeds: Of the initialisation alone.
        data_seeds: Of the data order alone.
        grid: Options that differ, each with its values; those of another method are left out.

    Returns:
        The jobs, and for each the options of the grid that it has.

    Raises:
        UsageError: A name or a seed that cannot be read.
    """
    grid = grid or {}
    names = _names(methods)
    points = {method: _points(grid, method) for method in names}
    expanded = expand(_scenarios(scenarios), {**common.settings, **dict.fromkeys(grid, "")}, common.tables)
    apart = (("class-order", class_order_seeds), ("init", init_seeds), ("data", data_seeds))
    owns: list[tuple[int | None, ...]] = list(
        itertools.product(*([None] if t is None else parse_seeds(t, f"--{name}-seed") for name, t in apart))
    )
    every = [
        (scenario, seed, own, method, point)
        for scenario, seed, own, method in itertools.product(expanded, parse_seeds(seeds), owns, names)
        for point in points[method]
    ]
    found = [
        replace(
            common,
            scenario=scenario,
            method=method,
            seed=seed,
            class_order_seed=own[0],
            init_seed=own[1],
            data_seed=own[2],
            settings={**common.settings, **point},
        )
        for scenario, seed, own, method, point in every
    ]
    return found, [point for *_, point in every]


def _points(grid: Mapping[str, tuple[str, ...]], method: str) -> list[dict[str, str]]:
    """Every combination of the options that reach a method; those of another method are left out."""
    others = set(registry.names("methods")) - {method.partition("@")[0]}
    own = {key: values for key, values in grid.items() if key.removeprefix("method.").rpartition(".")[0] not in others}
    return [dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())]


def _names(value: Names) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    return list(dict.fromkeys(item.strip() for item in items if item.strip()))


def _scenarios(value: Names) -> list[str]:
    """Names of scenarios; a number behind a comma goes on with the variant before it, as in ``name/50,30,20``.

    What is no scenario goes on with the path before it.

    Raises:
        UsageError: A word behind the comma of a variant is no scenario.
    """
    found: list[str] = []
    for name in _names(value) if not isinstance(value, str) else (word.strip() for word in value.split(",")):
        before = found[-1] if found else ""
        if "/" in before and name.isdecimal():
            found[-1] += f",{name}"
        elif ":" in before and base_of(name) not in registry.names("scenarios"):
            found[-1] += f",{name}"  # of a path
        elif "/" in before and name and base_of(name) not in registry.names("scenarios"):
            raise UsageError(
                f"`{shorten(name)}` behind the comma of `{shorten(before)}` is not a scenario",
                hint="a comma separates scenarios; give a variant that holds commas as an option, "
                "e.g. --set scenario.order=a,b,c",
            )
        elif name:
            found.append(name)
    return list(dict.fromkeys(found))
