"""Whatever a plugin does wrong is one `PluginError` that names it, and exit code 3."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from benchmark import entry_points, families, registry
from benchmark.cli import main
from benchmark.errors import EXIT_PLUGIN, PluginError, UsageError
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import InputPreset
from benchmark.jobs import Job
from benchmark.run import plan
from benchmark.specs import MethodSpec

pytestmark = pytest.mark.usefixtures("registry_as_it_was")

HEAD = """
from dataclasses import dataclass
from benchmark import *
from benchmark.api import MethodConfig
from benchmark.config import Range
from benchmark.inputs.presets import InputPreset

@dataclass(frozen=True, kw_only=True)
class Options(MethodConfig):
    lr: float = 0.1

@dataclass(frozen=True, kw_only=True)
class Sizes:
    train: int = 2

def with_lr(value):
    @dataclass(frozen=True, kw_only=True)
    class Odd(MethodConfig):
        lr: float = value
    return Odd

def two(config, context): ...
def one(given): ...
def load(name, *, weights, offline, image_size): ...

def method(**changes):
    return MethodSpec(**{"name": "mine", "build": two, "config": Options, "summary": "x", **changes})

def scenario(**changes):
    given = {"name": "mine", "build": two, "config": Sizes, "summary": "x", "family": "class-il"}
    return ScenarioSpec(**{**given, "tracks": {"nano": "plain"}, **changes})

def exporter(**changes):
    return ExporterSpec(**{"name": "mine", "export": one, "summary": "x", **changes})

def backbone(**changes):
    return BackboneSpec(**{"name": "mine", "load": load, "summary": "x", **changes})

def track(**changes):
    return Track(**{"name": "mine", "backbone": "nano-vit", "summary": "x", **changes})

def preset(**changes):
    return InputPreset(**{"name": "mine", "train": "none", **changes})

def family(**changes):
    return Family(**{"name": "mine", "summary": "x", **changes})

def metric(**changes):
    given = {"name": "mine", "heading": "Mine", "compute": lambda accuracy: 1.0, "summary": "x"}
    return MetricSpec(**{**given, **changes})

def executor(**changes):
    return ExecutorSpec(**{"name": "mine", "execute": two, "summary": "x", **changes})

def importer(**changes):
    return ImporterSpec(**{"name": "mine", "read": one, "summary": "x", "suite": "Theirs", **changes})

def protocol(**changes):
    given = {"name": "mine", "summary": "x", "family": "uda", "axes": {"lr": Range(search=(0.1, 1.0)), "mask": ("a",)}}
    return ProtocolSpec(**{**given, **changes})

def tracker(**changes):
    return TrackerSpec(**{"name": "mine", "open": one, "summary": "x", **changes})

def plot(**changes):
    return PlotSpec(**{"name": "mine", "draw": one, "summary": "x", **changes})
