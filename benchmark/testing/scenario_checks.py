"""Checks that every scenario must pass (scenario specification, section 10).

It is one file, to be read from top to bottom, in the order in which they are made.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmark import config as configs
from benchmark import families, registry
from benchmark.api import ImageSet, Scenario
from benchmark.errors import UsageError
from benchmark.run import checkpoint
from benchmark.run.plan import resolve_scenario
from benchmark.samples import Window, digest_of
from benchmark.scenario import fingerprint
from benchmark.testing.observation import CheckFailed, CheckSkipped
from benchmark.testing.raw import same
from benchmark.testing.subjects import ScenarioSubject

SAMPLES = 128  # compared per scenario, spread evenly over its sets and within each
MOST, FEWEST = 32, 3  # of one set


def record(subject: ScenarioSubject) -> None:
    """The spec names a known family, known tracks and known input presets."""
    spec = subject.spec
    try:
        families.get(spec.family)
    except UsageError as error:
        raise CheckFailed(error.message, hint=error.hint) from error
    if not spec.tracks:
        raise CheckFailed("`tracks` is empty", hint='e.g. {"mini": "cifar32"}')
    for track, preset in spec.tracks.items():
        if track not in (known := registry.names("tracks")):
            raise CheckFailed(f"track `{track}` is unknown", hint=f"use {', '.join(known)}")
        if preset not in (known := registry.names("presets")) and subject.scenario.kind == "image":
            raise CheckFailed(f"input preset `{preset}` is unknown", hint=f"use one of {', '.join(known)}")
    for variant in spec.variants:
        resolve_scenario(spec, variant, [])
    if spec.variants and not spec.variant:
        raise CheckFailed("there are `variants`, but no option `variant` that they are values of")
    values = configs.as_dict(subject.options)
    again: Any = configs.resolve(spec.config, [configs.Layer("round trip", values)], key=f"scenario.{spec.name}")[0]
    if again != subject.options:
        raise CheckFailed(f"{subject.options} became {again} on the way through `as_dict`")
    json.dumps(values)


def repeat(subject: ScenarioSubject) -> None:
    """Two builds are equal; the fingerprint is that of the split, another seed changes both or none."""
    one, two = subject.scenario, subject.build()
    each = _each(one)
    for (where, first), (_, second) in zip(_subsets(one), _subsets(two), strict=False):
        places = _spread(min(len(first), len(second)), each)
        if not same(first.read(places), second.read(places)):
            raise CheckFailed(f"{where}: two builds have different samples")
    if one.fingerprint != two.fingerprint:
        raise CheckFailed(
            "two builds have different fingerprints", hint="draw from private generators with fixed seeds"
        )
    # "-lossy" may follow the hash.
    if one.fingerprint[:64] != fingerprint(one.experiences, one.tests, one.content, one.test_stream):
        raise CheckFailed(
            "the fingerprint is not `benchmark.scenario.fingerprint` of the experiences, test sets and content",
            hint="leave `fingerprint` out: `Scenario` computes it",
        )
    other = subject.other
    if other.class_order != one.class_order and other.fingerprint == one.fingerprint:
        raise CheckFailed("seed 1 gives another class order, but the same fingerprint")
    if other.fingerprint != subject.build(seed=1).fingerprint:
        raise CheckFailed("two builds with seed 1 have different fingerprints")


def content(subject: ScenarioSubject) -> None:
    """The content is a hash that no seed changes; sources with one digest hold the same samples."""
    one, other = subject.scenario, subject.other
    if not re.fullmatch("[0-9a-f]{64}", one.content):
        raise CheckFailed(f"`content` is {one.content!r}, not a SHA-256", hint="leave it out: `Scenario` computes it")
    if one.content != other.content:
        raise CheckFailed(
            "seed 1 changes `content`, though the data set is the same",
            hint="join the digests of the whole data set with `benchmark.digests.joined`",
        )
    known: dict[str, tuple[str, ImageSet]] = {}
    each = _each(one)
    for where, subset in _subsets(one):
        source = ImageSet(subset.source, torch.arange(len(subset.source)), torch.zeros(len(subset.source)))
        twin_where, twin = known.setdefault(digest_of(subset.source), (where, source))
        if isinstance(subset.source, Window) or isinstance(twin.source, Window):
            continue  # its digest is that of all the rows behind it
        if source.source is twin.source:
            continue
        places = _spread(min(len(source), len(twin)), each)
        if len(source) != len(twin) or not same(source.read(places), twin.read(places)):
            raise CheckFailed(f"{where} and {twin_where}: sources with one `digest` hold different samples")


def classes(subject: ScenarioSubject) -> None:
    """Labels are 0..C-1, those of an experience are in its classes, each class has images."""
    scenario = subject.scenario
    family = families.get(scenario.family)
    every = set(range(scenario.num_classes))
    unknown = {scenario.num_classes - 1} if family.unknown else set()
    met: set[int] = set()
    for index, part in enumerate(scenario.experiences):
        own = set(part.classes)
        for name, images in (("train", part.train), ("test", part.test)):
            found = set(images.labels.tolist())
            if name == "test" and not unknown <= found:
                raise CheckFailed(f"experience {index}, test: no image has the last label, that of unknown classes")
            found -= unknown if name == "test" else set()
            joint = name == "test" and scenario.joint_test
            # Of a domain, some classes may have no image, as one of DomainNet's; and of a target in partial adaptation;
            # and lists of 1,000 images do not have all classes of a large data set.
            few = joint or family.domains or family.collection or (family.shift and name == "test")
            if not found <= (every if joint else own) or (found != own and not few):
                strange = sorted(found ^ own)[:5]
                raise CheckFailed(f"experience {index}, {name}: labels and `classes` differ in {strange}")
        if family.grows and met & own and part.domain is None:  # a class may come back in another domain
            raise CheckFailed(f"experience {index} has classes of earlier ones: {sorted(met & own)[:5]}")
        if family.domains and own != every:
            raise CheckFailed(f"experience {index} lacks classes {sorted(every - own)[:5]}")
        if part.validation is not None and not set(part.validation.labels.tolist()) <= own:
            raise CheckFailed(f"experience {index}, validation: labels that are not in `classes`")
        met |= own
    if met & unknown:
        raise CheckFailed("the last label, that of unknown classes, is among the `classes` that are trained")
    trained = set(met)
    met |= unknown
    for test in scenario.tests:
        found = set(test.images.labels.tolist())
        if test.classes is None and not found <= trained:
            raise CheckFailed(f"test set `{test.name}` has classes that are never trained", hint="give its `classes`")
        if test.classes is not None and (found != set(test.classes) or len(set(test.classes)) < len(test.classes)):
            raise CheckFailed(f"test set `{test.name}`: labels and `classes` differ")
        if test.classes is not None and trained & found:
            raise CheckFailed(f"test set `{test.name}` has trained classes among those known by name only")
        met |= found
    if trained != set(range(len(trained))):
        raise CheckFailed("classes that are trained do not come first among the labels")
    if family.unseen == "classes" and len(trained) != math.ceil(scenario.num_classes / 2):
        raise CheckFailed(f"{len(trained)} of {scenario.num_classes} classes are base classes, not the first half")
    if met != every:
        raise CheckFailed(f"classes met and 0..{scenario.num_classes - 1} differ in {sorted(met ^ every)[:5]}")


def names(subject: ScenarioSubject) -> None:
    """Class names are unique and follow the class order; domains are named where they are the point."""
    scenario = subject.scenario
    family = families.get(scenario.family)
    # Data sets of a transfer may share names: each test set is classified among its own.
    groups = [test.classes for test in scenario.tests if test.classes is not None]
    rest = sorted(set(range(scenario.num_classes)) - {label for group in groups for label in group})
    alone = family.unseen == "data sets"
    shared = set(scenario.notes.get("shared names", "").split(", "))
    for group in [rest, *groups] if alone else [range(scenario.num_classes)]:
        known = [scenario.class_names[label] for label in group if label < len(scenario.class_names)]
        if (
            len(scenario.class_names) != scenario.num_classes
            or {name for name, number in Counter(known).items() if number > 1} - shared
        ):
            raise CheckFailed(
                f"{len(set(known))} different names for {len(group)} classes",
                hint="names that several classes have in the source itself stand in the note `shared names`",
            )
    if len(set(scenario.class_order)) != scenario.num_classes:
        raise CheckFailed("the class order repeats a class")
    if family.domains and (None in scenario.domains or len(set(scenario.domains)) < len(scenario.domains)):
        raise CheckFailed(f"domains are {scenario.domains}", hint="give every experience its own domain name")
    for part in scenario.experiences if family.shift else ():
        if part.domain is None or not part.sources or part.domain in part.sources:
            raise CheckFailed(
                f"sources are {part.sources}, the target is {part.domain}",
                hint="name the target in `domain` and the other domains in `sources`",
            )
        if len(part.sources) > 1 and (
            part.train.domains is None or set(part.train.domains.tolist()) != set(range(len(part.sources)))
        ):
            raise CheckFailed("training images do not say which of the sources they are from")
    other = subject.other
    original = dict(zip(scenario.class_order, scenario.class_names, strict=True))
    for label, name in zip(other.class_order, other.class_names, strict=True):
        if original.get(label) != name:
            raise CheckFailed(f"class {label} is `{original.get(label)}` with seed 0 and `{name}` with seed 1")


def ids(subject: ScenarioSubject) -> None:
    """No training or target image is a test image (unless transductive); ids are unique within a set."""
    scenario = subject.scenario
    for part in scenario.experiences:
        if part.target is not None:
            same = np.intersect1d(part.target.ids.numpy(), part.test.ids.numpy()).size
            if scenario.transductive and not same == len(part.target) == len(part.test):
                raise CheckFailed("it is declared transductive, but target and test images are not the same")
            if same and not scenario.transductive:
                raise CheckFailed(f"{same} target images are test images, but it is not declared transductive")
    for name in ("train", "test"):
        if families.get(scenario.family).mixed and name == "train":
            continue  # experiences share samples
        once = name == "test" and scenario.joint_test
        parts = scenario.experiences[:1] if once else scenario.experiences
        found = torch.cat([getattr(part, name).ids for part in parts])
        if len(torch.unique(found)) != len(found):
            raise CheckFailed(f"{name}: {len(found) - len(torch.unique(found))} sample ids occur twice")
    for part in scenario.experiences:
        for other in (*(one.test for one in scenario.experiences), *(test.images for test in scenario.tests)):
            shared = part.train.source is other.source
            if shared and np.intersect1d(part.train.rows.numpy(), other.rows.numpy()).size:
                raise CheckFailed("training and test sets share rows of their source")


def images(subject: ScenarioSubject) -> None:
    """Images are uint8 (B, 3, H, W) of the stated size, texts are named fields; reading one twice gives the same."""
    scenario = subject.scenario
    each = _each(scenario)
    for where, subset in _subsets(scenario):
        places = _spread(len(subset), each)
        if not same(subset.read(places), subset.read(places)):
            raise CheckFailed(f"{where}: the second access gives other samples", hint="augment in the input pipeline")
        if subset.kind != "image":
            for text in subset.texts(places):
                if not text or not all(isinstance(part, str) for pair in text.items() for part in pair):
                    raise CheckFailed(f"{where}: {text!r} is no mapping of fields to strings")
            continue
        found = subset.images(places)
        if found.dtype != torch.uint8 or found.shape != (len(places), *subset.image_shape) or found.shape[1] != 3:
            raise CheckFailed(f"{where}: {found.dtype} {tuple(found.shape)}, not uint8 {(len(places), 3, '.', '.')}")
        if scenario.image_size not in found.shape[2:]:
            raise CheckFailed(f"{where}: {tuple(found.shape[2:])} pixels, but `image_size` is {scenario.image_size}")


def references(subject: ScenarioSubject) -> None:
    """Texts to generate: every sample has references, none of them is empty or stands in the sample itself."""
    scenario = subject.scenario
    if not families.get(scenario.family).generates:
        raise CheckSkipped("no texts are to be generated")
    for where, subset in _subsets(scenario):
        if subset.references is None:
            continue  # a target; that all others have some is made sure of when it is built
        if empty := sum(not text.strip() for texts in subset.references for text in texts):
            raise CheckFailed(f"{where}: {empty} references are empty", hint="leave them out, or the sample")
        for fields, texts in zip(subset.texts(slice(None)), subset.references, strict=True):
            if leak := next((text for text in texts if any(text in value for value in fields.values())), None):
                raise CheckFailed(
                    f"{where}: the sample {dict(fields)!r:.200} holds its reference {leak!r:.100}",
                    hint="what is to be written must not be among the fields",
                )


def target(subject: ScenarioSubject) -> None:
    """Training images lead to no target or test image; target images carry no label."""
    scenario = subject.scenario
    if not families.get(scenario.family).shift:
        raise CheckSkipped("it has no target domain")
    for part in scenario.experiences:
        if len(part.train.source) != len(part.train):
            raise CheckFailed(
                "the source of the training images holds other images", hint="hide them with `ImageSet.alone`"
            )
        if families.get(scenario.family).unlabelled and part.target is None:
            raise CheckFailed("there are no target images")
        if part.target is None:
            continue
        if (part.target.labels != -1).any():
            raise CheckFailed("target images have labels other than -1", hint="use `ImageSet.without_labels`")
        if len(part.target.source) != len(part.target):
            raise CheckFailed(
                "the source of the target images holds other images", hint="use `ImageSet.without_labels`"
            )
        if part.target_labels is not None and len(part.target_labels) != len(part.target):
            raise CheckFailed(f"{len(part.target_labels)} target labels for {len(part.target)} target images")


def shots(subject: ScenarioSubject) -> None:
    """Few-shot: every class has the same number of training images, another seed draws others."""
    if not families.get(subject.scenario.family).shots:
        raise CheckSkipped("it is not few-shot")
    one, two = (build.experiences[0] for build in (subject.scenario, subject.other))
    for part in (one, two):
        counts = part.train.labels.bincount().tolist()
        if max(counts) - min(counts) > 1:  # of a number in all that the classes do not divide
            raise CheckFailed("classes have different numbers of training images")
    if sorted(one.train.ids.tolist()) == sorted(two.train.ids.tolist()):
        raise CheckFailed("seeds 0 and 1 draw the same training images", hint="draw with the seed of the request")
    if sorted(one.test.ids.tolist()) != sorted(two.test.ids.tolist()):
        raise CheckFailed("another seed gives another test set")


def test_streams(subject: ScenarioSubject) -> None:
    """A stream of test batches: the family asks for one; ids are unique, and none is in the stream for tuning."""
    scenario = subject.scenario
    if not families.get(scenario.family).adapts:
        raise CheckSkipped("there is no stream of test batches to adapt to")
    if scenario.test_stream is None or len(scenario.experiences) != 1:
        raise CheckFailed("there must be one experience, the source, and a `test_stream`")
    if not scenario.test_stream.segments or scenario.test_stream.batch_size < 1:
        raise CheckFailed("the stream has no segment, or batches of no image")
    names = [part.name for part in scenario.test_stream.segments]
    if len(set(names)) < len(names):
        raise CheckFailed(f"segments share a name: {sorted(names)[:5]}")
    ids = torch.cat([part.images.ids for part in scenario.test_stream.segments])
    if len(torch.unique(ids)) != len(ids):
        raise CheckFailed(f"stream: {len(ids) - len(torch.unique(ids))} sample ids occur twice")
    if scenario.tuning_stream is None:
        return
    tuned = torch.cat([part.images.ids for part in scenario.tuning_stream.segments])
    if set(names) & {part.name for part in scenario.tuning_stream.segments} or torch.isin(tuned, ids).any():
        raise CheckFailed("the stream for choosing options shows images or domains of the one that is reported")


test_streams.__test__ = False  # type: ignore[attr-defined]  # not a test of pytest's


def surroundings(subject: ScenarioSubject) -> None:
    """Building and reading it leaves the global random generators as they are."""
    before = checkpoint.random_state()
    built = subject.build()
    for _, subset in _subsets(built):
        subset.read(_spread(len(subset), _each(built)))
    after = checkpoint.random_state()
    if not torch.equal(before["torch"], after["torch"]):
        raise CheckFailed("torch's global generator was used", hint="make a torch.Generator of your own")
    if before["python"] != after["python"]:
        raise CheckFailed("Python's global generator was used", hint="make a random.Random of your own")
    if not np.array_equal(before["numpy"][1], after["numpy"][1]) or before["numpy"][2] != after["numpy"][2]:
        raise CheckFailed("numpy's global generator was used", hint="make a numpy RandomState of your own")


def avalanche(subject: ScenarioSubject) -> None:
    """The Avalanche benchmark has the same samples (imports avalanche: 10 s)."""
    from benchmark.avalanche import to_benchmark

    scenario = subject.scenario
    if scenario.kind != "image":
        raise CheckSkipped("Avalanche's benchmarks hold images")
    twin = to_benchmark(scenario)
    each = _each(scenario)
    parts = scenario.experiences
    sets: dict[str, list[ImageSet]] = {
        "train": [part.train for part in parts],
        "test": [part.test for part in parts],
        **({"further": [test.images for test in scenario.tests]} if scenario.tests else {}),
    }
    for name, expected in sets.items():
        stream = getattr(twin, f"{name}_stream")
        if len(stream) != len(expected):
            raise CheckFailed(f"its {name} stream has {len(stream)} of {len(expected)} experiences")
        for index, (theirs, ours) in enumerate(zip(stream, expected, strict=True)):
            if len(theirs.dataset) != len(ours):
                raise CheckFailed(f"{name} experience {index}: {len(theirs.dataset)} instead of {len(ours)} images")
            if sorted(theirs.classes_in_this_experience) != sorted(set(ours.labels.tolist())):
                raise CheckFailed(f"{name} experience {index} has other classes")
            if list(theirs.dataset.targets) != ours.labels.tolist():
                raise CheckFailed(f"{name} experience {index} has other labels")
            for place in _spread(len(ours), each).tolist():
                image, label = theirs.dataset[place][:2]
                wanted = ours.images(torch.tensor([place]))[0]
                scaled = image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8)
                if int(label) != int(ours.labels[place]) or not torch.equal(scaled, wanted):
                    raise CheckFailed(f"{name} experience {index}: sample {place} differs")
    for index, (theirs, part) in enumerate(zip(twin.train_stream, parts, strict=True)):
        if part.target is None:
            continue
        if len(theirs.target_dataset) != len(part.target):
            raise CheckFailed(f"experience {index}: {len(theirs.target_dataset)} target images")
        for place in _spread(len(part.target), each).tolist():
            image = (theirs.target_dataset[place] * 255).round().to(torch.uint8)
            if not torch.equal(image, part.target.images(torch.tensor([place]))[0]):
                raise CheckFailed(f"experience {index}: target image {place} differs")


def _subsets(scenario: Scenario) -> Iterator[tuple[str, ImageSet]]:
    for index, part in enumerate(scenario.experiences):
        yield f"experience {index}, train", part.train
        yield f"experience {index}, test", part.test
        if part.target is not None:
            yield f"experience {index}, target", part.target
        if part.validation is not None:
            yield f"experience {index}, validation", part.validation
    for test in scenario.tests:
        yield f"test set {test.name}", test.images
    for name, stream in (("stream", scenario.test_stream), ("tuning stream", scenario.tuning_stream)):
        for segment in () if stream is None else stream.segments:
            yield f"{name}, {segment.name}", segment.images


def _each(scenario: Scenario) -> int:
    """How many samples of each set are compared."""
    return min(MOST, max(FEWEST, SAMPLES // sum(1 for _ in _subsets(scenario))))


def _spread(count: int, most: int) -> torch.Tensor:
    """Up to ``most`` positions from 0 to ``count`` - 1, evenly."""
    return torch.linspace(0, count - 1, min(count, most)).long() if count else torch.arange(0)


SCENARIO_CHECKS: dict[str, Callable[[ScenarioSubject], None]] = {
    "record": record,
    "repeat": repeat,
    "content": content,
    "classes": classes,
    "names": names,
    "ids": ids,
    "images": images,
    "references": references,
    "target": target,
    "shots": shots,
    "test-streams": test_streams,
    "surroundings": surroundings,
    "avalanche": avalanche,
}
