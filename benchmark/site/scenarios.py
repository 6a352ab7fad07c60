"""What the page of a scenario shows: what it is, the data, how they were cut in the records, and samples to look at."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from benchmark import data_facts, registry
from benchmark.errors import BenchError
from benchmark.leaderboard.rows import changed, lock_of, setting, show
from benchmark.records.schema import Record
from benchmark.scenario_names import base_of
from benchmark.site import links, prose
from benchmark.site.names import slug
from benchmark.site.plots import Report
from benchmark.site.tables import TableShown
from benchmark.specs import ScenarioSpec


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples of a scenario to look at.

    Attributes:
        scenario: Which they are of, with its variant.
        picture: A PNG file; empty where they are texts.
        text: Texts; empty where they are images.
        problem: Why there are none; empty otherwise.
    """

    scenario: str
    picture: bytes = b""
    text: str = ""
    problem: str = ""


Look = Callable[[Record], Samples]
"""Samples of the scenario of a record, as it was configured there."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Data as records have them: one scenario, variant, version and split.

    Attributes:
        name: With its variant.
        version: Of the scenario.
        track: On which it was run.
        lock: Short name of data and split.
        changed: Options that are not as the track has them.
        classes: Number of classes.
        train: Training samples of each experience.
        test: Test samples of each test set.
        rows: What happens in each experience: its name, classes, training, target samples and its test set.
        further: Further test sets with their sizes.
        preset: How inputs are prepared.
        fingerprint: Hash of split and content.
        content: Hash of what was decoded.
        notes: Of the scenario.
        runs: How many records.
    """

    name: str
    version: int
    track: str
    lock: str
    changed: str
    classes: int
    train: int
    test: int
    rows: Sequence[tuple[str, int, int, int | None, int]]
    further: Sequence[tuple[str, int]]
    preset: str
    fingerprint: str
    content: str
    notes: Mapping[str, str]
    runs: int


@dataclass(frozen=True, kw_only=True)
class ScenarioShown:
    """A scenario.

    Attributes:
        path: Of its page in the site.
        name: On the command line.
        family: Of it.
        summary: One line; empty where its plugin is not installed.
        distribution: Package and version.
        installed: Whether its plugin is here.
        aliases: Further names.
        variant: Option that ``name/VARIANT`` sets.
        variants: Of a full run.
        tracks: With their input presets.
        source: Of the data.
        link: Address of that, or None.
        licence: Of the data.
        size: Of the download, as a text.
        text: Its module's documentation.
        options: Name and default.
        facts: Statistics of its data sets, by title.
        cuts: Of the records.
        tables: Of the records.
        first: The record whose samples are shown, or None.
    """

    path: str
    name: str
    family: str
    summary: str
    distribution: str
    installed: bool
    aliases: Sequence[str]
    variant: str
    variants: Sequence[str]
    tracks: Sequence[str]
    source: str
    link: str | None
    licence: str
    size: str
    text: Sequence[prose.Block]
    options: Sequence[tuple[str, str]]
    facts: Mapping[str, Mapping[str, Any]]
    cuts: Sequence[Cut]
    tables: Sequence[TableShown]
    first: Record | None


def path_of(name: str) -> str:
    """Of the page of a scenario."""
    return f"scenarios/{slug(name)}.html"


def every(
    records: Iterable[Record], tables: Sequence[TableShown], installed: bool, report: Report
) -> list[ScenarioShown]:
    """All scenarios that records name, by name.

    Args:
        records: Of the site.
        tables: Of the site.
        installed: Whether those come, too, that are installed and have no record.
        report: Told of plugins that cannot be loaded.
    """
    runs: dict[str, list[Record]] = {}
    for run in records:
        runs.setdefault(base_of(run.scenario.name), []).append(run)
    specs: dict[str, registry.Loaded] = {}
    for name in registry.names("scenarios"):
        if not installed and name not in runs:
            continue
        try:
            loaded = registry.load_scenario(name)
        except BenchError as error:
            report(error.message)
            continue
        if loaded.spec.name == name:
            specs[name] = loaded
    return [
        _scenario(
            name,
            runs.get(name, []),
            specs.get(name),
            [table for table in tables if table.scenario == name],
        )
        for name in sorted({*runs, *specs})
    ]


