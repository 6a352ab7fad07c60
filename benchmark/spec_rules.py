"""What a record of a plugin must be like to be let in: names, functions, options, words that exist.

The registry asks `check` of every record that a registration hook returns, and names the plugin in front of the
reason. So nothing behind the registry meets a name that breaks a path, an option that no configuration has, or a
function that cannot be called as it will be.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AnySet
from typing import Any

from benchmark import config as configs
from benchmark.config import Range
from benchmark.data import DataSet
from benchmark.errors import UsageError
from benchmark.families import Family
from benchmark.inputs.presets import InputPreset
from benchmark.samples import KINDS
from benchmark.specs import (
    NEEDS,
    SELECT,
    USES,
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
from benchmark.tuning.strategies import STRATEGIES

# Names become parts of paths, of commands (`name/variant`, `name@recipe`, `a,b`, `name:tag`) and of option keys
# (`name.option=value`).
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
LONGEST = 80
STREAMS = ("sequential", "joint", "oracle")
CROPS = ("none", "pad_crop", "resized_crop", "random_crop")
INTERPOLATIONS = ("bilinear", "bicubic")
MODELS = ("masked", "causal", "encoder-decoder")
# The engine reads these of every method's options.
ENGINE_OPTIONS = {"epochs", "batch_size"}
IMAGE_OPTIONS = {"normalize", "augment"}

Known = Callable[[str], Collection[str]]


class Wrong(ValueError):
    """A record is not as it must be; the message names the field."""


def check(record: Any, known: Known) -> None:
    """Checks a record that a plugin registers.

    Args:
        record: Of one of the classes that registration hooks return.
        known: Names that exist of a kind, e.g. of ``tracks``.

    Raises:
        Wrong: The field that is wrong, and what it may be.
    """
    name(record.name, "name")
    _line(record, "summary")
    CHECKS[type(record)](record, known)


def name(value: object, field: str) -> None:
    """Checks a name of a plugin, recipe or variant.

    Raises:
        Wrong: It is no string, or holds a character that means something else in commands and paths.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value) or len(value) > LONGEST:
        raise Wrong(
            f"{field}: {value!r:.200} is no name; use up to {LONGEST} of the characters a-z, A-Z, 0-9, `-`, `_` and "
            "`+`, a letter or digit first"
        )


def _method(spec: MethodSpec, known: Known) -> None:
    options = _options(spec.config)
    if spec.reads not in KINDS:
        raise Wrong(f"reads: {spec.reads!r:.200} is unknown; use one of {', '.join(KINDS)}")
    needed = ENGINE_OPTIONS | (IMAGE_OPTIONS if spec.reads == "image" else set())
    if missing := sorted(needed - set(options)):
        raise Wrong(f"config: {spec.config.__name__} lacks the option `{missing[0]}`; derive it from MethodConfig")
    _callable(spec, "build", 2)
    if spec.supports is not None:
        _callable(spec, "supports", 1)
    if callable(spec.tokens):
        _callable(spec, "tokens", 1)
    else:
        _flag(spec, "tokens")
    if callable(spec.uses):
        _callable(spec, "uses", 1)
    elif not isinstance(spec.uses, AnySet) or not spec.uses <= USES.keys():
        raise Wrong(f"uses: {spec.uses!r:.200} is no frozenset of words among {', '.join(USES)}")
    name(spec.default_recipe, "default_recipe")
    for recipe, values in _mapping(spec, "recipes").items():
        name(recipe, "recipes")
        _values(spec.config, values, f"recipes: {recipe}")
    for recipe in _mapping(spec, "engine"):
        _known(recipe, "engine", [spec.default_recipe, *spec.recipes], "recipe")
    if spec.default_recipe in spec.recipes:
        raise Wrong(f"default_recipe: `{spec.default_recipe}` is a recipe too; give the class defaults another name")
    for track, values in _mapping(spec, "tracks").items():
        _known(track, "tracks", known("tracks"), "track")
        _values(spec.config, values, f"tracks: {track}")
    for option, largest in _mapping(spec, "toy").items():
        _known(option, "toy", options, "option")
        if type(largest) is not int:
            raise Wrong(f"toy: {option}={largest!r:.200} is not a whole number")
    for field, source in _mapping(spec, "sources").items():
        if not isinstance(field, str) or not isinstance(source, str):
            raise Wrong(f"sources: {field!r:.200}: {source!r:.200} is not text to text")
    if spec.stream not in STREAMS:
        raise Wrong(f"stream: {spec.stream!r:.200} is unknown; use one of {', '.join(STREAMS)}")
    for field in ("control", "text", "cloze", "classifies", "generates", "pretrained"):
        _flag(spec, field)
    if not spec.classifies and not spec.generates:
        raise Wrong("generates: a method that does not classify must generate; else it answers nothing")
    if not isinstance(spec.models, tuple) or not spec.models or not set(spec.models) <= set(MODELS):
        raise Wrong(f"models: {spec.models!r:.200} is no tuple of {', '.join(MODELS)}")
    if spec.reads == "image" and not spec.pretrained:
        raise Wrong(
            "pretrained: images are sized and normalised as a pretrained model wants them; only texts do without"
        )
    for field in ("rule", "paper", "display", "reference", "published"):
        _line(spec, field)


