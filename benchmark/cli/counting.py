"""Data sets that only scenarios can read, as one of these reads them: what ``bench data stats`` counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from benchmark.errors import BenchError, DataMissing

if TYPE_CHECKING:
    from benchmark.inventory import Known
    from benchmark.samples import Samples
    from benchmark.scenario import ScenarioRequest
    from benchmark.specs import ScenarioSpec

Read = tuple[str, Mapping[str, "Samples"], tuple[str, ...], Mapping[str, str]]


def as_read(entry: Known, request: ScenarioRequest) -> Read:
    """Reads a data set through the first of its scenarios, with default options and seed 0.

    Args:
        entry: The data set.
        request: Data root and cache.

    Returns:
        Name of the scenario; samples by part (``train``, ``test``, of domains ``photo train``, ...); names of classes
        by label; notes of the scenario. Target samples without labels are not among them.

    Raises:
        DataMissing: The data are absent or damaged.
    """
    from benchmark import registry
    from benchmark.run import plan, preparation
    from benchmark.samples import Samples

    name = entry.scenarios[0]
    loaded = registry.load_scenario(name)
    options, _ = plan.resolve_scenario(cast("ScenarioSpec", loaded.spec), "", [])
    places = {"data_root": request.data_root, "cache": request.cache, "download": request.download, "tag": ""}
    try:
        scenario = preparation.make_scenario(loaded, options, places, seed=0)
    except DataMissing:
        raise
    except BenchError as error:
        raise DataMissing(f"{entry.dataset.title} cannot be counted: {error.message}", hint=error.hint) from error
    parts: dict[str, list[Samples]] = {}
    met: set[int] = set()  # one test set may be that of all experiences
    for experience in scenario.experiences:
        trained, tested = " + ".join(experience.source_domains), experience.domain or ""
        sets = (
            (f"{trained} train", experience.train),
            (f"{trained} validation", experience.validation),
            (f"{tested} test", experience.test),
        )
        for part, samples in sets:
            if samples is not None and len(samples) and id(samples) not in met:
                met.add(id(samples))
                parts.setdefault(part.strip(), []).append(samples)
    for test in scenario.tests:
        parts.setdefault(test.name, []).append(test.images)
    joined = {part: Samples.concat([one.without_domains() for one in sets]) for part, sets in parts.items()}
    notes = {**scenario.notes, **({"images": "squares of 224 pixels of the files"} if _in_files(joined) else {})}
    return name, joined, tuple(scenario.class_names), notes


def _in_files(parts: Mapping[str, Samples]) -> bool:
    from benchmark.samples import in_files

    return any(in_files(samples.source) for samples in parts.values())
