"""Finds plugins from package metadata and imports only the one that is asked for.

Names come from one entry-point group per kind (``bench.methods``, ``bench.backbones``, ...) without
importing anything; ``-p FILE.py`` adds an unpackaged plugin. A plugin that cannot be imported, a name
claimed twice or a wrong record is a `PluginError` that names the distribution, and never breaks the
other plugins. Names, imports and checks of records are one file: each error of one needs the others' words.

Environment: ``BENCH_DISABLE_PLUGINS=a,b`` hides entry points by name; ``BENCH_TRACE_PLUGINS=1``
prints every hook call to stderr.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

import pluggy

from benchmark import hookspecs, spec_rules
from benchmark.code_identity import code_hash
from benchmark.entry_points import LIFE_CYCLE_GROUP, installed, read
from benchmark.entry_points import Entry as Entry  # callers know it by this module
from benchmark.errors import PluginError, UsageError, did_you_mean
from benchmark.families import FAMILIES, Family, register
from benchmark.files import switched_on
from benchmark.guard import said
from benchmark.inputs.presets import InputPreset
from benchmark.specs import (
    BackboneSpec,
    ExecutorSpec,
    ExporterSpec,
    ImporterSpec,
    MethodSpec,
    MetricSpec,
    PlotSpec,
    ProtocolSpec,
    ScenarioSpec,
    TrackerSpec,
)
from benchmark.tracks import Track

Kind = Literal[
    "methods",
    "scenarios",
    "exporters",
    "importers",
    "backbones",
    "tracks",
    "presets",
    "families",
    "metrics",
    "plots",
    "executors",
    "protocols",
    "trackers",
]
Spec = (
    MethodSpec
    | ScenarioSpec
    | ExporterSpec
    | ImporterSpec
    | BackboneSpec
    | Track
    | InputPreset
    | Family
    | MetricSpec
    | PlotSpec
    | ExecutorSpec
    | ProtocolSpec
    | TrackerSpec
)
_TYPES: dict[Kind, type] = {
    "methods": MethodSpec,
    "scenarios": ScenarioSpec,
    "exporters": ExporterSpec,
    "importers": ImporterSpec,
    "backbones": BackboneSpec,
    "tracks": Track,
    "presets": InputPreset,
    "families": Family,
    "metrics": MetricSpec,
    "plots": PlotSpec,
    "executors": ExecutorSpec,
    "protocols": ProtocolSpec,
    "trackers": TrackerSpec,
}
KINDS: tuple[Kind, ...] = tuple(_TYPES)
HOOKS_HINT = "docs/hooks.md has every hook with its arguments"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A spec with its provenance.

    Attributes:
        spec: The record that the plugin returned.
        entry: Where it comes from.
        code_sha256: Hash of the syntax trees of the plugin's modules (`benchmark.code_identity`).
    """

    spec: Spec
    entry: Entry
    code_sha256: str


_files: list[ModuleType] = []  # plugins given with -p, in order
_memory: dict[tuple[Kind, str], Loaded] | None = None  # what was loaded, inside `remembered`
_looked: dict[tuple[Kind, str], Spec] | None = None  # what was only looked at, likewise


def entries(kind: Kind, *, hidden: bool = False) -> dict[str, list[Entry]]:
    """All plugins of a kind by name, without importing any.

    A name has several entries when several distributions claim it; `load` refuses such a name.

    Args:
        kind: Kind of plugin.
        hidden: Whether those that ``BENCH_DISABLE_PLUGINS`` hides are there too.
    """
    found = installed(f"bench.{kind}", hidden=hidden)
    for module in _files:
        for spec in _call(kind, module, f"file {module.__file__}"):
            claims = found.setdefault(spec.name, [])
            if all(claim.module != module.__name__ for claim in claims):  # given by -p and installed
                claims.append(Entry(spec.name, module.__name__, f"file {module.__file__}"))
    return dict(sorted(found.items()))


def names(kind: Kind) -> list[str]:
    """Sorted names of all plugins of a kind."""
    return list(entries(kind))


def singular(kind: Kind) -> str:
    """What one plugin of a kind is called."""
    return "family" if kind == "families" else kind[:-1]


def load_method(name: str) -> Loaded:
    """Imports one method. See `load`."""
    return load("methods", name)


def load_scenario(name: str) -> Loaded:
    """Imports one scenario, and its family. See `load`."""
    loaded = load("scenarios", name)
    family = cast("ScenarioSpec", loaded.spec).family
    if family not in FAMILIES:
        load_family(family)
    return loaded


def load_exporter(name: str) -> ExporterSpec:
    """Imports one exporter. See `load`."""
    return cast("ExporterSpec", load("exporters", name).spec)


def load_backbone(name: str) -> Loaded:
    """Imports one backbone, or library of backbones. See `load`."""
    return load("backbones", name)


def load_track(name: str) -> Track:
    """Imports one track. See `load`."""
    return cast("Track", load("tracks", name).spec)


def load_preset(name: str) -> InputPreset:
    """Imports one input preset. See `load`."""
    return cast("InputPreset", load("presets", name).spec)