def _scenario(spec: ScenarioSpec, known: Known) -> None:
    options = _options(spec.config)
    _callable(spec, "build", 2)
    _known(spec.family, "family", known("families"), "family")
    if not _mapping(spec, "tracks"):
        raise Wrong("tracks: there is none; offer the scenario on one, e.g. {'nano': 'plain'}")
    for track, preset in spec.tracks.items():
        _known(track, "tracks", known("tracks"), "track")
        if preset != "":  # samples that are no images have none
            _known(preset, f"tracks: {track}", known("presets"), "input preset")
    _line(spec, "variant")
    if spec.variant:
        _known(spec.variant, "variant", options, "option")
    for field in ("variants", "aliases"):
        values = getattr(spec, field)
        if not isinstance(values, (tuple, list)) or not all(isinstance(value, str) for value in values):
            raise Wrong(f"{field}: {values!r:.200} is no tuple of names")
    if spec.variants and not spec.variant:
        raise Wrong("variants: `variant` does not say which option they set")
    for alias in spec.aliases:
        name(alias, "aliases")
    for field in ("source", "licence", "tag"):
        _line(spec, field)
    if spec.example is not None:
        _callable(spec, "example", 1)
    if bool(spec.tag) != (spec.example is not None):
        raise Wrong("tag: a library has both `tag` and `example`, any other scenario has none of them")
    if not isinstance(spec.data, tuple) or not all(isinstance(one, DataSet) for one in spec.data):
        raise Wrong(f"data: {spec.data!r:.200} is no tuple of benchmark.data.DataSet")
    if spec.miniature is not None:
        _callable(spec, "miniature", 1)
    _flag(spec, "data_by_variant")
    size = spec.size_mb
    if isinstance(size, bool) or not isinstance(size, (int, float)) or not 0 <= size < float("inf"):
        raise Wrong(f"size_mb: {size!r:.200} is no size in megabytes")


def _exporter(spec: ExporterSpec, known: Known) -> None:
    _callable(spec, "export", 1)
    if not isinstance(spec.suffix, str) or not re.fullmatch(r"\.\w+", spec.suffix):
        raise Wrong(f"suffix: {spec.suffix!r:.200} is no file suffix; for example `.txt`")


def _importer(spec: ImporterSpec, known: Known) -> None:
    _callable(spec, "read", 1)
    for field in ("suite", "files"):
        _line(spec, field)
    if type(spec.version) is not int or spec.version < 1:
        raise Wrong(f"version: {spec.version!r:.200} is no whole number that is 1 or more")


