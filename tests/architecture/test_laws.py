"""The laws of the house, over the whole import graph of the core (ADR 10).

Every import counts, also those inside functions and for annotations alone; only what is *reached* through others
(law 1) leaves annotations out, since they import nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from .graph import CORE, circles, graph, modules, reach

ROOT = Path(__file__).parents[2]
EDGES = graph()
RUNTIME = graph(annotations=False)


def inside(name: str, *parts: str) -> bool:
    """Whether a module is one of these parts of the core, or lies in one."""
    return any(name == f"benchmark.{part}" or name.startswith(f"benchmark.{part}.") for part in parts)


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "benchmark"}


def tables_need_no_model(name: str, imported: set[str]) -> set[str]:
    """1. What a table needs stands in the record: records, metrics, leaderboard, tables, specs never reach torch."""
    if not inside(name, "records", "metrics", "leaderboard", "tables", "specs"):
        return set()
    return {found for found in reach(RUNTIME, name) if found == "torch" or inside(found, "run", "backbones")}


def authors_front_knows_no_engine(name: str, imported: set[str]) -> set[str]:
    """2. What authors implement knows neither the engine nor what is made of its records."""
    if not inside(name, "api", "views", "specs", "scenario", "samples", "families", "errors", "readers", "digests"):
        return set()
    return {found for found in imported if inside(found, "run", "records", "leaderboard", "cli")}


def only_users_of_runs_import_run(name: str, imported: set[str]) -> set[str]:
    """3. Only the command line, the contract, results and run itself import run; and `benchmark.run_job`."""
    if inside(name, "run", "cli", "testing", "results"):
        return set()
    if name == "benchmark":
        return {found for found in imported if inside(found, "run") and found != "benchmark.run.jobs"}
    return {found for found in imported if inside(found, "run")}


def run_knows_no_table_and_no_terminal(name: str, imported: set[str]) -> set[str]:
    """3. run never imports the command line or the leaderboard."""
    return {found for found in imported if inside(found, "cli", "leaderboard")} if inside(name, "run") else set()


def models_and_inputs_stand_alone(name: str, imported: set[str]) -> set[str]:
    """4. backbones and inputs import errors and files alone."""
    for part in ("backbones", "inputs"):
        if inside(name, part):
            return {found for found in ours(imported) if not inside(found, part, "errors", "files")}
    return set()


def metrics_are_functions(name: str, imported: set[str]) -> set[str]:
    """5. metrics import records.predictions and families, nothing else of ours."""
    if not inside(name, "metrics"):
        return set()
    return {found for found in ours(imported) if not inside(found, "metrics", "records.predictions", "families")}


def avalanche_is_at_the_edge(name: str, imported: set[str]) -> set[str]:
    """8. The core never imports avalanche; the contract compares scenarios with it."""
    if inside(name, "avalanche", "testing"):
        return set()
    return {found for found in imported if inside(found, "avalanche") or found == "avalanche"}


LAWS: list[Callable[[str, set[str]], set[str]]] = [
    tables_need_no_model,
    authors_front_knows_no_engine,
    only_users_of_runs_import_run,
    run_knows_no_table_and_no_terminal,
    models_and_inputs_stand_alone,
    metrics_are_functions,
    avalanche_is_at_the_edge,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[str, set[str]], set[str]]) -> None:
    broken = {name: sorted(found) for name, imported in EDGES.items() if (found := law(name, imported))}
    assert not broken, law.__doc__


def test_there_are_no_circles() -> None:
    """6. Annotations and imports inside functions counted."""
    assert circles(EDGES) == []


def test_run_never_prints() -> None:
    """3. What a run has to say goes into its record, its errors and its progress bar."""
    for path in sorted((CORE / "run").rglob("*.py")):
        printed = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert not printed, f"{path}: prints in lines {printed}"


def test_the_graph_sees_every_kind_of_import(tmp_path: Path) -> None:
    from .graph import imports

    file = tmp_path / "module.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "import benchmark.run.plan\n"
        "if TYPE_CHECKING:\n    from benchmark.run import engine\n"
        "def f():\n    from benchmark.records.store import read\n    import torch.nn\n"
    )
    known = dict.fromkeys(EDGES)
    every = set(imports(file, "benchmark.new", known))
    assert {"benchmark.run.plan", "benchmark.run.engine", "benchmark.records.store", "torch"} <= every
    assert "benchmark.run.engine" not in set(imports(file, "benchmark.new", known, annotations=False))


PLUGINS = ROOT / "plugins" / "bench_methods"


def compared(tree: ast.AST, names: set[str]) -> list[int]:
    """Lines that compare with one of some names, look one up in a table, or ask for the end of one."""

    def holds(node: ast.AST | None) -> bool:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return any(map(holds, node.elts))
        return isinstance(node, ast.Constant) and node.value in names

    found = []
    for node in ast.walk(tree):
        asked: list[ast.AST | None] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        elif isinstance(node, ast.Dict):
            asked = [*node.keys]
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            ends = node.func.attr in ("startswith", "endswith") and any(
                isinstance(part, ast.Constant) and str(part.value).strip("-") == "il" for part in node.args
            )
            asked = [*node.args, *node.keywords] if node.func.attr == "get" else []
            if ends:
                found.append(node.lineno)
        if any(map(holds, asked)):
            found.append(node.lineno)  # type: ignore[attr-defined]
    return found


def test_a_family_is_compared_by_name_in_its_file_only() -> None:
    """9. Whatever depends on the family is a field of its record (`benchmark.families`)."""
    from benchmark.families import FAMILIES

    for path in [*sorted(CORE.rglob("*.py")), *sorted(PLUGINS.glob("*.py"))]:
        if path == CORE / "families.py":
            continue
        # Recipes may be called like a family.
        names = set(FAMILIES) - ({"few-shot"} if path.is_relative_to(PLUGINS) else set())
        assert not compared(ast.parse(path.read_text(encoding="utf-8")), names), path


def test_the_law_of_families_sees_every_comparison() -> None:
    for text in (
        "a.family == 'uda'",
        "'uda' != a",
        "a in ('dg', 'uda')",
        "{'uda': 1}[a]",
        "table['uda']",
        "table.get('uda')",
        "a.endswith('-il')",
        "match a:\n    case 'uda':\n        pass",
    ):
        assert compared(ast.parse(text), {"uda", "dg"}), text
    assert not compared(ast.parse("Scenario(family='uda')"), {"uda"})


def test_no_module_asks_whether_samples_are_texts() -> None:
    """What a run reads is the business of samples, inputs and backbones; the contract has toys of both (ADR 11)."""
    for name, path in modules().items():
        if inside(name, "samples", "inputs", "backbones", "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            asked = isinstance(node, ast.Compare) and any(
                isinstance(side, ast.Constant) and side.value == "text" for side in (node.left, *node.comparators)
            )
            read = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "texts"
            if asked or read:
                pytest.fail(f"{path}, line {node.lineno}")