def load_family(name: str) -> Family:
    """Imports one family, which scenarios may then be of. See `load`."""
    loaded = load("families", name)
    register(cast("Family", loaded.spec), owner=f"`{loaded.entry.distribution}`")
    return cast("Family", loaded.spec)


def load_metrics() -> tuple[MetricSpec, ...]:
    """Imports every metric. See `load`."""
    return tuple(cast("MetricSpec", load("metrics", name).spec) for name in names("metrics"))


def load_protocol(name: str) -> ProtocolSpec:
    """Imports one protocol. See `load`."""
    return cast("ProtocolSpec", load("protocols", name).spec)


def load_plot(name: str) -> PlotSpec:
    """Imports one kind of figure. See `load`."""
    return cast("PlotSpec", load("plots", name).spec)


def load(kind: Kind, name: str) -> Loaded:
    """Imports the plugin that claims ``name`` and returns its checked spec.

    Raises:
        UsageError: No plugin has this name; similar ones are suggested.
        PluginError: The name is claimed twice, or the plugin is broken.
    """
    if _memory is not None and (kind, name) in _memory:
        return _memory[kind, name]
    spec, entry, module = _found(kind, name)
    found = Loaded(spec, entry, code_hash(module))
    if _memory is not None:
        _memory[kind, name] = found
    return found


def look(kind: Kind, name: str) -> Spec:
    """The checked spec alone. See `load`, which also reads the plugin's code for its hash."""
    if _looked is None:
        return _found(kind, name)[0]
    if (kind, name) not in _looked:
        _looked[kind, name] = _found(kind, name)[0]
    return _looked[kind, name]


def find(kind: Kind, name: str) -> Entry:
    """Where a plugin is, without importing it.

    Raises:
        UsageError: No plugin has this name.
        PluginError: The name is claimed twice, or its module is not there.
    """
    entry = _claim(kind, name)
    find_module(f"{singular(kind)} `{name}`", entry)
    return entry


def find_module(what: str, entry: Entry) -> None:
    """Looks for a plugin's module; the package that it is in is imported, the module is not.

    Raises:
        PluginError: There is none.
    """
    if any(module.__name__ == entry.module for module in _files):
        return
    with _blaming(f"{what} of `{entry.distribution}` cannot be found: {entry.module}"):
        if importlib.util.find_spec(entry.module) is None:
            raise ModuleNotFoundError(f"No module named {entry.module!r}")


def _claim(kind: Kind, name: str) -> Entry:
    known = entries(kind)
    one = singular(kind)
    if name not in known:
        raise did_you_mean(one, name, known, more=f"bench list {kind}")
    claims = known[name]
    if len(claims) > 1:
        who = " and ".join(f"`{entry.distribution}` ({entry.module})" for entry in claims)
        raise PluginError(
            f"{one} `{name}` is claimed by {who}",
            hint="uninstall one of them, or rename its entry point",
        )
    return claims[0]


def _found(kind: Kind, name: str) -> tuple[Spec, Entry, ModuleType]:
    entry, one = _claim(kind, name), singular(kind)
    module = _import(one, entry)
    registered = _call(kind, module, entry.distribution)
    specs = [spec for spec in registered if _answers(spec, name)]
    if len(specs) != 1:
        listed = ", ".join(f"`{spec.name}`" for spec in registered) or "nothing"
        raise PluginError(
            f"{one} `{name}` of `{entry.distribution}`: {entry.module} registers {listed}",
            hint=f"exactly one of its records must be named like the entry point: `{name}`",
        )
    return specs[0], entry, module


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, a plugin is looked at once: for plans of many runs, while nobody installs or adds one."""
    global _memory, _looked
    outer = _memory, _looked
    _memory = {} if _memory is None else _memory
    _looked = {} if _looked is None else _looked
    try:
        yield
    finally:
        _memory, _looked = outer


def _answers(spec: Spec, name: str) -> bool:
    return spec.name == name or name in getattr(spec, "aliases", ())


def _import(what: str, entry: Entry) -> ModuleType:
    for module in _files:
        if module.__name__ == entry.module:
            return module
    with _blaming(
        f"{what} `{entry.name}` of `{entry.distribution}` cannot be imported: {entry.module}",
        hint=f"the other plugins work; fix or uninstall `{entry.distribution.split(' ')[0]}`, "
        f"or hide it with BENCH_DISABLE_PLUGINS={entry.name}",
    ):
        return importlib.import_module(entry.module)


@contextmanager
def _blaming(what: str, *, hint: str | None = None) -> Iterator[None]:
    """Whatever a plugin raises, `SystemExit` included, becomes an error that names it; Ctrl-C stays itself.

    Raises:
        PluginError: With ``what`` and what the plugin said.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        words = str(error) if isinstance(error, spec_rules.Wrong) else said(error)
        raise PluginError(f"{what}: {words}", hint=hint) from error


