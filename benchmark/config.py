"""From mappings and ``--set`` strings to frozen dataclasses, with errors that name the full key.

Order of precedence, lowest first: class defaults, the track's values, the recipe, the configuration
file, ``--set``. The origin of every value is kept, for ``--dry-run`` and for the record.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from benchmark.errors import PluginError, UsageError, did_you_mean, plain, shorten, shown
from benchmark.files import user_path
from benchmark.guard import Guard

T = TypeVar("T")
LARGEST = 2**63 - 1  # whole number: what records and tensors hold


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place.

    Attributes:
        origin: Shown beside the value, e.g. ``--set`` or ``track nano``.
        values: Field name to value; strings from the command line are parsed by type.
    """

    origin: str
    values: Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """What a number may be, as a field of a configuration declares it: ``lr: Annotated[float, Range(above=0)] = 0.1``.

    Of a field that may be None, only numbers are held to it; of a tuple, each item.

    Attributes:
        min: Smallest value, or None.
        max: Largest value, or None.
        above: All values are larger, or None.
        below: All values are smaller, or None.
        log: Whether factors count, not differences: a search takes even steps of the logarithm.
        search: Between which values a search begins (`bench tune`), where it looks at this option without being told
            to; it may go on beyond them. None: it looks only where ``--range`` or ``--grid`` says so.

    `log` and `search` say nothing about a run, and are no part of its identity (`benchmark.code_identity`).
    """

    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    log: bool = False
    search: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Checks that a search begins with values that there may be.

        Raises:
            ValueError: It does not.
        """
        if self.search is None:
            return
        low, high = self.search
        if low >= high or (self.log and low <= 0):
            raise ValueError(f"search: {low:g} to {high:g} is no range{' of factors' if self.log else ''}")
        for value in self.search:
            if (problem := self.problem(value)) is not None:
                raise ValueError(f"search: {value:g} is {problem}")

    def __str__(self) -> str:
        if self.min is not None and self.max is not None:
            return f"{self.min:g}..{self.max:g}"
        limits = {"{:g} or more": self.min, "more than {:g}": self.above}
        limits |= {"{:g} or less": self.max, "less than {:g}": self.below}
        return " and ".join(words.format(limit) for words, limit in limits.items() if limit is not None)

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, and what to use, or None."""
        if self.min is not None and value < self.min:
            wrong = "negative" if self.min == 0 else "too small"
        elif self.above is not None and value <= self.above:
            wrong = "not positive" if self.above == 0 else "too small"
        elif (self.max is not None and value > self.max) or (self.below is not None and value >= self.below):
            wrong = "too large"
        else:
            return None
        one_sided = (self.max is None and self.below is None) or (self.min is None and self.above is None)
        return f"{wrong if one_sided else 'out of range'}; use {self}"


def ranges(config: Any) -> Mapping[str, Range]:
    """The declared range of every field that has one, of a class of options.

    A subclass that gives a field another default keeps its range, unless it declares another one.
    """
    return _ranges(config)


@functools.cache  # asked for whenever options are made
def _ranges(config: Hashable) -> Mapping[str, Range]:
    found = {}
    for base in reversed(typing.cast(type, config).__mro__):
        for name, hint in typing.get_type_hints(base, include_extras=True).items():
            for extra in getattr(hint, "__metadata__", ()):
                if isinstance(extra, Range):
                    found[name] = extra
    return found


def check_ranges(config: object) -> None:
    """Holds every number of a configuration to its declared range.

    Raises:
        ValueError: ``"<field>: <value> is ...; use ..."``.
    """
    for name, declared in ranges(type(config)).items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and (problem := declared.problem(number)) is not None:
                raise ValueError(f"{name}: {number} is {problem}")


