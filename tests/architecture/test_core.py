"""The core knows no plugin; importing is cheap and does nothing; what is promised is exported."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmark
from benchmark import hookspecs, registry

ROOT = Path(__file__).parents[2]
CORE = Path(benchmark.__file__).parent
FILES = sorted(CORE.rglob("*.py"))
OURS = sorted(path for place in ("plugins", "scenarios") for path in (ROOT / place).glob("bench_*"))
HEAVY = ("torch", "timm", "torchvision", "avalanche", "pandas", "pyarrow", "matplotlib", "scipy")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_imports_no_plugin(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0].startswith(("bench_", "plugins", "scenarios"))}


def code_strings(path: Path) -> list[str]:
    """String constants that the program uses: no docstrings, help texts or hints with an example."""
    return [
        node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_has_no_plugin_by_name(path: Path) -> None:
    """No string of the core *is* the name of a plugin; examples inside help texts are longer.

    Built-in families and presets are data of the core (`benchmark.families`, `benchmark.inputs.presets`); who compares
    names of families is told in test_laws. `accuracy` is a field of records.

    Ten words mean something else in the core: a kind of stream (`MethodSpec.stream`), ``--json``, what torch calls
    the parameters of a layer, a rule of model selection (``engine.select``), a package whose version is recorded, the
    paper of a method, the board of generated texts, and what a method may be told (``uses``). The toy scenario of the
    contract is offered on the track ``nano``, and without ``--executor`` runs are done ``local``ly. ``source`` is where
    something comes from, or is trained on; ``norm`` what timm and torch call a layer.
    """
    kinds = [kind for kind in registry.KINDS if kind not in ("families", "presets", "plots")]
    names = {name for kind in kinds for name in registry.names(kind)}
    names -= {"joint", "json", "bias", "target-oracle", "timm", "paper", "texts", "nano", "local", "domains"}
    names -= {"source", "norm"}
    used = names & set(code_strings(path))
    assert not used, f"{path} names {sorted(used)}"


@pytest.mark.parametrize("folder", OURS, ids=lambda folder: folder.name)
def test_plugins_import_no_private_module_of_the_core(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        private = {name for name in imported(path) if re.match(r"benchmark(\.\w+)*\._", name)}
        assert not private, f"{path} imports {private}"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_entry_points_are_the_files_on_disk(kind: registry.Kind) -> None:
    """A forgotten line in pyproject.toml fails at once; a module without a hook needs no line."""
    points = {
        point.value
        for point in importlib.metadata.entry_points(group=f"bench.{kind}")
        if point.dist is not None and point.dist.name == "adaptbench"
    }
    files = {
        f"{folder.name}.{path.stem}"
        for folder in OURS
        for path in folder.glob("*.py")
        if f"def bench_register_{kind}(" in path.read_text(encoding="utf-8")
    }
    assert points == files, "edit [project.entry-points] and run `pip install -e .` again"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_entry_points_are_what_the_plugins_register(kind: registry.Kind) -> None:
    for name, claims in registry.entries(kind).items():
        if claims[0].distribution.startswith("adaptbench "):
            assert registry.load(kind, name).entry == claims[0]


def test_exported_members() -> None:
    for name in benchmark.__all__:
        assert getattr(benchmark, name) is not None
    for module_name in ("benchmark.api", "benchmark.testing", "benchmark.testing.checks"):
        module = importlib.import_module(module_name)
        assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = benchmark.nothing


def test_every_hook_has_a_test_and_a_user() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("bench_")]
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    callers = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    for hook in hooks:
        # tests/unit/test_registry_faults.py walks through all kinds that can be registered.
        assert hook in tests or hook.removeprefix("bench_register_") in registry.KINDS, f"{hook} has no test"
        called = rf"hook\.{hook}\(" if not hook.startswith("bench_register_") else r"bench_register_\{kind\}"
        assert re.search(called, callers), f"{hook} is called nowhere"


PROBE = """
import json, sys
from benchmark.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["list"], ["list", "--json"], ["--version"], ["run", "--help"], ["tune", "--help"]]
)
def test_help_and_list_import_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=True, timeout=120
    )
    code, modules = json.loads(done.stderr.strip().splitlines()[-1])
    assert code == 0
    assert not set(HEAVY) & set(modules)
    assert not [name for name in modules if name.startswith("bench_")], "a plugin was imported"


@pytest.mark.parametrize("words", [["leaderboard", "--results", "."], ["new-plugin", "mine", "--dir", "x"]])
def test_tables_and_skeletons_need_no_torch(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    _, modules = json.loads(done.stderr.strip().splitlines()[-1])
    assert "torch" not in modules


@pytest.mark.perf
@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_help_and_list_are_fast(words: list[str]) -> None:
    bench = Path(sys.executable).with_name("bench")
    times = []
    for _ in range(3):
        started = os.times()
        subprocess.run([bench, *words], capture_output=True, check=True, timeout=60)
        ended = os.times()
        # Of the processor: what else the machine does is not the program's fault.
        times.append(ended.children_user + ended.children_system - started.children_user - started.children_system)
    print(f"bench {' '.join(words)}: best of 3 {min(times):.3f} s of processor time (at most 0.3)")
    assert min(times) < 0.3


REASON = re.compile(r"\bone (file|module)\b")


def test_sizes() -> None:
    """A module of the core has up to 400 lines; up to 500 its docstring says why it is one file."""
    for path in FILES:
        count = len(path.read_text(encoding="utf-8").splitlines())
        reason = REASON.search(ast.get_docstring(tree(path)) or "")
        assert count <= 400 or (count <= 500 and reason), f"{path}: {count} lines; split it, or say why it is one file"
