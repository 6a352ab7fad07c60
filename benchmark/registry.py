"""Finds plugins from package metadata and imports only the one that is asked for.

Names come from the entry-point groups ``bench.methods``, ``bench.scenarios`` and
``bench.exporters`` without importing anything; ``-p FILE.py`` adds an unpackaged plugin. A plugin
that cannot be imported, a name claimed twice or a wrong record is a `PluginError` that names the
distribution, and never breaks the other plugins.

Environment: ``BENCH_DISABLE_PLUGINS=a,b`` hides entry points by name; ``BENCH_TRACE_PLUGINS=1``
prints every hook call to stderr.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

import pluggy

from benchmark import hookspecs
from benchmark.errors import PluginError, UsageError, did_you_mean
from benchmark.files import switched_on
from benchmark.specs import ExporterSpec, MethodSpec, ScenarioSpec

Kind = Literal["methods", "scenarios", "exporters"]
Spec = MethodSpec | ScenarioSpec | ExporterSpec
KINDS: tuple[Kind, ...] = ("methods", "scenarios", "exporters")
_TYPES: dict[Kind, type] = {"methods": MethodSpec, "scenarios": ScenarioSpec, "exporters": ExporterSpec}
LIFE_CYCLE_GROUP = "bench"


@dataclass(frozen=True, slots=True)
class Entry:
    """One plugin name and where it comes from.

    Attributes:
        name: Name on the command line.
        module: Module that holds the plugin.
        distribution: ``"adaptbench 0.1.0"``, or the file of a ``-p`` plugin.
    """

    name: str
    module: str
    distribution: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A spec with its provenance.

    Attributes:
        spec: The record that the plugin returned.
        entry: Where it comes from.
        code_sha256: Hash of the source of the plugin's module.
    """

    spec: Spec
    entry: Entry
    code_sha256: str


_files: list[ModuleType] = []  # plugins given with -p, in order


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get("BENCH_DISABLE_PLUGINS", "").split(",") if name.strip()}


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    dist = point.dist
    return f"{dist.name} {dist.version}" if dist is not None else "unknown distribution"


@functools.lru_cache(maxsize=1)
def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.EntryPoints(
        point
        for group in (LIFE_CYCLE_GROUP, *(f"bench.{kind}" for kind in KINDS))
        for point in importlib.metadata.entry_points(group=group)
    )


def entries(kind: Kind) -> dict[str, list[Entry]]:
    """All plugins of a kind by name, without importing any.

    A name has several entries when several distributions claim it; `load` refuses such a name.
    """
    found: dict[str, list[Entry]] = {}
    hidden = _disabled()
    for point in _entry_points().select(group=f"bench.{kind}"):
        if point.name in hidden:
            continue
        entry = Entry(point.name, point.value, _distribution(point))
        # The same distribution can be visible twice (editable install in the current folder).
        if entry not in found.setdefault(point.name, []):
            found[point.name].append(entry)
    for module in _files:
        for spec in _call(kind, module, f"file {module.__file__}"):
            entry = Entry(spec.name, module.__name__, f"file {module.__file__}")
            found.setdefault(spec.name, []).append(entry)
    return dict(sorted(found.items()))


def names(kind: Kind) -> list[str]:
    """Sorted names of all plugins of a kind."""
    return list(entries(kind))


def load_method(name: str) -> Loaded:
    """Imports one method. See `load`."""
    return load("methods", name)


def load_scenario(name: str) -> Loaded:
    """Imports one scenario. See `load`."""
    return load("scenarios", name)


def load_exporter(name: str) -> ExporterSpec:
    """Imports one exporter. See `load`."""
    return cast("ExporterSpec", load("exporters", name).spec)


def load(kind: Kind, name: str) -> Loaded:
    """Imports the plugin that claims ``name`` and returns its checked spec.

    Raises:
        UsageError: No plugin has this name; similar ones are suggested.
        PluginError: The name is claimed twice, or the plugin is broken.
    """
    known = entries(kind)
    if name not in known:
        raise did_you_mean(kind[:-1], name, known, more=f"bench list {kind}")
    claims = known[name]
    if len(claims) > 1:
        who = " and ".join(f"`{entry.distribution}` ({entry.module})" for entry in claims)
        raise PluginError(
            f"{kind[:-1]} `{name}` is claimed by {who}",
            hint="uninstall one of them, or rename its entry point",
        )
    entry = claims[0]
    module = _import(kind[:-1], entry)
    specs = [spec for spec in _call(kind, module, entry.distribution) if _answers(spec, name)]
    if len(specs) != 1:
        listed = ", ".join(f"`{spec.name}`" for spec in _call(kind, module, entry.distribution)) or "nothing"
        raise PluginError(
            f"{kind[:-1]} `{name}` of `{entry.distribution}`: {entry.module} registers {listed}",
            hint=f"its spec must be named like the entry point: `{name}`",
        )
    return Loaded(specs[0], entry, _code_hash(module))


