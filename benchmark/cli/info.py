"""``bench info NAME``: one plugin in full."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from benchmark.cli import terminal
from benchmark.cli.asking import download_of
from benchmark.errors import DataMissing, UsageError, did_you_mean
from benchmark.files import check_folder, user_path

if TYPE_CHECKING:
    from benchmark.registry import Kind, Loaded


SHOWN_FIGURES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", help="of any plugin: method, scenario (with /VARIANT or :PATH), backbone, track, ...")
    parser.add_argument("--kind", metavar="KIND", help="of the plugin, where several kinds have the name")
    parser.add_argument("--diff", metavar="A,B", help="the fields in which two recipes of a method differ")
    parser.add_argument(
        "--show",
        "--show-images",
        type=user_path,
        metavar="FILE",
        help="samples of a scenario: images as .png; texts as .md or .html, or - to print them",
    )
    parser.add_argument("--track", metavar="TRACK", help="apply this track's values")
    parser.add_argument("--data-root", type=user_path, metavar="DIR", help="data sets, for --show")
    parser.add_argument("--download", action="store_true", help="fetch data sets of any size, for --show")
    parser.add_argument("--no-download", action="store_true", help="never fetch anything, for --show")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="scenario option")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Prints what is known."""
    from benchmark import registry

    download_of(args)  # both of its options are an error, whatever they are given for
    kind, name = _find(args)
    if args.diff and kind != "methods":
        raise UsageError(f"--diff compares recipes, but `{name}` is one of the {kind}", hint="give a method")
    if args.show:
        check_folder(args.show.parent, "--show")
    if args.show and kind != "scenarios":
        raise UsageError(f"--show shows scenarios, but `{name}` is one of the {kind}", hint="give a scenario")
    if kind == "backbones":
        return _backbone(args)
    loaded = registry.load(kind, name)
    if kind == "methods":
        return _diff(args, loaded) if args.diff else _method(args, loaded)
    if kind == "scenarios":
        return _scenario(args, loaded)
    shown = {
        field.name: value
        for field in dataclasses.fields(loaded.spec)
        if field.name != "name" and not callable(value := getattr(loaded.spec, field.name))
    }
    if (config := getattr(loaded.spec, "config", None)) is not None:
        shown["options"] = _options_of(config)
    _print(args, {registry.singular(kind): name, **_where(loaded), **shown})
    return 0


def _options_of(config: Any) -> list[dict[str, Any]]:
    """Options of a part that has neither tracks nor recipes."""
    import typing

    from benchmark.config import ranges

    declared, hints = ranges(config), typing.get_type_hints(config)
    words = {name: ", ".join(map(str, typing.get_args(hint))) for name, hint in hints.items() if _is_choice(hint)}
    return [
        {
            "option": field.name,
            "default": field.default,
            "range": str(declared.get(field.name, words.get(field.name, ""))),
        }
        for field in dataclasses.fields(config)
    ]


def _is_choice(hint: object) -> bool:
    import typing

    return typing.get_origin(hint) is typing.Literal


def _find(args: argparse.Namespace) -> tuple[Kind, str]:
    """The kind of plugin that is meant, and its name without variant, recipe or tag."""
    from benchmark import registry

    if args.kind is not None and args.kind not in registry.KINDS:
        raise did_you_mean("kind", args.kind, registry.KINDS)
    plain = re.split("[@/:]", args.name, maxsplit=1)[0]
    kinds = [kind for kind in registry.KINDS if args.kind in (None, kind)]
    found = [kind for kind in kinds if plain in registry.names(kind)]
    if not found:
        known = {name for kind in kinds for name in registry.names(kind)}
        raise did_you_mean("name", args.name, known, more=f"bench list {args.kind or ''}".rstrip())
    if len(found) > 1:
        others = " or ".join(f"--kind {kind}" for kind in found[1:])
        terminal.say(f"note: this is one of the {found[0]}; there is also {others}")
    return found[0], plain