def _backbone(spec: BackboneSpec, known: Known) -> None:
    _callable(spec, "load", 1, "weights", "offline", "image_size")
    if spec.describe is not None:
        _callable(spec, "describe", 1)
    if spec.tokenless is not None:
        _callable(spec, "tokenless", 1)
    _line(spec, "tag")
    if spec.reads not in KINDS:
        raise Wrong(f"reads: {spec.reads!r:.200} is unknown; use one of {', '.join(KINDS)}")


def _track(track: Track, known: Known) -> None:
    for field in ("backbone", "dual"):
        _line(track, field)
        model = getattr(track, field)
        if model or field == "backbone":
            _known(model.partition(":")[0], field, known("backbones"), "backbone")
    for kind, model in _mapping(track, "language").items():
        _known(kind, "language", MODELS, "kind of language model")
        _known(str(model).partition(":")[0], f"language: {kind}", known("backbones"), "backbone")


def _preset(preset: InputPreset, known: Known) -> None:
    if preset.train not in CROPS:
        raise Wrong(f"train: {preset.train!r:.200} is unknown; use one of {', '.join(CROPS)}")
    if preset.interpolation not in INTERPOLATIONS:
        raise Wrong(f"interpolation: {preset.interpolation!r:.200} is unknown; use one of {', '.join(INTERPOLATIONS)}")
    for field in ("flip", "square", "test_square"):
        _flag(preset, field)
    if type(preset.padding) is not int or preset.padding < 0:
        raise Wrong(f"padding: {preset.padding!r:.200} is no number of pixels")
    area = preset.area
    if not isinstance(area, (tuple, list)) or len(area) != 2 or not all(_number(share) for share in area):
        raise Wrong(f"area: {area!r:.200} is no pair of shares of the area")
    if not 0 < area[0] <= area[1] <= 1:
        raise Wrong(f"area: {area!r:.200} is no range in (0, 1]")
    for field, least, most in (("test_resize", 1, 10), ("jitter", 0, 0.5), ("grey", 0, 1)):
        value = getattr(preset, field)
        if not _number(value) or not least <= value <= most:
            raise Wrong(f"{field}: {value!r:.200} is no number in [{least}, {most}]")
    _line(preset, "source")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flag(record: Any, field: str) -> None:
    if not isinstance(getattr(record, field), bool):
        raise Wrong(f"{field}: {getattr(record, field)!r:.200} is not True or False")


def _family(family: Family, known: Known) -> None:
    for part in dataclasses.fields(family):
        value = getattr(family, part.name)
        if part.type == "bool":
            _flag(family, part.name)
        elif not isinstance(value, Mapping):
            _line(family, part.name)
        elif not all(isinstance(word, str) and word.isprintable() for pair in value.items() for word in pair):
            raise Wrong(f"{part.name}: {value!r:.200} is no mapping of text to text")


def _executor(spec: ExecutorSpec, known: Known) -> None:
    _callable(spec, "execute", 2)
    if spec.config is not None:
        _options(spec.config)


def _tracker(spec: TrackerSpec, known: Known) -> None:
    _callable(spec, "open", 1)
    for field in ("needs", "install"):
        _line(spec, field)
    if spec.config is not None:
        _options(spec.config)


def _metric(spec: MetricSpec, known: Known) -> None:
    _line(spec, "heading")
    if not isinstance(spec.needs, tuple) or not set(spec.needs) <= NEEDS.keys():
        raise Wrong(f"needs: {spec.needs!r:.200} is no tuple of words among {', '.join(NEEDS)}")
    _callable(spec, "compute", 0, *spec.needs)
    if not isinstance(spec.percent, bool):
        raise Wrong(f"percent: {spec.percent!r:.200} is not True or False")


def _plot(spec: PlotSpec, known: Known) -> None:
    _callable(spec, "draw", 1, *(["request"] if spec.asks else []))
    if spec.config is not None:
        _options(spec.config)
        if not spec.asks:
            raise Wrong("draw: it has no parameter `request`, which would hold the options of `config`")


