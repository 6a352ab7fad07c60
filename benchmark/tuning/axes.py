"""What is searched: one axis for each option, from what the option declares and what the user narrows."""

from __future__ import annotations

import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmark.config import Range, as_text, coerce, ranges
from benchmark.errors import UsageError, did_you_mean

Point = Mapping[str, Any]
"""Values of options by their keys, plain ones that JSON holds."""

DIGITS = 3  # of a value that was drawn: more say nothing, and nobody copies them
_LADDERS = ((1,), (1, 3), (1, 2, 5))
_COARSE = 5  # steps of an axis without factors, where a grid is asked for and only its ends are given


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One option and its possible values.

    Attributes:
        key: As in ``--set``.
        values: Those to try, where they are listed; a single one is a constant of the search.
        low: Smallest value to draw, of an axis that is no list.
        high: Largest one.
        log: Whether factors count, not differences.
        whole: Whether values are whole numbers.
        limits: What the option may be at all; a grid grows no further.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False
    limits: Range = field(default_factory=Range)

    @property
    def grows(self) -> bool:
        """Whether it is a list of several numbers, which a grid may go on with."""
        return len(self.values) > 1 and all(is_number(value) for value in self.values)

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1) of the way from its first to its last value."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.log:
            found = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + share * (self.high - self.low)
        return self.rounded(found)

    def rounded(self, value: float) -> Any:
        """A value that was computed as one of this option: whole, or of few digits, and never past the ends."""
        if self.whole:
            return round(value)
        short = float(f"{value:.{DIGITS}g}")
        return short if math.isnan(self.low) else min(max(short, self.low), self.high)

    def listed(self) -> Axis:
        """The same as a list of values, for a grid: 1, 3, 10, ... where factors count, else even steps."""
        if self.values:
            return self
        steps: list[float] = []
        if self.log:
            first, last = (math.floor(math.log10(end)) for end in (self.low, self.high))
            rungs = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 3)]
            steps = [rung for rung in rungs if self.low <= rung * (1 + 1e-9) and rung <= self.high * (1 + 1e-9)]
        if len(steps) < 3:
            shares = [step / (_COARSE - 1) for step in range(_COARSE)]
            return replace(self, values=tuple(dict.fromkeys(self.at(share) for share in shares)))
        return replace(self, values=tuple(dict.fromkeys(self.rounded(step) for step in steps)))

    def beyond(self, known: Sequence[float], *, up: bool) -> Any | None:
        """The next value past those that are known, or None where the option may not be that.

        Where factors count, values that are 1, 3, 10, ... (or 1, 10, 100, ..., or 1, 2, 5, ...) go on so; others by
        the factor between the outer two. Elsewhere it is the distance between these.

        Args:
            known: Two or more numbers.
            up: Whether past the largest, else past the smallest.
        """
        ordered = sorted(known, reverse=not up)
        before, edge = ordered[-2:]
        if not self.log or edge <= 0 or before <= 0:
            found: Any = edge + (edge - before)
        elif (rung := _next_rung(ordered, up=up)) is not None:
            found = rung
        else:
            found = float(f"{edge * edge / before:.2g}")
        if self.whole:
            found = round(found)
            if found == edge:  # factors of small numbers
                found += 1 if up else -1
        elif not self.log:
            found = float(f"{found:.6g}")
        return None if self.limits.problem(found) is not None else found


def _next_rung(ordered: Sequence[float], *, up: bool) -> float | None:
    """The next value of the first ladder that holds all of these one after the other, or None."""
    for digits in _LADDERS:
        places = [_place(value, digits) for value in ordered]
        pairs = itertools.pairwise(places)
        steps = {None if one is None or other is None else other - one for one, other in pairs}
        last = places[-1]
        if last is not None and steps == {1 if up else -1}:
            power, rung = divmod(last + (1 if up else -1), len(digits))
            return float(f"{digits[rung]}e{power}")
    return None


def _place(value: float, digits: Sequence[int]) -> int | None:
    """Number of a value on a ladder, counted from 1, or None."""
    mantissa, _, power = f"{value:.12e}".partition("e")
    return int(power) * len(digits) + digits.index(int(float(mantissa))) if float(mantissa) in digits else None


