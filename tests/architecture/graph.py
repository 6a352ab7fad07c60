"""Who imports whom in the core: every import counts, also those inside functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import benchmark

CORE = Path(benchmark.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the core, dotted from ``benchmark``; skeletons that are only copied are none."""
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        if parts[0] != "templates":
            found[".".join(("benchmark", *parts)).removesuffix(".__init__")] = path
    return found


def imports(path: Path, name: str, known: Mapping[str, object], *, annotations: bool = True) -> Iterator[str]:
    """The modules that a file imports: ours by their full name, others by their first part.

    Args:
        path: The file.
        name: Its module.
        known: Our modules.
        annotations: Whether imports under ``if TYPE_CHECKING`` count.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not annotations and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            # A name that is no module is an attribute of the module it is imported from.
            wanted = [found if found in known else node.module for found in inside]
        else:
            continue
        for found in wanted:
            if found != name:
                yield found if found in known else found.split(".")[0]


def graph(*, annotations: bool = True) -> dict[str, set[str]]:
    """Module to what it imports."""
    known = modules()
    return {name: set(imports(path, name, known, annotations=annotations)) for name, path in known.items()}


def reach(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """Everything that comes along with a module, transitively; a package's face comes with its modules."""
    found: set[str] = set()
    pending = [start]
    while pending:
        current = pending.pop()
        for other in edges.get(current, set()):
            if other not in found:
                found.add(other)
                pending.append(other)
    return found


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected parts of more than one module."""
    reached = {name: reach(edges, name) for name in edges}
    seen: set[str] = set()
    found = []
    for name in edges:
        if name not in seen:
            part = sorted(other for other in edges if other in reached[name] and name in reached[other])
            seen.update(part)
            if len(part) > 1:
                found.append(part)
    return found
