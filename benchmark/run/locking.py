"""Locks of scenarios as they are built here, and what a run takes from a lock (`benchmark.locks`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from benchmark import config as configs
from benchmark import registry
from benchmark.errors import UsageError
from benchmark.locks import Lock, lock_of
from benchmark.registry import Loaded
from benchmark.run.plan import track_of
from benchmark.run.preparation import make_scenario
from benchmark.scenario_names import ScenarioName, base_of
from benchmark.specs import ScenarioSpec


def make(loaded: Loaded, config: Any, places: Mapping[str, Any], *, track: str | None, seed: int) -> Lock:
    """The lock of a scenario. It is built twice: where another seed gives the same split, the lock names none.

    Args:
        loaded: Its plugin.
        config: Its options.
        places: As `benchmark.run.preparation.make_scenario` takes them.
        track: Whose preset is locked; None for the scenario's first.
        seed: Class-order seed.

    Raises:
        DataMissing: Its data are absent or damaged.
        UsageError: An option does not fit the data, or there is no such track.
        PluginError: The scenario fails.
    """
    spec = cast("ScenarioSpec", loaded.spec)
    track = track_of(track, spec)
    scenario = make_scenario(loaded, config, places, seed=seed)
    other = make_scenario(loaded, config, places, seed=seed + 1)
    variant = f"/{getattr(config, spec.variant)}" if spec.variant else ""
    return lock_of(
        scenario,
        name=spec.name + variant,
        track=track,
        preset=spec.tracks[track],
        options=configs.as_dict(config),
        seed=None if other.fingerprint == scenario.fingerprint else seed,
    )


# --- what `bench run --lock` takes from a lock ----------------------------------------------------


def scenario_of(lock: Lock, asked: str | tuple[str, ...] | None) -> str:
    """The scenario of a run on a lock.

    Args:
        lock: It.
        asked: ``--scenario``, if it was given.

    Raises:
        UsageError: Another one was asked for, or the lock is of data of the user's own and does not know where.
    """
    own = ScenarioName.parse(lock.scenario)
    if not asked:
        if _spec(lock).tag:
            raise UsageError(
                f"the lock {lock.id} is of somebody's own data: where are they?",
                hint=f"add --scenario {own.base}:{_spec(lock).tag}",
            )
        return lock.scenario
    given = ScenarioName.parse(asked if isinstance(asked, str) else ",".join(asked))
    if given.base != own.base and given.base not in _spec(lock).aliases:
        raise UsageError(
            f"the lock {lock.id} is of scenario `{own.base}`, not of `{given.base}`",
            hint="leave --scenario out, or give another lock",
        )
    return asked if isinstance(asked, str) and (given.tag or given.variant) else lock.scenario


def settings_of(lock: Lock, name: str, given: Mapping[str, str]) -> dict[str, str]:
    """The options of the lock that are not the scenario's defaults, as ``--set`` takes them.

    Args:
        lock: It.
        name: The scenario as it is run.
        given: ``--set`` of the user, which win; then the data are compared all the same.
    """
    spec = _spec(lock)
    default = dataclasses.asdict(spec.config())
    named = {spec.variant} if ScenarioName.parse(name).variant else set()
    return {
        f"scenario.{option}": configs.as_text(value)
        for option, value in lock.options.items()
        if option not in named
        and option not in given
        and (option not in default or configs.as_text(default[option]) != configs.as_text(value))
    }


def _spec(lock: Lock) -> ScenarioSpec:
    return cast("ScenarioSpec", registry.load_scenario(base_of(lock.scenario)).spec)