def _answers(spec: Spec, name: str) -> bool:
    return spec.name == name or name in getattr(spec, "aliases", ())


def _import(what: str, entry: Entry) -> ModuleType:
    for module in _files:
        if module.__name__ == entry.module:
            return module
    try:
        return importlib.import_module(entry.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"{what} `{entry.name}` of `{entry.distribution}` cannot be imported: "
            f"{entry.module}: {type(error).__name__}: {error}",
            hint=f"the other plugins work; fix or uninstall `{entry.distribution.split(' ')[0]}`, "
            f"or hide it with BENCH_DISABLE_PLUGINS={entry.name}",
        ) from error


def _call(kind: Kind, module: ModuleType, distribution: str) -> list[Spec]:
    """Calls the registration hook of one module and checks what it returns."""
    manager = _checked_manager(module, distribution)
    hook = getattr(manager.hook, f"bench_register_{kind}")
    try:
        results = hook()
    except Exception as error:
        raise PluginError(
            f"{module.__name__} of `{distribution}`: bench_register_{kind} failed: {type(error).__name__}: {error}"
        ) from error
    specs: list[Spec] = []
    for result in results:
        if not isinstance(result, (list, tuple)):
            raise PluginError(
                f"{module.__name__} of `{distribution}`: bench_register_{kind} returned {type(result).__name__}",
                hint=f"return a list of {_TYPES[kind].__name__}",
            )
        for spec in result:
            if not isinstance(spec, _TYPES[kind]):
                raise PluginError(
                    f"{module.__name__} of `{distribution}`: bench_register_{kind} returned a "
                    f"{type(spec).__name__} in its list",
                    hint=f"return {_TYPES[kind].__name__} records from benchmark.specs",
                )
            specs.append(cast("Spec", spec))
    return sorted(specs, key=lambda spec: spec.name)


def _checked_manager(module: ModuleType, distribution: str) -> pluggy.PluginManager:
    """A manager of one module; a misspelt hook is an error."""
    manager = _manager([module])
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(
            f"{module.__name__} of `{distribution}` implements an unknown hook: {error}",
            hint="see docs/hooks.md for the hooks that exist",
        ) from error
    return manager


def _manager(modules: Iterable[ModuleType]) -> pluggy.PluginManager:
    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(hookspecs)
    if switched_on("BENCH_TRACE_PLUGINS"):
        manager.trace.root.setwriter(lambda text: print(text, end="", file=sys.stderr))
        manager.enable_tracing()
    for module in modules:
        manager.register(module, name=module.__name__)
    return manager


def life_cycle(report: Callable[[Entry, PluginError], None] | None = None) -> pluggy.PluginManager:
    """A manager with every plugin of the group ``bench`` and every ``-p`` file.

    Args:
        report: Told of each installed plugin that is left out because it is broken; None raises instead.

    Raises:
        PluginError: One of them cannot be imported or implements an unknown hook.
    """
    modules: list[ModuleType] = []
    hidden = _disabled()
    # pluggy calls the last registered first: register in reverse to call in the order of names.
    for point in sorted(_entry_points().select(group=LIFE_CYCLE_GROUP), key=lambda point: point.name, reverse=True):
        if point.name in hidden:
            continue
        entry = Entry(point.name, point.value, _distribution(point))
        try:
            module = _import("life-cycle plugin", entry)
            _checked_manager(module, entry.distribution)
        except PluginError as error:
            if report is None:
                raise
            report(entry, error)
        else:
            modules.append(module)
    for module in _files:
        _checked_manager(module, f"file {module.__file__}")
    return _manager([*modules, *_files])


def add_file(path: Path) -> None:
    """Loads an unpackaged plugin (``-p FILE.py``); its specs join the registry.

    Raises:
        UsageError: The file does not exist.
        PluginError: It cannot be imported.
    """
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"-p {path}: no such file", hint="give the path of a Python file with hooks")
    if any(module.__file__ == str(path) for module in _files):
        return
    name = f"bench_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"-p {path}: not a Python file", hint="its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"-p {path} cannot be imported: {type(error).__name__}: {error}") from error
    _files.append(module)


def _code_hash(module: ModuleType) -> str:
    """SHA-256 of the module's source and of what it imports from its own package.

    Services of `benchmark` are not part of it: they are versioned with the package.
    """
    digest = hashlib.sha256()
    for file in _sources(module):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sources(module: ModuleType) -> list[Path]:
    """Source files of a module and of the modules of the same package that it imports."""
    package = module.__name__.split(".")[0]
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        current = pending.pop()
        file = getattr(current, "__file__", None)
        if current.__name__ in found or not file or not Path(file).is_file():
            continue
        found[current.__name__] = Path(file)
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == package]
            else:
                continue
            pending += [sys.modules[name] for name in names if name in sys.modules]
    return [found[name] for name in sorted(found)]