def _call(kind: Kind, module: ModuleType, distribution: str) -> list[Spec]:
    """Calls the registration hook of one module and checks what it returns."""
    manager = _checked_manager(module, distribution)
    hook = f"bench_register_{kind}"
    what = f"{module.__name__} of `{distribution}`: {hook}"
    with _blaming(f"{what} failed"):
        results = [
            tuple(result) if isinstance(result, (list, tuple)) else result for result in getattr(manager.hook, hook)()
        ]
    record = _TYPES[kind]
    specs: list[Spec] = []
    for result in results:
        if not isinstance(result, tuple):
            raise PluginError(f"{what} returned {type(result).__name__}", hint=f"return a list of {record.__name__}")
        for spec in result:
            if type(spec) is not record:
                raise PluginError(
                    f"{what} returned a {type(spec).__name__} in its list",
                    hint=f"return {record.__name__} records from {record.__module__}",
                )
            with _blaming(f"{what}: {getattr(spec, 'name', '')!r:.100}", hint=f"correct this {record.__name__}"):
                spec_rules.check(spec, _known)
            specs.append(cast("Spec", spec))
    return sorted(specs, key=lambda spec: spec.name)


def _known(kind: str) -> Collection[str]:
    """Names that a record may refer to; hiding a plugin does not make those that name it wrong."""
    return entries(cast("Kind", kind), hidden=True)


def _checked_manager(module: ModuleType, distribution: str) -> pluggy.PluginManager:
    """A manager of one module; a misspelt hook, or an argument that a hook does not have, is an error."""
    what = f"{module.__name__} of `{distribution}`"
    try:
        with _blaming(f"{what} cannot be registered"):
            manager = _manager([module])
        manager.check_pending()
    except PluginError as error:
        if not isinstance(error.__cause__, pluggy.PluginValidationError):
            raise
        raise PluginError(f"{what}: {' '.join(str(error.__cause__).split())}", hint=HOOKS_HINT) from error.__cause__
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{what} implements an unknown hook: {error}", hint=HOOKS_HINT) from error
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


def listeners() -> dict[str, list[Entry]]:
    """The life-cycle plugins of packages by name (group ``bench``), without importing any."""
    return installed(LIFE_CYCLE_GROUP)


def load_listener(entry: Entry) -> ModuleType:
    """Imports one life-cycle plugin and checks the names of its hooks.

    Raises:
        PluginError: It cannot be imported or implements an unknown hook.
    """
    module = _import("life-cycle plugin", entry)
    _checked_manager(module, entry.distribution)
    return module


def life_cycle(report: Callable[[Entry, PluginError], None] | None = None) -> pluggy.PluginManager:
    """A manager with every plugin of the group ``bench`` and every ``-p`` file.

    Args:
        report: Told of each installed plugin that is left out because it is broken; None raises instead.

    Raises:
        PluginError: One of them cannot be imported or implements an unknown hook.
    """
    modules: list[ModuleType] = []
    # pluggy calls the last registered first: register in reverse to call in the order of names.
    for entry in reversed([entry for _, claims in sorted(listeners().items()) for entry in claims]):
        try:
            module = load_listener(entry)
        except PluginError as error:
            if report is None:
                raise
            report(entry, error)
        else:
            modules.append(module)
    for module in _files:
        _checked_manager(module, f"file {module.__file__}")
    return _manager([*modules, *(module for module in _files if module not in modules)])


def without_life_cycle() -> pluggy.PluginManager:
    """A manager that tells no plugin anything."""
    return _manager([])


def add_file(path: Path) -> None:
    """Loads an unpackaged plugin (``-p FILE.py``); its specs join the registry.

    The file of an installed plugin is that plugin: it is loaded once, under its own name.

    Raises:
        UsageError: The file does not exist.
        PluginError: It cannot be imported.
    """
    given = path
    try:
        path = path.resolve()
        there = path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise UsageError(f"-p {given}: {error}", hint="give the path of a Python file with hooks") from error
    if not there:
        raise UsageError(f"-p {path}: no such file", hint="give the path of a Python file with hooks")
    if path.suffix != ".py":
        raise UsageError(f"-p {path}: not a Python file", hint="its name must end in .py")
    if any(module.__file__ == str(path) for module in _files):
        return
    with _blaming(f"-p {path} cannot be imported"):
        module = _installed_as(path) or _from_file(path)
    if module not in _files:
        _files.append(module)


def added_files() -> list[Path]:
    """The files of `add_file`, in order."""
    return [Path(module.__file__) for module in _files if module.__file__]


def _installed_as(path: Path) -> ModuleType | None:
    """The module of an entry point whose source is this file, imported; None where there is none."""
    stem = path.parent.name if path.stem == "__init__" else path.stem
    modules = {point.module for points in read().values() for point in points}
    for name in sorted(module for module in modules if module.rpartition(".")[2] == stem):
        try:
            spec = importlib.util.find_spec(name)
        except KeyboardInterrupt:
            raise
        except BaseException:  # its package cannot be imported: nothing that works is this file
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path:
            return importlib.import_module(name)
    return None


def _from_file(path: Path) -> ModuleType:
    """Imports a file under a name of its own."""
    name = f"bench_file_{path.stem}"
    taken = {module.__name__ for module in _files}
    if name in taken:  # the same file name in another folder
        name = next(other for number in itertools.count(2) if (other := f"{name}_{number}") not in taken)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # of a file that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