"""
MAKER = {"methods": "method", "scenarios": "scenario", "exporters": "exporter", "importers": "importer"}
MAKER |= {
    "backbones": "backbone",
    "tracks": "track",
    "presets": "preset",
    "families": "family",
    "metrics": "metric",
    "plots": "plot",
    "executors": "executor",
    "protocols": "protocol",
    "trackers": "tracker",
}


def plugin(folder: Path, text: str, name: str = "strange.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def registers(kind: str, expression: str) -> str:
    return f"{HEAD}\n@hookimpl\ndef bench_register_{kind}():\n    return [{expression}]\n"


def load(folder: Path, kind: registry.Kind, expression: str) -> registry.Loaded:
    registry.add_file(plugin(folder, registers(kind, expression)))
    return registry.load(kind, "mine")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_record_as_it_should_be_is_let_in(kind: registry.Kind, tmp_path: Path) -> None:
    assert load(tmp_path, kind, f"{MAKER[kind]}()").spec.name == "mine"


@pytest.mark.parametrize(
    "name", ["3", "None", "''", "'a/b'", "'a@b'", "'a,b'", "'a:b'", "'a\\x1b[31mb'", "'a b'", "'..'"]
)
@pytest.mark.parametrize("kind", registry.KINDS)
def test_names_are_fit_for_paths_and_commands(kind: registry.Kind, name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=rf"strange\.py`: bench_register_{kind}: .*name: .* is no name"):
        load(tmp_path, kind, f"{MAKER[kind]}(name={name})")


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("methods", "build=3", "build: 3 cannot be called"),
        ("methods", "build=one", r"build: it is called with 2 argument\(s\), but: too many"),
        ("methods", "build=load", r"build: it is called with 2 argument\(s\), but"),
        ("methods", "config=dict", "config: .* is no dataclass"),
        ("methods", "config=Options()", "config: .* is no dataclass"),
        ("methods", "config=dataclass(type('Loose', (), {}))", "config: Loose can be changed"),
        ("methods", "config=Sizes", "config: Sizes lacks the option `augment`; derive it from MethodConfig"),
        ("methods", "config=with_lr(None)", r"Odd\.lr: None is not a number"),
        ("methods", "config=with_lr('0.1')", r"Odd\.lr: '0\.1' is not of type float"),
        ("methods", "config=with_lr(float('nan'))", r"Odd\.lr: nan is not a finite number"),
        ("methods", "config=with_lr(object())", r"Odd\.lr: .* is not a number"),
        ("methods", "summary=None", "summary: None is not one line of text"),
        ("methods", "summary='a\\nb'", "summary: .* is not one line of text"),
        ("methods", "summary='a\\u202eb'", "summary: .* is not one line of text"),
        ("methods", "uses='boundaries'", "uses: 'boundaries' is no frozenset of words"),
        ("methods", "uses=frozenset({'telepathy'})", "uses: .*telepathy.* is no frozenset of words among boundaries"),
        ("methods", "uses=lambda: frozenset()", r"uses: it is called with 1 argument\(s\), but"),
        ("methods", "supports=3", "supports: 3 cannot be called"),
        ("methods", "recipes=['a']", "recipes: .* is no mapping"),
        ("methods", "recipes={'a/b': {}}", "recipes: 'a/b' is no name"),
        ("methods", "recipes={'a': 3}", "recipes: a: 3 is no mapping of options"),
        ("methods", "recipes={'a': {'lrr': 1}}", "recipes: a: unknown option `option.lrr`; did you mean `option.lr`"),
        ("methods", "recipes={'a': {'lr': 'fast'}}", "recipes: a: option.lr: 'fast' is not a number"),
        ("methods", "recipes={'default': {}}", "default_recipe: `default` is a recipe too"),
        ("methods", "tracks={'minni': {}}", "tracks: the track 'minni' is unknown; use one of .*mini"),
        ("methods", "tracks={'mini': {'lrr': 1}}", "tracks: mini: unknown option"),
        ("methods", "toy={'lrr': 1}", "toy: the option 'lrr' is unknown"),
        ("methods", "toy={'lr': 0.5}", "toy: lr=0.5 is not a whole number"),
        ("methods", "sources={'lr': 3}", "sources: 'lr': 3 is not text"),
        ("methods", "stream='parallel'", "stream: 'parallel' is unknown"),
        ("methods", "stream=[]", r"stream: \[\] is unknown"),
        ("methods", "text='yes'", "text: 'yes' is not True or False"),
        ("methods", "reads='sound'", "reads: 'sound' is unknown; use one of image, text"),
        ("methods", "pretrained=None", "pretrained: None is not True or False"),
        ("methods", "pretrained=False", "pretrained: images are sized and normalised as a pretrained model wants them"),
        ("methods", "paper=3", "paper: 3 is not one line of text"),
        ("scenarios", "build=one", "build: it is called with 2"),
        ("scenarios", "config=type('Bad', (), {'__annotations__': {'a': 1}})", "config: .* is no dataclass"),
        ("scenarios", "family='klass-il'", "family: the family 'klass-il' is unknown; use one of base-to-new"),
        ("scenarios", "family=[]", r"family: the family \[\] is unknown"),
        ("scenarios", "tracks={}", "tracks: there is none"),
        ("scenarios", "tracks={'minni': 'plain'}", "tracks: the track 'minni' is unknown"),
        ("scenarios", "tracks={'mini': 'plane'}", "tracks: mini: the input preset 'plane' is unknown"),
        ("scenarios", "variant='split'", "variant: the option 'split' is unknown; use one of train"),
        ("scenarios", "variants='abc'", "variants: 'abc' is no tuple of names"),
        ("scenarios", "variants=('a',)", "variants: `variant` does not say which option they set"),
        ("scenarios", "aliases='other'", "aliases: 'other' is no tuple of names"),
        ("scenarios", "size_mb=float('nan')", "size_mb: nan is no size"),
        ("exporters", "export=load", "export: it is called with 1"),
        ("exporters", "suffix='txt'", "suffix: 'txt' is no file suffix"),
        ("backbones", "load=one", "load: it is called with 1 argument"),
        ("backbones", "describe=two", "describe: it is called with 1 argument"),
        ("backbones", "tag=3", "tag: 3 is not one line"),
        ("tracks", "backbone=''", "backbone: the backbone '' is unknown"),
        ("tracks", "backbone='nano-wit'", "backbone: the backbone 'nano-wit' is unknown"),
        ("tracks", "dual='nano-wit'", "dual: the backbone 'nano-wit' is unknown"),
        ("presets", "train='crop'", "train: 'crop' is unknown; use one of none"),
        ("presets", "interpolation='nearest'", "interpolation: 'nearest' is unknown"),
        ("presets", "padding=1.5", "padding: 1.5 is no number of pixels"),
        ("presets", "flip=1", "flip: 1 is not True or False"),
        ("presets", "area=(0.5, 0.2)", "area: .* is no range"),
        ("presets", "area=0.5", "area: 0.5 is no pair"),
        ("presets", "grey=2", r"grey: 2 is no number in \[0, 1\]"),
        ("presets", "test_resize=float('nan')", "test_resize: nan is no number"),
        ("families", "stream='yes'", "stream: 'yes' is not True or False"),
        ("families", "headline=3", "headline: 3 is not one line of text"),
        ("families", "further={'a': 3}", "further: .* is no mapping of text to text"),
        ("metrics", "needs=('labels',)", "needs: .* is no tuple of words among accuracy, counts"),
        ("metrics", "needs=('counts',)", "compute: it is called with"),
        ("metrics", "heading=None", "heading: None is not one line of text"),
        ("metrics", "percent='yes'", "percent: 'yes' is not True or False"),
        ("importers", "read=two", "read: it is called with 1 argument"),
        ("importers", "version='2'", "version: '2' is no whole number"),
        ("importers", "suite=None", "suite: None is not one line of text"),
        ("executors", "execute=one", "execute: it is called with 2 argument"),
        ("trackers", "open=two", "open: it is called with 1 argument"),
        ("trackers", "needs=3", "needs: 3 is not one line of text"),
        ("plots", "draw=two", "draw: it is called with 1 argument"),
        ("plots", "config=Options", "draw: it has no parameter `request`"),
        ("protocols", "family='uda2'", "family: 'uda2' is no family"),
        ("protocols", "strategy='best'", "strategy: 'best' is unknown; use one of random, grid"),
        ("protocols", "budget=0", "budget: 0 is not a whole number that is 1 or more"),
        ("protocols", "seeds=True", "seeds: True is not a whole number"),
        ("protocols", "select=('lucky',)", "select: .* is no tuple of words among training-domain"),
        ("protocols", "axes={}", "axes: {} is no mapping"),
        ("protocols", "axes={'lr': Range(log=True)}", "axes: lr: .* is neither a Range with search nor a tuple"),
    ],
)
def test_junk_in_a_record_is_named(kind: registry.Kind, change: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=rf"strange\.py`: bench_register_{kind}: 'mine': {problem}"):
        load(tmp_path, kind, f"{MAKER[kind]}({change})")


def test_a_scenario_brings_its_family_with_it(tmp_path: Path) -> None:
    text = registers("scenarios", "scenario(family='noise-il')")
    text += "@hookimpl\ndef bench_register_families():\n    return [family(name='noise-il', stream=True)]\n"
    registry.add_file(plugin(tmp_path, text))
    assert registry.load_scenario("mine").spec.name == "mine"
    try:
        assert families.get("noise-il").stream
    finally:
        del families.REGISTERED["noise-il"]


@pytest.mark.parametrize("raised", ["SystemExit", "SystemExit(0)", "GeneratorExit", "BaseException('x')", "Rude"])
@pytest.mark.parametrize("place", ["import", "hook"])
def test_nothing_that_a_plugin_raises_ends_the_program(
    place: str, raised: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rude = "class Rude(Exception):\n    def __str__(self): raise KeyError\n"
    text = f"{rude}raise {raised}" if place == "import" else f"{rude}{registers('exporters', 'stop()')}"
    path = plugin(tmp_path, f"{text}\ndef stop(): raise {raised}\n")
    assert main(["-p", str(path), "list", "exporters"]) == EXIT_PLUGIN
    said = capsys.readouterr().err
    assert "strange.py" in said
    assert raised.partition("(")[0] in said
    assert "Traceback" not in said


def test_ctrl_c_in_a_plugin_is_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        registry.add_file(plugin(tmp_path, "raise KeyboardInterrupt"))


@pytest.mark.parametrize(
    ("hook", "problem"),
    [
        ("def bench_register_methods(registry): ...", "registry"),
        ("def bench_experience_ended(event, colour): ...", "colour"),
        ("def bench_experience_endet(): ...", "unknown hook.*bench_experience_endet"),
    ],
)
def test_a_hook_with_an_unknown_name_or_argument_is_named(hook: str, problem: str, tmp_path: Path) -> None:
    registry.add_file(plugin(tmp_path, f"from benchmark import hookimpl\n@hookimpl\n{hook}\n"))
    with pytest.raises(PluginError, match=rf"strange.*{problem}"):
        registry.life_cycle()
    with pytest.raises(PluginError, match=rf"strange.*{problem}"):
        registry.names("methods")


def test_a_name_registered_twice_by_one_module_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="registers `mine`, `mine`"):
        load(tmp_path, "plots", "plot(), plot()")


def test_equal_file_names_in_two_folders_are_two_plugins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        registry.add_file(plugin(tmp_path / name, registers("plots", f"plot(name='{name}')")))
    assert {"one", "two"} <= set(registry.names("plots"))
    assert registry.load_plot("two").name == "two"
    assert len(registry.life_cycle().get_plugins()) >= 2


@pytest.mark.parametrize("path", ["x" * 5000 + ".py", "notes.txt"])
def test_what_is_no_plugin_file_is_a_usage_error(path: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="-p "):
        registry.add_file(tmp_path / path)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``bench-tracker`` with a life-cycle plugin, on the path."""
    info = tmp_path / "bench_tracker-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-tracker\nVersion: 0.1\n", encoding="utf-8")
    points = "[bench]\ntracker = bench_tracker.track\n[bench.plots]\nmine = bench_tracker.track\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    (tmp_path / "bench_tracker").mkdir()
    (tmp_path / "bench_tracker" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points.read.cache_clear()
    yield tmp_path / "bench_tracker"
    monkeypatch.undo()
    entry_points.read.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("bench_tracker")]:
        del sys.modules[name]