def _scenario(
    name: str, runs: Sequence[Record], loaded: registry.Loaded | None, tables: Sequence[TableShown]
) -> ScenarioShown:
    recorded = runs[0].scenario if runs else None
    known = _known(cast("ScenarioSpec", loaded.spec), loaded.entry.module) if loaded else dict(_UNKNOWN)
    if recorded is not None:
        known["family"] = recorded.family
    return ScenarioShown(
        path=path_of(name),
        name=name,
        distribution=loaded.entry.distribution if loaded else recorded.distribution if recorded else "",
        installed=loaded is not None,
        cuts=cuts(runs),
        tables=tables,
        first=runs[0] if runs else None,
        **known,
    )


_UNKNOWN: Mapping[str, Any] = {
    "family": "",
    "summary": "",
    "aliases": (),
    "variant": "",
    "variants": (),
    "tracks": (),
    "source": "",
    "link": None,
    "licence": "",
    "size": "",
    "text": (),
    "options": (),
    "facts": {},
}


def _known(spec: ScenarioSpec, module: str) -> dict[str, Any]:
    facts = {dataset.title: data_facts.read(dataset.facts) for dataset in spec.data if dataset.facts is not None}
    return {
        "family": spec.family,
        "summary": spec.summary,
        "aliases": spec.aliases,
        "variant": spec.variant,
        "variants": spec.variants,
        "tracks": [f"{track} ({preset})" if preset else track for track, preset in spec.tracks.items()],
        "source": spec.source,
        "link": links.address(spec.source),
        "licence": spec.licence,
        "size": f"{spec.size_mb:g} MB" if spec.size_mb else "none: your own data" if spec.tag else "none: bundled",
        "text": prose.blocks(inspect.getdoc(sys.modules[module]) or ""),
        "options": [
            (field.name, "required" if field.default is dataclasses.MISSING else show(field.default))
            for field in dataclasses.fields(spec.config)
        ],
        "facts": {title: told for title, told in facts.items() if told is not None},
    }


def cuts(runs: Iterable[Record]) -> list[Cut]:
    """The different data of some runs, in the order of their names."""
    found: dict[tuple[str, int, str, str, str], list[Record]] = {}
    for run in runs:
        scenario = run.scenario
        key = scenario.name, scenario.version, run.track, lock_of(run), scenario.fingerprint
        found.setdefault(key, []).append(run)
    return [_cut(found[key]) for key in sorted(found)]


def _cut(runs: Sequence[Record]) -> Cut:
    run = runs[0]
    scenario = run.scenario
    own = [(test.name, count) for test, count in zip(scenario.tests, run.counts, strict=True) if not test.further]
    steps = []
    for place, part in enumerate(scenario.experiences):
        name = part.domain or (own[place][0] if place < len(own) else str(place))
        steps.append((name, len(part.classes), part.train, part.target, part.test))
    told = {name: value for name, value in changed(run, "scenario").items() if name != scenario.variant_option}
    return Cut(
        name=scenario.name,
        version=scenario.version,
        track=run.track,
        lock=lock_of(run),
        changed=", ".join(setting(name, value) for name, value in sorted(told.items())),
        classes=scenario.num_classes,
        train=sum(part.train for part in scenario.experiences),
        test=sum(run.counts),
        rows=steps,
        further=[(test.name, count) for test, count in zip(scenario.tests, run.counts, strict=True) if test.further],
        preset=str(run.inputs.facts.get("preset") or ""),
        fingerprint=scenario.fingerprint,
        content=scenario.content,
        notes=scenario.notes,
        runs=len(runs),
    )