def _where(loaded: Loaded) -> dict[str, Any]:
    return {"distribution": loaded.entry.distribution, "module": loaded.entry.module}


def _print(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    if args.json:
        terminal.show(json.dumps(facts, indent=2, default=str))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            terminal.show(f"{key}:")
            _table(value)
        elif isinstance(value, list):
            terminal.show(f"{key:<{width}}  {', '.join(map(str, value)) or '-'}")
        else:
            terminal.show(f"{key:<{width}}  {value if value not in (None, '') else '-'}")


def _table(rows: list[dict[str, Any]]) -> None:
    from tabulate import tabulate

    text = tabulate(
        [{key: str(value) for key, value in row.items()} for row in rows], headers="keys", disable_numparse=True
    )
    terminal.show("\n".join("  " + line for line in text.splitlines()))


def _method(args: argparse.Namespace, loaded: Loaded) -> int:
    from typing import cast

    from benchmark.config import ranges
    from benchmark.leaderboard import published
    from benchmark.specs import MethodSpec

    spec = cast("MethodSpec", loaded.spec)
    recipes = {spec.default_recipe: {}, **spec.recipes}
    asked = args.name.partition("@")[2] or spec.default_recipe
    config = _recipe_config(spec, asked, args.track)
    declared = ranges(type(config))
    rows = [
        {"option": key, "value": value, "range": str(declared.get(key, "")), "source": spec.sources.get(key, "")}
        for key, value in dataclasses.asdict(config).items()
    ]
    facts: dict[str, Any] = {
        "method": f"{spec.name}@{asked}",
        **_where(loaded),
        "summary": spec.summary,
        "paper": spec.paper,
        "reference code": spec.reference,
        "uses": sorted(spec.uses_of(config)),
        "control": "yes" if spec.control else "no",
        "recipes": list(recipes),
        "track values": spec.rule or "the class defaults everywhere",
        "options": rows,
    }
    for track, values in spec.tracks.items():
        facts[f"on track {track}"] = ", ".join(f"{key}={value}" for key, value in values.items())
    figures = published.rows(spec.published) if spec.published else []
    if figures:
        shown = figures if args.json else figures[:SHOWN_FIGURES]
        more = f" (first {len(shown)} of {len(figures)}; all with --json)" if len(shown) < len(figures) else ""
        facts[f"published figures{more}"] = shown
        named = {row["backbone"]: published.checkpoint(row["backbone"]) for row in figures}
        facts["their backbones here"] = {name: f"--backbone {model}" for name, model in named.items() if model}
    if ours := published.measured(spec.name):
        facts["our own runs"] = ours
    _print(args, facts)
    return 0


def _recipe_config(spec: Any, recipe: str, track: str | None) -> Any:
    from benchmark import config

    if recipe != spec.default_recipe and recipe not in spec.recipes:
        raise did_you_mean(f"recipe of {spec.name}", recipe, [spec.default_recipe, *spec.recipes])
    layers = [
        config.Layer(f"track {track}", spec.tracks.get(track, {}) if track else {}),
        config.Layer(f"recipe {recipe}", spec.recipes.get(recipe, {})),
    ]
    return config.resolve(spec.config, layers, key=f"method.{spec.name}")[0]


def _diff(args: argparse.Namespace, loaded: Loaded) -> int:
    names = [name.strip().removeprefix("@") for name in args.diff.split(",")]
    if len(names) != 2:
        raise UsageError(f"--diff {args.diff}: give two recipes, e.g. --diff pilot,v2-jax")
    first, second = (dataclasses.asdict(_recipe_config(loaded.spec, name, args.track)) for name in names)
    rows = [{"option": key, names[0]: first[key], names[1]: second[key]} for key in first if first[key] != second[key]]
    if args.json:
        terminal.show(json.dumps(rows, indent=2))
    elif rows:
        _table(rows)
    else:
        terminal.show(f"{names[0]} and {names[1]} have the same values")
    return 0


def _scenario(args: argparse.Namespace, loaded: Loaded) -> int:
    from typing import cast

    from benchmark import families
    from benchmark.scenario_names import ScenarioName, check_tag
    from benchmark.specs import ScenarioSpec

    spec = cast("ScenarioSpec", loaded.spec)
    facts: dict[str, Any] = {
        "scenario": spec.name,
        **_where(loaded),
        "summary": spec.summary,
        "family": spec.family,
        "aliases": list(spec.aliases),
        "tracks": [f"{track} ({preset})" if preset else track for track, preset in spec.tracks.items()],
        "its data sets": f"{spec.name}:{spec.tag}" if spec.tag else "",
        "variant": f"{spec.name}/{spec.variant.upper()}" if spec.variant else "",
        "variants of a full run": list(spec.variants),
        "streams": "--set stream=sequential, online or blurry; --set engine.task_known=true"
        if families.get(spec.family).waits
        else "",
        "source": spec.source,
        "licence": spec.licence,
        "download": f"{spec.size_mb:g} MB" if spec.size_mb else "none: your own" if spec.tag else "none: bundled",
        "options": [{"option": field.name, "default": field.default} for field in dataclasses.fields(spec.config)],
    }
    asked = ScenarioName.parse(args.name)
    if asked.tag or args.show:
        check_tag(spec.name, spec.tag, asked.tag)
    texts = not any(spec.tracks.values())  # no input preset: the wording is worth a second
    if not args.show and (not texts or (spec.tag and not asked.tag)):
        _print(args, facts)
        return 0
    from benchmark import data
    from benchmark.cli import contact_sheet, text_sheet
    from benchmark.config import Layer, parse_assignments
    from benchmark.run import plan, preparation

    settings = {key.removeprefix("scenario."): value for key, value in parse_assignments(args.set).items()}
    options, _ = plan.resolve_scenario(spec, asked.variant, [Layer("--set", settings)])
    download = download_of(args) if args.show else "never"
    places = {"data_root": args.data_root, "cache": data.cache_root(), "download": download, "tag": asked.tag}
    try:
        scenario = preparation.make_scenario(loaded, options, places, seed=0)
    except DataMissing as error:
        if args.show or asked.tag:
            raise
        _print(args, facts | {"data": f"missing: {error.message}"})
        return 0
    if args.show and str(args.show) == "-" and scenario.kind != "image":
        terminal.show(text_sheet.markdown(scenario))
        return 0
    if args.show:
        (contact_sheet.draw if scenario.kind == "image" else text_sheet.write)(scenario, args.show)
        terminal.say(f"wrote {args.show}")
    for title, values in text_sheet.wording_facts(scenario).items():
        facts[title] = [{title: value} for value in values]
    facts |= {
        "fingerprint": scenario.fingerprint,
        "experiences": [
            {
                "experience": index,
                "domain": part.domain or "-",
                "classes": len(part.classes),
                "train": len(part.train),
                "test": len(part.test),
                "target": "-" if part.target is None else len(part.target),
            }
            for index, part in enumerate(scenario.experiences)
        ],
        "further test sets": [f"{test.name} ({len(test.images)})" for test in scenario.tests],
        **{f"note: {key}": value for key, value in scenario.notes.items()},
    }
    _print(args, facts)
    return 0


def _backbone(args: argparse.Namespace) -> int:
    from typing import cast

    from benchmark import loading, registry
    from benchmark.specs import BackboneSpec

    loaded = registry.load_backbone(args.name.partition(":")[0])
    spec = cast("BackboneSpec", loaded.spec)
    facts: dict[str, Any] = {"backbone": args.name, **_where(loaded), "summary": spec.summary}
    if spec.tag and ":" not in args.name:
        _print(args, {**facts, "its models": f"{spec.name}:{spec.tag}"})
        return 0
    about = loading.describe(args.name)
    card = about.pop("card", "")
    _print(args, facts | {key: json.dumps(value) if isinstance(value, dict) else value for key, value in about.items()})
    if card and not args.json:
        terminal.show("")
        terminal.show(card.rstrip())
    return 0
