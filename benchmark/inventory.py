"""The data sets that scenarios read: which there are, where they are here, how to get, add and verify them.

What is known of each stands in its `benchmark.data.DataSet`, named by `ScenarioSpec.data`; nothing here knows one.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmark import data, registry
from benchmark.data import DataSet, Download, Form
from benchmark.errors import BenchError, DataMissing, UsageError, did_you_mean
from benchmark.files import switched_on
from benchmark.readers import files
from benchmark.readers.layouts import packed
from benchmark.readers.unpack import unpack
from benchmark.readers.walk import find_images
from benchmark.specs import ScenarioSpec


@dataclass(frozen=True, slots=True)
class Known:
    """A data set and who reads it.

    Attributes:
        dataset: What is known of it.
        scenarios: Names of the scenarios that read it, those that read least beside it first.
        licence: As the data set says, else as the first of them does.
        source: Likewise.
        size_mb: Of a download; 0 where neither says it of this data set alone.
    """

    dataset: DataSet
    scenarios: list[str] = field(default_factory=list)
    licence: str = ""
    source: str = ""
    size_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """What is here of a data set.

    Attributes:
        folder: Its folder below the data root, or None.
        form: What was recognised, or None.
        problem: What is wrong with what is there, or empty.
    """

    folder: Path | None
    form: Form | None
    problem: str = ""

    @property
    def text(self) -> str:
        """One word or line for a table."""
        if self.problem:
            return f"damaged: {self.problem}"
        if self.form is not None:
            return f"here ({self.form.name})"
        return "here (not looked at)" if self.folder else "absent"


def known(report: Callable[[str], None] = lambda text: None) -> dict[str, Known]:
    """All data sets that installed scenarios read, by name. Imports every scenario.

    Args:
        report: Told of scenarios that are broken.
    """
    readers: dict[str, list[ScenarioSpec]] = {}
    sets: dict[str, DataSet] = {}
    for name in registry.names("scenarios"):
        try:
            spec = cast("ScenarioSpec", registry.load_scenario(name).spec)
        except BenchError as error:
            report(error.message)
            continue
        for dataset in spec.data if name == spec.name else ():
            sets.setdefault(dataset.key, dataset)
            readers.setdefault(dataset.key, []).append(spec)
    found = {}
    for key, dataset in sorted(sets.items()):
        specs = sorted(readers[key], key=lambda spec: len(spec.data))
        first = specs[0]
        found[key] = Known(
            dataset,
            [spec.name for spec in specs],
            licence=dataset.licence or first.licence,
            source=dataset.source or first.source,
            # The size of several together is that of none of them.
            size_mb=dataset.size / 1e6 or (first.size_mb if len(first.data) == 1 else 0.0),
        )
    return found


def form_of(dataset: DataSet, root: Path) -> Form | None:
    """What is here of a data set: as it recognises itself, else all files of its folder. None where there is nothing.

    Raises:
        DataMissing: It is incomplete, or its folder cannot be read.
    """
    if dataset.look is not None:
        return dataset.look(root)
    folder = data.find(dataset.folders, root)
    if folder is None:
        return None
    found = find_images(folder)
    return Form(name="files", files=tuple(folder / name for name in sorted((*found.names, *found.others))))


def one(name: str, report: Callable[[str], None] = lambda text: None) -> Known:
    """A data set by its name, title or folder.

    Raises:
        UsageError: There is none.
    """
    every = known(report)
    if name.casefold() in every:
        return every[name.casefold()]
    for entry in every.values():
        if name.casefold() in {entry.dataset.title.casefold(), *map(str.casefold, entry.dataset.folders)}:
            return entry
    raise did_you_mean("data set", name, every, more="bench data list")


def state(dataset: DataSet, root: Path) -> State:
    """What is here of a data set."""
    folder = data.find(dataset.folders, root)
    if dataset.look is None:
        return State(folder, None)
    try:
        return State(folder, dataset.look(root))
    except DataMissing as error:
        return State(folder, None, error.message)


# --- adding -------------------------------------------------------------------------------------


def recognised(path: Path) -> list[tuple[Known, Form, str]]:
    """The data sets that a folder or file could be, with the form, and the name that it needs in their folder.

    A folder is looked at as if it had the right name below a data root; a file (an archive, a table) as if it lay in
    such a folder.

    Raises:
        DataMissing: There is nothing.
    """
    if not files.is_folder(path) if path.is_dir() else not files.is_file(path):
        raise DataMissing(f"{files.shown(path)}: there is nothing", hint="name a folder or a file that exists")
    found = []
    for entry in known().values():
        dataset = entry.dataset
        if dataset.look is None:
            continue
        for inside in ("",) if path.is_dir() else (path.name,):
            with tempfile.TemporaryDirectory(prefix="bench-add-") as temporary:
                place = Path(temporary) / dataset.folders[0] / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path.resolve(), target_is_directory=path.is_dir())
                try:
                    form = dataset.look(Path(temporary))
                except DataMissing:
                    continue
            if form is not None:
                found.append((entry, form, inside))
    return found


def add(path: Path, root: Path, name: str | None = None) -> tuple[Known, Form, Path]:
    """Makes data that lie elsewhere known: a link below the data root leads to them; nothing is copied.

    Args:
        path: Folder or file.
        root: Data root; made if needed.
        name: Data set that it is; None to recognise it.

    Returns:
        The data set, its form, and the link.

    Raises:
        UsageError: There is no such data set, or the path could be several.
        DataMissing: It is no form of any, or one is there already, or the link cannot be made.
    """
    wanted = None if name is None else one(name).dataset.key
    found = [entry for entry in recognised(path) if wanted in (None, entry[0].dataset.key)]
    if not found:
        shards = [path] if path.is_file() else sorted(path.iterdir())
        if shards and all(shard.suffix.lower() == ".tar" for shard in shards):
            raise packed(shards[0].parent, [shard.name for shard in shards])
        what = "no data set that a scenario reads" if wanted is None else f"no {one(wanted).dataset.title}"
        raise DataMissing(
            f"{files.shown(path)} is {what}",
            hint="`bench data list` shows the forms; a scenario such as folder:PATH reads folders of your own images",
        )
    if len(found) > 1:
        titles = [entry.dataset.key for entry, _, _ in found]
        raise UsageError(
            f"{files.shown(path)} could be {' or '.join(titles)}", hint=f"say which: --as {' or --as '.join(titles)}"
        )
    ((entry, form, inside),) = found
    dataset = entry.dataset
    there = data.find(dataset.folders, root)
    link = (there or root / dataset.folders[0]) / inside
    if there is not None and (not inside or os.path.lexists(link)):
        raise DataMissing(
            f"{dataset.title} is at {files.shown(there)} already", hint="remove or rename it first; nothing was changed"
        )
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve(), target_is_directory=path.is_dir())
    except OSError as error:
        raise DataMissing(
            f"{files.shown(link)} cannot be made: {error.strerror or error}",
            hint=f"move the data to {files.shown(link)}, or give another data root with --data-root",
        ) from error
    return entry, form, link


# --- getting ------------------------------------------------------------------------------------


def get(dataset: DataSet, root: Path, *, source: str = "auto") -> Path:
    """Fetches a data set from the sources that its entry names, and from no others.

    Args:
        dataset: What to fetch.
        root: Data root; made if needed.
        source: ``origin`` (its addresses), ``hub`` (its mirror on the Hugging Face hub), or ``auto``: the first of
            these that works.

    Returns:
        Its folder.

    Raises:
        DataMissing: It has no such source, is forbidden, or cannot be had; nothing half is left but ``.part`` files
            that are resumed.
    """
    origin = bool(dataset.every_download)
    if not origin and dataset.mirror is None:
        raise dataset.missing(root, "it is not fetched by itself")
    if (source == "origin" and not origin) or (source == "hub" and dataset.mirror is None):
        raise dataset.missing(root, f"it has no source of the kind `{source}`")
    if switched_on("BENCH_OFFLINE"):
        raise dataset.missing(root, "downloads are switched off (BENCH_OFFLINE)")
    if origin and source != "hub":
        try:
            return _from_origin(dataset, root)
        except DataMissing as error:
            if source == "origin" or dataset.mirror is None:
                raise
            data.notice(f"{error.message}\ntrying the mirror {dataset.mirror}")
    return _from_hub(dataset, root)


def _from_origin(dataset: DataSet, root: Path) -> Path:
    for download in dataset.every_download:
        folder = data.find(dataset.folders, root) or root / dataset.folders[0]
        if download.unpack and (folder / download.unpack).is_dir():
            continue
        if download.inside and not (folder / download.file).exists() and _holds(folder):
            continue  # it was unpacked: the archive goes when all that it holds is in its place
        archive = data.fetch(dataclasses.replace(dataset, download=download, downloads=()), root, mode="always")
        if download.unpack:
            data.notice(f"unpacking {archive}")
            unpack(archive, archive.parent / download.unpack)
            archive.unlink()
        if download.inside:
            data.notice(f"unpacking {archive}")
            _unpack_inside(dataset, root, archive, download.inside)
    return data.find(dataset.folders, root) or root / dataset.folders[0]


def _holds(folder: Path) -> bool:
    """Whether a folder holds anything but what an interrupted download leaves."""
    try:
        return any(entry.suffix not in (".part", ".lock") and entry.name[0] != "." for entry in folder.iterdir())
    except OSError:
        return False


def _unpack_inside(dataset: DataSet, root: Path, archive: Path, inside: str) -> None:
    """Unpacks one folder of an archive into that of the archive, which is removed at the end.

    Raises:
        DataMissing: It has no such folder, or is not to be unpacked (`benchmark.readers.unpack`).
    """
    stage = archive.parent / ".unpacked"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        unpack(archive, stage)
        if not (stage / inside).is_dir():
            raise dataset.missing(root, f"{archive} holds no folder {inside}")
        for entry in sorted((stage / inside).iterdir()):
            target = archive.parent / entry.name
            if target.is_dir():  # of an earlier unpacking that was stopped
                shutil.rmtree(target)
            os.replace(entry, target)
        archive.unlink()
    except OSError as error:
        raise dataset.missing(root, f"{archive} cannot be unpacked: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _from_hub(dataset: DataSet, root: Path) -> Path:
    """Fetches the files of a mirror; each gets its name once its size and hash agree."""
    mirror = dataset.mirror
    assert mirror is not None
    folder = data.find(dataset.folders, root) or root / dataset.folders[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise dataset.missing(root, f"{folder} cannot be made: {error.strerror}") from error
    stage = folder / ".hub"  # kept where it breaks: huggingface_hub resumes from it
    for download in mirror.files:
        target = folder / download.file
        if target.is_file():
            continue
        data.notice(f"fetching {dataset.title}, {download.url} of {mirror}\n  into {folder}")
        path = _from_repository(dataset, root, mirror.repository, mirror.revision, download, stage)
        if (problem := download.wrong(path)) is not None:
            path.unlink()
            raise dataset.missing(root, f"{download.url} of {mirror} is the wrong file: {problem}; it was deleted")
        os.replace(path, target)
    shutil.rmtree(stage, ignore_errors=True)
    return folder


def _from_repository(
    dataset: DataSet, root: Path, repository: str, revision: str, download: Download, stage: Path
) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    facts: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "local_dir": stage}
    try:
        return Path(hf_hub_download(repository, download.url, endpoint=os.environ.get("HF_ENDPOINT") or None, **facts))
    except Exception as error:  # what its HTTP library raises differs between its versions
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        kind = "refused" if isinstance(error, HfHubHTTPError) else "failed"
        raise dataset.missing(root, f"fetching {download.url} of {repository} {kind}: {reason}") from error


# --- verifying ----------------------------------------------------------------------------------


def verify(dataset: DataSet, root: Path) -> Iterator[tuple[Path, str | None]]:
    """Reads every file of a data set to its end: images are decoded, files of a published hash compared with it.

    Yields:
        Each file, and what is wrong with it, or None.

    Raises:
        DataMissing: The data set is not there or incomplete.
    """
    from benchmark.readers.verifying import problem

    with dataset.reading(root):
        form = form_of(dataset, root)
        if form is None:
            raise DataMissing(f"not found below {root}")
        for path in form.files:
            yield path, problem(path, form.md5.get(path, ""))
