"""What importers of other suites' results are given and return, and the safe way to read what Python has printed.

An importer is a pure function from a `SourceFile` to a list of `ForeignRun`. It fills in what the file fixes and leaves
the rest as it is: a default in the suite's code is no evidence of what a run used. Nothing here runs what it reads.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from benchmark.errors import DataMissing, UsageError, shorten, shown

__all__ = ["ForeignRun", "ForeignScore", "SourceFile", "literal", "namespace"]

Matrix = Sequence[Sequence[float | None]]

_NAMES: Mapping[str, float] = {"nan": math.nan, "inf": math.inf, "NaN": math.nan, "Infinity": math.inf}
_ARRAYS = frozenset({"array", "np.array", "numpy.array"})
_SCALAR = re.compile(r"(np|numpy)\.(float|int|uint|bool|str)(\d+|_)?")
_LONGEST_RANGE = 1_000_000
_MOST = 2**26  # characters of one value


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignScore:
    """One number that a suite reported itself.

    Attributes:
        name: As the suite calls it.
        value: The number; a fraction where `unit` says so.
        definition: What it is, as far as the suite's code says.
        metric: Metric of ours (`benchmark.metrics`) that has the same definition, or empty.
        unit: ``fraction``, ``megabytes``, or None where the file does not fix it.
        decimals: To which it was printed, in percent; None: in full.
        n: Test samples, where the file says.
        error: Standard error, where the file says.
    """

    name: str
    value: float
    definition: str
    metric: str = ""
    unit: Literal["fraction", "megabytes"] | None = "fraction"
    decimals: int | None = None
    n: int | None = None
    error: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignRun:
    """One run as a file of another suite tells it; None is what it does not tell.

    Attributes:
        first_line: Where it begins in the file, from 1.
        last_line: Where it ends.
        complete: Whether it came to its end.
        method: Name of the method.
        part: Of several classifiers of one run, e.g. ``NME``; or empty.
        scenario: As the suite calls it.
        family: Family of the scenario (`benchmark.families`), where the file fixes it.
        backbone: Its name.
        seed: The seed.
        seeds: All seeds that the suite has, by its names.
        seed_scope: What the seed varies, where that is not everything.
        selection: How the model was selected.
        class_order: Classes in the order in which they came.
        experiences: Number of classes of each.
        tests: Names of the columns of `accuracy`; None: numbers.
        counts: Test samples per column.
        config: Options, plain values: equal of the runs that differ in their seeds alone.
        facts: What else differs from run to run: the seed as printed, the device, the time.
        accuracy: R (T, E), fractions: row = time, column = test set; None where not evaluated.
        decimals: To which accuracies were printed, in percent; None: in full.
        reported: Numbers that the suite computed.
        tables: What fits nowhere else, by name.
        notes: What a reader must know.
    """

    first_line: int
    last_line: int
    complete: bool | None = None
    method: str | None = None
    part: str = ""
    scenario: str | None = None
    family: str | None = None
    backbone: str | None = None
    seed: int | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)
    seed_scope: str = ""
    selection: str = ""
    class_order: Sequence[int] | None = None
    experiences: Sequence[int] | None = None
    tests: Sequence[str] | None = None
    counts: Sequence[int | None] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Matrix | None = None
    decimals: int | None = None
    reported: Sequence[ForeignScore] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of another suite, read.

    Attributes:
        path: Where it is; some suites say more in the names of folders than in the file.
        text: Its content.
        suite: Who is said to have written it.
    """

    path: Path
    text: str
    suite: str

    @property
    def lines(self) -> list[str]:
        """The lines, without their ends; a carriage return ends one, too."""
        return re.split(r"\r\n|\n|\r", self.text)

    def other(self, reason: str, *, hint: str = "") -> NoReturn:
        """This is no file of the format.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{self.path} is no result of {self.suite}: {reason}",
            hint=hint or "`bench list importers` shows the formats; docs/importing.md says which file each one reads",
        )

    def damaged(self, line: int, reason: str) -> NoReturn:
        """The file is of the format, but cannot be read to its end.

        Raises:
            DataMissing: Always.
        """
        raise DataMissing(
            f"{self.path}, line {line}: {reason}", hint="nothing was imported; cut that part out, or find a whole copy"
        )

    def share(self, text: str, line: int) -> float:
        """A percentage of the file as a fraction.

        Raises:
            DataMissing: It is no number from 0 to 100.
        """
        try:
            value = float(text)
        except ValueError:
            self.damaged(line, f"{text!r:.60} is no number")
        if not 0 <= value <= 100:
            self.damaged(line, f"{text!r:.60} is no percentage")
        return value / 100

    def value(self, text: str, line: int) -> Any:
        """What `literal` makes of a part of the file.

        Raises:
            DataMissing: It is cut off, elided, or no plain value.
        """
        try:
            return literal(text)
        except ValueError as error:
            self.damaged(line, f"{shown(text)} cannot be read: {error}")


def literal(text: str) -> Any:
    """The value that Python printed, without running anything.

    Literals, ``nan`` and ``inf``, arrays and scalars of numpy (``array([...])``, ``np.float64(84.29)``), ``range`` and
    torch's ``device(type='cpu')`` (as ``cpu``); arrays become lists.

    Raises:
        ValueError: It is anything else, e.g. an array that was elided (``...``), a name or a call.
    """
    if len(text) > _MOST:
        raise ValueError(f"{len(text):,} characters are too many")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"it is no whole Python value ({error.msg})") from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


def namespace(text: str) -> dict[str, Any]:
    """The arguments in ``Namespace(seed=42, ...)`` as argparse prints them, without running anything.

    Names that are no identifiers stand in ``**{...}``. What is no plain value (`literal`) is kept as it was printed.

    Raises:
        ValueError: It is no such text, or is cut off.
    """
    if len(text) > _MOST:
        raise ValueError(f"{len(text):,} characters are too many")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"it is no whole Namespace ({error.msg})") from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "Namespace" or node.args:
        raise ValueError("it is no Namespace")
    found: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            rest = _value(keyword.value)
            if not isinstance(rest, dict):
                raise ValueError("it is no Namespace")
            found |= rest
            continue
        try:
            found[keyword.arg] = _value(keyword.value)
        except ValueError:
            found[keyword.arg] = ast.unparse(keyword.value)
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and node.value is not ... and not isinstance(node.value, (bytes, complex)):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = [
            (None if key is None else _value(key), _value(value))
            for key, value in zip(node.keys, node.values, strict=True)
        ]
        if not all(isinstance(key, (str, int, float)) for key, _ in pairs):
            raise ValueError("a key of a dictionary is no text or number")
        return dict(pairs)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        if isinstance(value, (int, float)):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Constant) and node.value is ...:
        raise ValueError("it was elided when it was printed (`...`)")
    raise ValueError(f"`{shorten(ast.unparse(node), 60)}` is not a plain value")


def _call(node: ast.Call) -> Any:
    name = ast.unparse(node.func)
    if name in _ARRAYS and len(node.args) == 1:
        found = _value(node.args[0])  # what follows is its dtype
        if isinstance(found, list):
            return found
    elif _SCALAR.fullmatch(name) and len(node.args) == 1 and not node.keywords:
        found = _value(node.args[0])
        if isinstance(found, (int, float, str)):
            return found
    elif name in ("device", "torch.device"):
        given = [_value(value) for value in (*node.args, *(keyword.value for keyword in node.keywords))]
        return ":".join(map(str, given))
    elif name == "range" and 1 <= len(node.args) <= 3 and not node.keywords:
        numbers = [_value(argument) for argument in node.args]
        if all(type(number) is int for number in numbers) and (len(numbers) < 3 or numbers[2]):
            found = range(*numbers)
            if len(found) <= _LONGEST_RANGE:
                return list(found)
    raise ValueError(f"a call of `{shorten(name, 60)}` is not a plain value")