def _protocol(spec: ProtocolSpec, known: Known) -> None:
    _line(spec, "source")
    if spec.family not in known("families"):
        raise Wrong(f"family: {spec.family!r:.200} is no family")
    if spec.strategy not in STRATEGIES:
        raise Wrong(f"strategy: {spec.strategy!r:.200} is unknown; use one of {', '.join(STRATEGIES)}")
    for field in ("budget", "seeds"):
        if type(value := getattr(spec, field)) is not int or value < 1:
            raise Wrong(f"{field}: {value!r:.200} is not a whole number that is 1 or more")
    if not isinstance(spec.select, tuple) or not spec.select or not set(spec.select) <= SELECT.keys():
        raise Wrong(f"select: {spec.select!r:.200} is no tuple of words among {', '.join(SELECT)}")
    if not isinstance(spec.axes, Mapping) or not spec.axes:
        raise Wrong(f"axes: {spec.axes!r:.200} is no mapping of options to what is searched")
    for name, axis in spec.axes.items():
        if not (isinstance(axis, tuple) and axis) and not (isinstance(axis, Range) and axis.search):
            raise Wrong(f"axes: {name}: {axis!r:.200} is neither a Range with search nor a tuple of values")


CHECKS: dict[type, Callable[[Any, Known], None]] = {
    MethodSpec: _method,
    ScenarioSpec: _scenario,
    ExporterSpec: _exporter,
    ImporterSpec: _importer,
    BackboneSpec: _backbone,
    Track: _track,
    InputPreset: _preset,
    Family: _family,
    MetricSpec: _metric,
    PlotSpec: _plot,
    ExecutorSpec: _executor,
    ProtocolSpec: _protocol,
    TrackerSpec: _tracker,
}


def _line(record: Any, field: str) -> None:
    """One line of text without control characters; it is printed in tables and terminals."""
    value = getattr(record, field)
    if not isinstance(value, str) or not value.isprintable():
        raise Wrong(f"{field}: {value!r:.200} is not one line of text")


def _known(value: object, field: str, allowed: Collection[str], what: str) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise Wrong(f"{field}: the {what} {value!r:.200} is unknown; use one of {', '.join(allowed)}")


def _mapping(record: Any, field: str) -> Mapping[Any, Any]:
    value = getattr(record, field)
    if not isinstance(value, Mapping):
        raise Wrong(f"{field}: {value!r:.200} is no mapping")
    return value


def _options(config: object) -> list[str]:
    """Names of the options of a frozen dataclass."""
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        raise Wrong(f"config: {config!r:.200} is no dataclass; give the class of the options, not an object")
    if not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise Wrong(f"config: {config.__name__} can be changed; write @dataclass(frozen=True)")
    _values(config, {}, "config")
    return [field.name for field in dataclasses.fields(config)]


def _values(config: type, values: object, field: str) -> None:
    """Values of options, as a recipe or a track gives them."""
    if not isinstance(values, Mapping) or not all(isinstance(option, str) for option in values):
        raise Wrong(f"{field}: {values!r:.200} is no mapping of options to values")
    try:
        configs.check_types(configs.resolve(config, [configs.Layer(field, values)], key="option")[0])
    except UsageError as error:
        raise Wrong(f"{error.message}; {error.hint}" if error.hint else error.message) from error
    except Exception as error:  # the class may raise what it likes
        raise Wrong(f"{field}: {config.__name__} cannot be made: {type(error).__name__}: {error}") from error


def _callable(record: Any, field: str, count: int, *keywords: str) -> None:
    """Something that can be called with so many positional arguments, and these keywords."""
    value = getattr(record, field)
    if not callable(value):
        raise Wrong(f"{field}: {value!r:.200} cannot be called")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # of something written in C: nothing is known
        return
    try:
        signature.bind(*[None] * count, **dict.fromkeys(keywords))
    except TypeError as error:
        words = "".join(f", {keyword}=..." for keyword in keywords)
        raise Wrong(f"{field}: it is called with {count} argument(s){words}, but: {error}") from error
