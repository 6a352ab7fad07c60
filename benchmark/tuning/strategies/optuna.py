"""Optuna's tree-structured Parzen estimators (Akiba et al., 2019); needs the extra ``tune``."""

from __future__ import annotations

from typing import Any

from benchmark.errors import UsageError
from benchmark.tuning.axes import Axis, Point, is_number
from benchmark.tuning.strategies import Question
from benchmark.tuning.trials import Trial, key

try:
    import optuna
except ModuleNotFoundError as error:
    raise UsageError(
        "--strategy optuna: Optuna is not installed", hint="pip install adaptbench[tune], or --strategy random"
    ) from error

_REPEATS = 20  # draws in a row that were there before: the axes hold no more points


def choose(asked: Question) -> list[Point]:
    """As many points as are tried side by side.

    The study is made anew from the trials, so that what was stopped goes on; the sampler is seeded with the number of
    trials, too.
    """
    tried = {trial.key for trial in asked.trials}
    if asked.start and key(asked.start) not in tried:
        return [asked.start]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=asked.seed + len(asked.trials))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = {axis.key: _distribution(axis) for axis in asked.axes}
    for trial in asked.trials:
        if all(_holds(axis, trial.point[axis.key]) for axis in asked.axes):
            study.add_trial(_as_optuna(trial, space, asked.axes))
    found: list[Point] = []
    repeats = 0
    while len(found) < min(asked.count, asked.at_once) and repeats < _REPEATS:
        drawn = study.ask(space).params
        point = {axis.key: _value(axis, drawn[axis.key]) for axis in asked.axes}
        repeats += 1
        if key(point) not in tried:
            tried.add(key(point))
            found.append(point)
            repeats = 0
    return found


def _distribution(axis: Axis) -> Any:
    if axis.values:  # by number: Optuna takes no lists as choices
        return optuna.distributions.CategoricalDistribution(tuple(range(len(axis.values))))
    if axis.whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(axis: Axis, drawn: Any) -> Any:
    return axis.values[drawn] if axis.values else axis.rounded(drawn)


def _holds(axis: Axis, value: Any) -> bool:
    """Whether Optuna can be told of a value: that in force, or one of a wider search, may lie outside."""
    return value in axis.values if axis.values else is_number(value) and bool(axis.low <= value <= axis.high)


def _as_optuna(trial: Trial, space: dict[str, Any], axes: Any) -> Any:
    states = optuna.trial.TrialState
    params = {
        axis.key: axis.values.index(trial.point[axis.key]) if axis.values else trial.point[axis.key] for axis in axes
    }
    failed = trial.value is None
    return optuna.trial.create_trial(
        state=states.FAIL if failed else states.COMPLETE, params=params, distributions=space, value=trial.value
    )
