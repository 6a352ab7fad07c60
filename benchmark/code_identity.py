"""Which arithmetic ran: the syntax trees of a plugin's modules, and one number for everything that is ours.

Comments, formatting and docstrings are no part of a hash, so better words never orphan a record (ADR 12).
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

ENGINE = 1
"""Number of the arithmetic of the engine and of the services that methods share. Raised by hand, by one, when a change
of them gives a run other numbers; `tests/unit/test_identity.py` fails when one of their files has another
syntax tree and nobody has said whether it does."""
SEARCH_MARKS = ("log", "search")
"""What a `benchmark.config.Range` says to a search alone: no run depends on it."""


BESIDE = ("tokens", "engine")
"""Keywords of a `MethodSpec` that only refuse runs, or whose effect is in the identity by itself."""
DECLARES = ("coupled", "chosen_parts")
"""Of a `benchmark.api.Method`: what only refuses runs, or only tells what `predict` does (`benchmark.choices`)."""


def code_hash(module: ModuleType) -> str:
    """SHA-256 of a plugin's module and of what it imports from its own package, wherever the import stands.

    Services of `benchmark` are not part of it: `ENGINE` stands for them.
    """
    digest = hashlib.sha256()
    for file in sources(module):
        digest.update(syntax_hash(file).encode())
    return digest.hexdigest()


def syntax_hash(file: Path) -> str:
    """SHA-256 of the syntax tree of a file, the same in every version of Python that can read it."""
    about = file.stat()
    return _syntax_hash(file, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1024)
def _syntax_hash(file: Path, changed: int, size: int) -> str:
    return hashlib.sha256("".join(_words(ast.parse(file.read_bytes()))).encode()).hexdigest()


def _words(node: object) -> Iterator[str]:
    """The tree as text, without texts that stand alone, places in the file and what only some versions know.

    Nor is there what a `MethodSpec` says of models that are refused (``tokens``), of options of the engine (``engine``,
    which are in the identity themselves), or a method of batches that are not to be split (``coupled``) and of its
    choices (``chosen_parts``).
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if isinstance(node, ast.Call) and name == "keywords" and getattr(node.func, "id", "") == "MethodSpec":
                value = [keyword for keyword in value if keyword.arg not in BESIDE]
            if isinstance(node, ast.ClassDef) and name == "body":
                value = [part for part in value if getattr(part, "name", "") not in DECLARES]
            if value is None or value == [] or name in ("ctx", "kind", "type_comment", "type_ignores", "type_params"):
                continue
            if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty pieces here and there
                value = [part for part in value if not (isinstance(part, ast.Constant) and part.value == "")]
            if isinstance(node, ast.Call) and name == "keywords" and _is_range(node.func):
                value = [part for part in value if part.arg not in SEARCH_MARKS]
                if not value:
                    continue
            yield f" {name}="
            yield from _words(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            if not _is_docstring(item):
                yield from _words(item)
        yield "]"
    else:
        yield repr(node)


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_range(function: ast.expr) -> bool:
    """Whether `benchmark.config.Range` is called."""
    return (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) == "Range"


def sources(module: ModuleType) -> list[Path]:
    """Source files of a module and of the modules of its package that it imports, in the order of their names."""
    package = module.__name__.split(".")[0]
    found: dict[str, Path] = {}
    pending = [module.__name__]
    while pending:
        name = pending.pop()
        file = _file(name) if name not in found else None
        if file is None:
            continue
        found[name] = file
        inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
        about = file.stat()
        parts = [name.split(".") for name in _imported(file, inside, about.st_mtime_ns, about.st_size)]
        pending += [".".join(part[:count]) for part in parts if part[0] == package for count in range(1, len(part) + 1)]
    return [found[name] for name in sorted(found)]


@lru_cache(maxsize=1024)
def _imported(file: Path, inside: str, changed: int, size: int) -> tuple[str, ...]:
    """Names of modules, and of what may be one, that a file of the package ``inside`` imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = inside.split(".")[: len(inside.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


def _file(name: str) -> Path | None:
    """Source file of a module, found without importing it; None where a name is no module of the package."""
    package, *parts = name.split(".")
    module = sys.modules[package]
    if not parts:
        places = [Path(module.__file__)] if module.__file__ else []
    else:
        roots = [Path(root, *parts) for root in getattr(module, "__path__", ())]
        places = [file for root in roots for file in (root / "__init__.py", root.with_name(f"{root.name}.py"))]
    return next((file for file in places if file.suffix == ".py" and file.is_file()), None)