def test_a_tracker_that_is_installed_and_given_runs_once(installed: Path) -> None:
    path = plugin(
        installed,
        registers("plots", "plot()") + "calls = []\n@hookimpl\ndef bench_experience_started(event): calls.append(1)\n",
        "track.py",
    )
    registry.add_file(path)
    registry.life_cycle().hook.bench_experience_started(event=None)
    assert sys.modules["bench_tracker.track"].calls == [1]
    assert [claim.distribution for claim in registry.entries("plots")["mine"]] == ["bench-tracker 0.1"]
    assert registry.load_plot("mine").name == "mine"


@pytest.mark.parametrize("text", ["raise SystemExit(0)", "raise BaseException", "def bench_x(): ...\n1 / 0"])
def test_an_installed_life_cycle_plugin_that_stops_is_left_out(text: str, installed: Path) -> None:
    plugin(installed, text, "track.py")
    with pytest.raises(PluginError, match=r"life-cycle plugin `tracker` of `bench-tracker 0\.1` cannot be imported"):
        registry.life_cycle()
    told: list[str] = []
    assert not registry.life_cycle(lambda entry, error: told.append(entry.distribution)).get_plugins()
    assert told == ["bench-tracker 0.1"]


@pytest.mark.parametrize("uses", [lambda config: 1 / 0, lambda config: "memory", lambda config: frozenset({"x"})])
def test_a_function_of_uses_that_is_wrong_is_named(uses: object) -> None:
    spec = MethodSpec(name="mine", build=print, config=dict, summary="", uses=uses)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="method `mine`: `uses`"):
        spec.uses_of(None)


