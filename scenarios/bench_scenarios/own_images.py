"""Images of the user's own: ``folder:PATH`` (class folders) and ``domains:PATH`` (folders of domains), no code needed.

Source: whatever lies at the path (`benchmark.readers.layouts`): folders, or lists. Training and test images are those
of the folders ``train`` and ``test`` or of the lists, else 80/20 per class and domain by `benchmark.splits.train_test`,
seed 0. Images stay in their files and are decoded when they are needed; they are turned upright by their EXIF data, and
transparent pixels are white. Sample ids are ranks of the paths. The fingerprint holds the hash of every file's bytes: a
copy in another resolution or quality is another scenario. Version 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench_scenarios import _shots
from bench_scenarios._own_images import DomainsConfig, FolderConfig, Own, load
from benchmark import ScenarioSpec, hookimpl, readers, splits
from benchmark.errors import DataMissing
from benchmark.files import user_path
from benchmark.samples import Samples
from benchmark.scenario import Experience, Scenario, ScenarioRequest, TestSet

VALIDATION = 0.2


def build(spec_name: str, config: Any, request: ScenarioRequest) -> Scenario:
    """Builds the scenario that the options ask for.

    Raises:
        DataMissing: There are no images, they are not laid out so, or some cannot be read.
        ValueError: An option does not fit them.
    """
    path = user_path(request.tag)
    try:
        found = load(path, config, request)
    except DataMissing as error:
        if error.hint:
            raise
        shown = readers.shown(path)
        layout = "<domain>/<class>/<image>" if spec_name == "domains" else "<class>/<image>, or train/ and test/ of it"
        raise DataMissing(
            f"{spec_name}:{shown}: {error.message}",
            hint=f"expected: {layout}, or a list; `bench data check {shown}` says what is there",
        ) from error
    scenario: Scenario = _FAMILIES[config.family](SPECS[spec_name], found, config, request)
    return scenario


def _scenario(
    spec: ScenarioSpec, found: Own, config: FolderConfig, experiences: Sequence[Experience], **facts: Any
) -> Scenario:
    return Scenario(
        **{
            "name": spec.name,
            "version": 1,
            "family": config.family,
            "experiences": tuple(experiences),
            "class_names": found.layout.class_names,
            "notes": found.notes,
            "partition": found.partition,
            **facts,
        }
    )


def _class_il(spec: ScenarioSpec, found: Own, config: FolderConfig, request: ScenarioRequest) -> Scenario:
    count = len(found.layout.class_names)
    try:
        order = splits.class_order(config.class_order, count, seed=request.seed)
    except ValueError as error:
        raise ValueError(f"class_order: {error}") from error
    if config.split:
        try:
            sizes = splits.sizes(config.split, count)
        except ValueError as error:
            raise ValueError(f"split: {error}") from error
    elif count % config.experiences:
        fitting = ", ".join(str(number) for number in range(1, count + 1) if count % number == 0)
        raise ValueError(
            f"experiences: {count} classes cannot be cut into {config.experiences} equal parts; use {fitting}, or "
            "scenario.split, e.g. b2-inc1"
        )
    else:
        sizes = (count // config.experiences,) * config.experiences
    experiences = splits.class_incremental(found.subset(found.train), found.subset(found.test), order, sizes)
    names = tuple(found.layout.class_names[label] for label in order)
    return _scenario(spec, found, config, experiences, class_names=names, class_order=order)


def _shots_of(found: Own, config: FolderConfig, request: ScenarioRequest) -> tuple[Samples, Samples]:
    whole = found.subset(found.train)
    kept, held = splits.holdout(whole.labels.numpy(), VALIDATION, seed=0)
    import torch

    pool, validation = (whole.subset(torch.from_numpy(part)) for part in (kept, held))
    return _shots.sample(pool, validation, config.shots, request.seed)


def _few_shot(spec: ScenarioSpec, found: Own, config: FolderConfig, request: ScenarioRequest) -> Scenario:
    train, validation = _shots_of(found, config, request)
    classes = tuple(range(len(found.layout.class_names)))
    held = validation if len(validation) else None
    experience = Experience(train=train, test=found.subset(found.test), classes=classes, validation=held)
    return _scenario(spec, found, config, [experience])


def _base_to_new(spec: ScenarioSpec, found: Own, config: FolderConfig, request: ScenarioRequest) -> Scenario:
    train, validation = _shots_of(found, config, request)
    test, count = found.subset(found.test), len(found.layout.class_names)
    base = _shots.base_classes(count)
    held = _shots.only(validation, 0, len(base))
    experience = Experience(
        train=_shots.only(train, 0, len(base)),
        test=_shots.only(test, 0, len(base)),
        classes=base,
        validation=held if len(held) else None,
    )
    new = TestSet(name="new", images=_shots.only(test, len(base), count), classes=tuple(range(len(base), count)))
    return _scenario(spec, found, config, [experience], tests=(new,))


def _domain(field: str, name: str, found: Own, otherwise: int) -> int:
    names = found.layout.domain_names
    if name and name not in names:
        raise ValueError(f"{field}: {name!r} is not a domain; use one of {', '.join(names)}")
    return names.index(name) if name else otherwise % len(names)


def _domain_il(spec: ScenarioSpec, found: Own, config: DomainsConfig, request: ScenarioRequest) -> Scenario:
    names = found.layout.domain_names
    order: tuple[int, ...]
    if len(config.order) == 1 and config.order[0] not in names:
        try:
            order = splits.class_order(config.order[0], len(names), seed=request.seed)
        except ValueError as error:
            raise ValueError(f"order: {error}; or name domains: {', '.join(names)}") from error
    else:
        order = tuple(_domain("order", name, found, 0) for name in config.order)
        if len(set(order)) != len(order):
            raise ValueError(f"order: {','.join(config.order)!r} names a domain twice")
    classes = tuple(range(len(found.layout.class_names)))
    experiences = [
        Experience(
            train=found.subset(found.of(found.train, domain)),
            test=found.subset(found.of(found.test, domain)),
            classes=classes,
            domain=names[domain],
        )
        for domain in order
    ]
    return _scenario(spec, found, config, experiences)


def _uda(spec: ScenarioSpec, found: Own, config: DomainsConfig, request: ScenarioRequest) -> Scenario:
    """All images of the source are labelled, those of the target unlabelled and tested, as in Office-Home."""
    source, target = _domain("source", config.source, found, 0), _domain("target", config.target, found, -1)
    _differ(source, target)
    names, tested = found.layout.domain_names, found.subset(found.of(found.every, target))
    experience = Experience(
        train=found.subset(found.of(found.every, source)).alone(),
        test=tested,
        classes=tuple(range(len(found.layout.class_names))),
        domain=names[target],
        target=tested.without_labels(),
        sources=(names[source],),
    )
    notes = {name: note for name, note in found.notes.items() if name not in ("split", "untested")}
    return _scenario(spec, found, config, [experience], partition="", notes=notes, transductive=True)


def _dg(spec: ScenarioSpec, found: Own, config: DomainsConfig, request: ScenarioRequest) -> Scenario:
    names, target = found.layout.domain_names, _domain("target", config.target, found, -1)
    sources = [domain for domain in range(len(names)) if domain != target]
    if not sources:
        raise ValueError("target: there is one domain, and none is left to train on")
    rows = np.concatenate([found.of(found.train, domain) for domain in sources])
    place = np.concatenate([np.full(len(found.of(found.train, one)), number) for number, one in enumerate(sources)])
    held = np.concatenate([found.of(found.test, domain) for domain in sources])
    experience = Experience(
        train=found.subset(rows, place).alone(),
        test=found.subset(found.of(found.every, target)),
        classes=tuple(range(len(found.layout.class_names))),
        domain=names[target],
        sources=tuple(names[domain] for domain in sources),
    )
    return _scenario(spec, found, config, [experience], tests=(TestSet(name="source", images=found.subset(held)),))


def _differ(source: int, target: int) -> None:
    if source == target:
        raise ValueError("target: it is the source too; name another domain")


_FAMILIES: dict[str, Any] = {
    "class-il": _class_il,
    "few-shot": _few_shot,
    "base-to-new": _base_to_new,
    "domain-il": _domain_il,
    "uda": _uda,
    "dg": _dg,
}


def _example(domains: tuple[str, ...], folder: Path) -> str:
    """Writes a small tree: five classes of stripes, on grounds that differ by domain."""
    from PIL import Image

    for number, domain in enumerate(domains):
        for label in range(5):
            place = folder / domain / f"class {label}"
            place.mkdir(parents=True)
            for image in range(10):
                draws = np.random.RandomState(1000 * number + 100 * label + image)
                pixels = draws.randint(0, 60, (20 + image % 3, 24, 3)) + 90 * number
                pixels[:, label :: label + 2] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{image}.png")
    return str(folder)


SPECS = {
    spec.name: spec
    for spec in (
        ScenarioSpec(
            name="folder",
            build=functools.partial(build, "folder"),
            config=FolderConfig,
            summary="your own class folders or list of images: class-incremental, few-shot, base-to-new",
            family="class-il",
            tracks={"mini": "cifar32", "paper": "unit224", "nano": "glyph32-v2"},
            source="the user's own",
            licence="the user's own",
            tag="PATH",
            example=functools.partial(_example, ("",)),
        ),
        ScenarioSpec(
            name="domains",
            build=functools.partial(build, "domains"),
            config=DomainsConfig,
            summary="your own folders domain/class/image: domain-incremental, adaptation, generalisation",
            family="domain-il",
            tracks={"mini": "domainbed224", "paper": "imagenet224", "nano": "glyph32-v2"},
            source="the user's own",
            licence="the user's own",
            tag="PATH",
            example=functools.partial(_example, ("bright", "dark")),
        ),
    )
}


@hookimpl
def bench_register_scenarios() -> list[ScenarioSpec]:
    """Registers ``folder`` and ``domains``."""
    return list(SPECS.values())