def is_number(value: object) -> bool:
    """Whether it is a number, and not a yes or no."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def axes(
    config: type, *, chosen: Mapping[str, str], listed: Mapping[str, Sequence[str]], key: str, prefix: str = ""
) -> list[Axis]:
    """The axes of a class of options.

    Args:
        config: The options.
        chosen: ``--range``: ``LOW..HIGH`` by field.
        listed: ``--grid``: values by field, as text.
        key: What messages call the options, e.g. ``method.l2p``.
        prefix: Of the keys of the axes, e.g. ``engine.``.

    Raises:
        UsageError: An option that there is not, or values that it may not have.
    """
    declared = ranges(config)
    hints = typing.get_type_hints(config)
    for name in [*chosen, *listed]:
        if name not in hints:
            error = did_you_mean("option", f"{key}.{name}", [f"{key}.{field}" for field in hints])
            raise UsageError(f"{'--range' if name in chosen else '--grid'}: {error.message}", hint=error.hint)
    found = []
    for name, hint in hints.items():
        limits = declared.get(name, Range())
        whole = _kind(hint) is int
        axis = Axis(key=prefix + name, log=limits.log, whole=whole, limits=limits)
        if name in listed:
            where = f"--grid {prefix}{name}"
            values = [coerce(text, hint, where=where) for text in listed[name]]
            for value in values:
                if is_number(value) and (problem := limits.problem(value)) is not None:
                    raise UsageError(f"{where}: {value} is {problem}")
            found.append(replace(axis, values=tuple(dict.fromkeys(map(plain, values)))))
        elif name in chosen:
            found.append(_narrowed(axis, chosen[name], hint))
    return found


def declared(config: type, *, but: typing.Container[str]) -> list[Axis]:
    """The axes that options declare (`benchmark.config.Range.search`), without some."""
    hints = typing.get_type_hints(config)
    return [
        Axis(
            key=name,
            low=(_kind(hints[name]) or float)(limits.search[0]),
            high=(_kind(hints[name]) or float)(limits.search[1]),
            log=limits.log,
            whole=_kind(hints[name]) is int,
            limits=limits,
        )
        for name, limits in ranges(config).items()
        if limits.search is not None and name not in but
    ]


def prescribed(
    config: type, wanted: Mapping[str, Range | tuple[object, ...]], *, but: typing.Container[str]
) -> list[Axis]:
    """The axes that a protocol names, of the options that there are, without some.

    Raises:
        UsageError: A value is not possible.
    """
    declared, hints, found = ranges(config), typing.get_type_hints(config), []
    for name in (name for name in wanted if name in hints and name not in but):
        asked, limits = wanted[name], declared.get(name, Range())
        if isinstance(asked, Range) and asked.search is not None:
            kind = _kind(hints[name]) or float
            low, high = (kind(end) for end in asked.search)
            found.append(Axis(key=name, low=low, high=high, log=asked.log, whole=kind is int, limits=limits))
        elif isinstance(asked, tuple):
            values = tuple(plain(coerce(value, hints[name], where=name)) for value in asked)
            found.append(Axis(key=name, values=values, log=limits.log, limits=limits))
    return found


def _narrowed(axis: Axis, text: str, hint: Any) -> Axis:
    where = f"--range {axis.key}"
    first, dots, last = text.partition("..")
    if _kind(hint) is None:
        raise UsageError(f"{where}: no number", hint=f"list its values: --grid {axis.key}=A,B")
    if not dots:
        raise UsageError(f"{where}={text}: not of the form LOW..HIGH", hint=f"for example {where}=0.001..0.1")
    low, high = (coerce(end.strip(), _kind(hint), where=where) for end in (first, last))
    for end in (low, high):
        if (problem := axis.limits.problem(end)) is not None:
            raise UsageError(f"{where}: {end} is {problem}")
    if low >= high:
        raise UsageError(f"{where}: {low} is not less than {high}", hint="the smaller one comes first")
    if axis.log and low <= 0:
        raise UsageError(f"{where}: factors begin above 0", hint=f"for example {where}={high / 1000:g}..{high:g}")
    return replace(axis, low=low, high=high)


def _kind(hint: Any) -> type[int] | type[float] | None:
    """Whether an option is a whole number, a number, or none; also where it may be None."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    numbers = [choice for choice in choices if choice in (int, float)]
    return None if len(numbers) != 1 else numbers[0]


def plain(value: Any) -> Any:
    """A value of an option as JSON holds it."""
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def settings(point: Point) -> dict[str, str]:
    """A point as ``--set`` takes it."""
    return {key: as_text(value) for key, value in point.items()}


def words(point: Point) -> str:
    """A point as lines name it."""
    return ", ".join(f"{key}={as_text(value)}" for key, value in point.items()) or "nothing varied"