def test_the_values_of_a_strangers_preset_are_part_of_a_runs_identity(tmp_path: Path) -> None:
    preset = load(tmp_path, "presets", "preset(train='resized_crop', area=(0.1, 1.0))").spec
    about: dict[str, Any] = {"size": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    facts = ImagePipeline(cast("InputPreset", preset), **about).facts()
    assert facts["preset_values"]["area"] == [0.1, 1.0]
    assert "preset_values" not in ImagePipeline("plain", **about).facts()


def test_the_code_of_a_strangers_backbone_is_part_of_a_runs_identity(tmp_path: Path) -> None:
    found = []
    for text in ("x", "y"):
        registry._files.clear()
        registry.add_file(plugin(tmp_path, registers("backbones", f"backbone(summary='{text}')")))
        given = Job(scenario="split-glyphs", method="nearest-mean", backbone="mine")
        about: dict[str, Any] = {"fingerprint": "f", "partition": "", "inputs": {}, "weights_sha256": "w"}
        found.append(plan.resolve(given).run_id(**about, device="cpu"))
    assert found[0] != found[1]


def test_hiding_a_track_breaks_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DISABLE_PLUGINS", "mini")
    assert "mini" not in registry.names("tracks")
    assert registry.load_scenario("pacs").spec.name == "pacs"