def check_types(config: object) -> None:
    """Holds every option to its annotation, defaults too: what is not plain cannot stand in a record.

    Raises:
        UsageError: One is of another type.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        where = f"{type(config).__name__}.{field.name}"
        if isinstance(value, str) and hints[field.name] in (bool, int, float):
            raise _wrong(where, value, f"of type {hints[field.name].__name__}")
        coerce(value, hints[field.name], where=where)


def resolve(config: type[T], layers: Iterable[Layer], *, key: str) -> tuple[T, dict[str, str]]:
    """Builds a configuration from layers, lowest first.

    Args:
        config: A frozen dataclass.
        layers: Where values come from.
        key: Prefix of the keys in messages, e.g. ``method.l2p``.

    Returns:
        The configuration and, per field, the origin of its value.

    Raises:
        UsageError: Unknown key, wrong type, value out of range; the message holds the full key.
        PluginError: ``config`` is no dataclass, has options of other types, or raises something else than `ValueError`.
    """
    guard = Guard(f"options {key}", hint="see benchmark.config for what a class of options may hold")
    with guard("fields"):
        fields = {field.name: field for field in dataclasses.fields(config) if field.init}  # type: ignore[arg-type]
        hints = typing.get_type_hints(config)
    values: dict[str, Any] = {}
    origin = dict.fromkeys(fields, "default")
    for layer in layers:
        for name, value in layer.values.items():
            if name not in fields:
                error = did_you_mean("option", f"{key}.{name}", [f"{key}.{field}" for field in fields])
                raise UsageError(f"{layer.origin}: {error.message}", hint=error.hint)
            values[name] = coerce(value, hints[name], where=f"{layer.origin}: {key}.{name}")
            origin[name] = layer.origin
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{key}.{missing[0]} has no default and is not given", hint=f"--set {missing[0]}=VALUE")
    with guard("__post_init__"):
        try:
            found = config(**values)
            check_ranges(found)
            return found, origin
        except ValueError as error:
            name = str(error).split(":", 1)[0]
            where = origin.get(name)
            prefix = f"{where}: " if where and where != "default" else ""
            raise UsageError(f"{prefix}{key}.{shorten(str(error), 500)}") from error


def coerce(value: object, hint: Any, *, where: str) -> Any:
    """Checks a value against a type annotation; parses it when it is a string.

    Understands bool, int, float, str, ``Path``, ``Literal``, ``X | None`` and ``tuple[X, ...]``.

    Raises:
        UsageError: The value does not fit.
    """
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, typing.get_args(hint), where)
    if origin is Literal:
        allowed = typing.get_args(hint)
        for choice in allowed:
            if (value == choice and type(value) is type(choice)) or (isinstance(value, str) and value == str(choice)):
                return choice
        raise UsageError(f"{where}: {shown(value)} is not allowed", hint=f"use one of {', '.join(map(str, allowed))}")
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise _wrong(where, value, "a list")
        return tuple(coerce(item, inner, where=where) for item in items)
    if hint is bool:
        return _coerce_bool(value, where)
    if hint is int:
        return _coerce_int(value, where)
    if hint is float:
        return _coerce_float(value, where)
    if hint is str:
        if not isinstance(value, str):
            raise _wrong(where, value, "text")
        return value
    if hint is Path:
        if not isinstance(value, (str, Path)):
            raise _wrong(where, value, "a path")
        return user_path(value)
    raise PluginError(f"{where}: options of type {hint!r} are not supported", hint="see benchmark.config.coerce")


def _coerce_union(value: object, choices: tuple[Any, ...], where: str) -> Any:
    if types.NoneType in choices and (value is None or value == "none"):
        return None
    errors = []
    for choice in choices:
        if choice is not types.NoneType:
            try:
                return coerce(value, choice, where=where)
            except UsageError as error:
                errors.append(error)
    raise errors[0]


def _coerce_bool(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise _wrong(where, value, "true or false")


def _coerce_int(value: object, where: str) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:  # also of more digits than Python reads
            raise _wrong(where, value, "a whole number") from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, value, "a whole number")
    if abs(value) > LARGEST:
        raise _wrong(where, value, f"a whole number up to {LARGEST}")
    return value


def _coerce_float(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _wrong(where, value, "a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _wrong(where, value, "a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise _wrong(where, value, "a finite number")
    return number


def _wrong(where: str, value: object, wanted: str) -> UsageError:
    return UsageError(f"{where}: {shown(value)} is not {wanted}")


def parse_assignments(items: Iterable[str], *, option: str = "--set") -> dict[str, str]:
    """Splits ``key=value`` arguments.

    Raises:
        UsageError: An item has no ``=`` or no key, or what is listed by ``--grid`` or ``--range`` is listed again. Of
            ``--set`` the last one counts.
    """
    values: dict[str, str] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or not name.strip():
            raise UsageError(
                f"{option} {shorten(item)}: not of the form key=value", hint=f"for example {option} epochs=3"
            )
        if name.strip() in values and option in ("--grid", "--range"):
            raise UsageError(f"{option} {name.strip()}: given twice", hint=f"all of it in one, {option} KEY=...")
        values[name.strip()] = value.strip()
    return values


def as_text(value: object) -> str:
    """A value of a configuration file as ``--set`` takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(as_text, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a configuration file.

    Raises:
        UsageError: It is missing, is not valid TOML, or is nested more deeply than anyone writes.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin files with a mark
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}", hint="give the path of a TOML file") from error
    except (ValueError, RecursionError) as error:  # also integers of more digits than Python reads
        raise UsageError(f"--config {path}: not valid TOML: {shorten(plain(str(error)))}") from error


def as_dict(config: object) -> dict[str, Any]:
    """The fields of a configuration as JSON-able values."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"{config!r} is not a configuration")
    plain = dataclasses.asdict(config)
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in plain.items()
    }


def derived(config: object) -> dict[str, Any]:
    """Values of a configuration's properties, e.g. a batch-scaled learning rate.

    Given and effective values are kept apart: fields hold what was asked for, properties what
    follows from it.
    """
    found = {}
    for name in sorted(set(dir(type(config)))):
        if not name.startswith("_") and isinstance(getattr(type(config), name), property):
            value = getattr(config, name)
            if value is None or isinstance(value, (bool, int, float, str)):
                found[name] = value
    return found
