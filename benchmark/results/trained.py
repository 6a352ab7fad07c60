"""Trained methods that runs have kept: loaded from their records, and asked about images and texts of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmark import families, leaderboard, records
from benchmark.errors import DataMissing, UsageError, warn
from benchmark.files import user_path
from benchmark.records.schema import Record
from benchmark.results.collection import PathLike, Records

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.api import Method
    from benchmark.run.opening import Opened

__all__ = ["Answer", "TrainedModel", "load_model"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a trained model says of one sample.

    Attributes:
        name: The class; empty where texts are generated.
        label: Its label in the run's predictions; -1 where classes were named by the caller, or texts are generated.
        probabilities: The K most probable classes with their probabilities (softmax of the logits), highest first.
        text: What was written, where texts are generated.
    """

    name: str = ""
    label: int = -1
    probabilities: tuple[tuple[str, float], ...] = ()
    text: str | None = None


class TrainedModel:
    """A trained method, ready to be asked; `load_model` makes it.

    Images are prepared as at test time of the run. Where its images were files, those given are decoded and cut in the
    same way; where they were arrays of one size, e.g. 32 x 32 pixels, others are first brought to it (shorter side
    resized, centre cut out).

    Attributes:
        record: The record of its run.
        method: The method (`benchmark.api.Method`), in eval mode.
        class_names: Names of the classes it tells apart, in the order of the columns of its logits.

    Example:
        >>> import numpy as np
        >>> from benchmark.results import run
        >>> options = {"engine.save_model": True}
        >>> model = load_model(run(scenario="split-glyphs", method="nearest-mean", out="kept", settings=options))
        >>> (answer,) = model.predict([np.zeros((32, 32, 3), np.uint8)], top=2)
        >>> answer.name in model.class_names, len(answer.probabilities)
        (True, 2)
    """

    def __init__(self, record: Record, opened: Opened) -> None:
        self.record = record
        self.method: Method = opened.method
        self._opened = opened
        self._family = families.get(opened.scenario.family)
        seen = opened.scenario.seen_classes(len(opened.scenario.experiences) - 1)
        everything = self._family.names == "all"
        named = range(opened.scenario.num_classes) if everything else seen
        self.class_names = tuple(opened.scenario.class_names[label] for label in named)

    def __repr__(self) -> str:
        what = "writes texts" if self.generates else f"{len(self.class_names)} classes"
        return f"<{self.record.method.name} on {self.record.scenario.name}, run {self.record.run_id}: {what}>"

    @property
    def generates(self) -> bool:
        """Whether it writes texts instead of classifying."""
        return self._family.generates

    @property
    def reads(self) -> str:
        """``image`` or ``text``."""
        return self.record.inputs.kind

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a text; empty where it reads images."""
        return tuple(self._opened.about.get("fields", ()))

    def predict(
        self,
        samples: Sequence[object],
        *,
        top: int = 1,
        experience: int | None = None,
        names: Sequence[str] | None = None,
    ) -> list[Answer]:
        """Classifies, or writes.

        Args:
            samples: Images: paths, PIL images, uint8 arrays or tensors ``(H, W, 3)``. Texts: strings, or mappings of
                `fields`. A method that uses the test batch is shown as many of them at once as in its run.
            top: How many classes each answer tells.
            experience: The experience that the samples belong to, from 0, where the run knows it at test time
                (task-incremental); then classes of other experiences have probability 0.
            names: Classify among these names instead, which need not have been trained; only methods with
                ``open_vocabulary``.

        Returns:
            One answer for each sample, in their order.

        Raises:
            UsageError: An argument is missing or does not fit the run.
            DataMissing: An image cannot be read.
            PluginError: The method fails.
        """
        if type(top) is not int or top < 1:
            raise UsageError(f"top: {top!r} is no number of classes", hint="1 or more")
        raw = self._raw(samples)
        if self.generates:
            if experience is not None or names is not None:
                raise UsageError(f"{self!r} chooses among no classes", hint="leave experience and names out")
            return [Answer(text=text) for text in self._opened.generate(raw)]
        logits, columns = self._logits(raw, experience, names)
        shares = logits.softmax(dim=1)
        found = []
        for row in shares:
            best = row.topk(min(top, len(row)))
            places = best.indices.tolist()
            told = tuple(
                (columns[place], share) for place, share in zip(places, best.values.tolist(), strict=True) if share > 0
            )
            label = -1 if names is not None else self._label(places[0], experience)
            found.append(Answer(name=columns[places[0]], label=label, probabilities=told))
        return found

    def probabilities(
        self, samples: Sequence[object], *, experience: int | None = None, names: Sequence[str] | None = None
    ) -> Tensor:
        """Probabilities ``(B, K)``, float32, in the order of `class_names` (or ``names``); arguments as for `predict`.

        Where the method has an answer ``unknown``, that is one column more.

        Raises:
            UsageError: As `predict`, or it writes texts.
            DataMissing: An image cannot be read.
        """
        if self.generates:
            raise UsageError(f"{self!r}: texts have no probabilities", hint="ask `predict`")
        return self._logits(self._raw(samples), experience, names)[0].softmax(dim=1)

    def _label(self, column: int, experience: int | None) -> int:
        if self._family.names == "own" and experience is not None:
            return self._opened.scenario.experiences[experience].classes[column]
        return column

    def _logits(self, raw: Any, experience: int | None, names: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
        """Logits ``(B, K)`` and the names of their columns."""
        opened, scenario = self._opened, self._opened.scenario
        asks = opened.task_known or self._family.names == "own"
        count = len(scenario.experiences)
        if experience is not None and not (type(experience) is int and 0 <= experience < count):
            raise UsageError(f"experience: {experience!r} is none of this run", hint=f"0 to {count - 1}")
        if names is not None:
            if "open_vocabulary" not in opened.uses:
                raise UsageError(
                    f"names: method `{self.record.method.name}` knows its own classes, and no other names",
                    hint="leave names out; `bench list methods` tells which methods declare open_vocabulary",
                )
            if isinstance(names, str) or len(names) < 1 or not all(isinstance(name, str) for name in names):
                raise UsageError("names: no list of names", hint='for example names=["cat", "dog"]')
            return opened.logits(raw, names=tuple(names)), tuple(names)
        if asks and experience is None:
            if count > 1:
                raise UsageError(
                    "this run is told the experience of test samples (task-incremental): which one is meant?",
                    hint=f"experience=0 to {count - 1} (--experience); `bench info` of the scenario tells them apart",
                )
            experience = 0
        if self._family.names:
            classes = scenario.experiences[experience or 0].classes if self._family.names == "own" else None
            columns = tuple(scenario.class_names[label] for label in classes) if classes else self.class_names
            return opened.logits(raw, names=columns), columns
        if experience is not None and not asks:
            raise UsageError(
                "experience: this run is not told the experience of test samples", hint="leave experience out"
            )
        logits = opened.logits(raw, task=experience)
        known = scenario.class_names
        columns = tuple(known[place] if place < len(known) else f"class {place}" for place in range(logits.shape[1]))
        if opened.about["unknown"] and logits.shape[1] > len(self.class_names):
            columns = (*self.class_names, "unknown")
        return logits, columns

    def _raw(self, samples: Sequence[object]) -> Any:
        if isinstance(samples, (str, bytes, os.PathLike, Mapping)):
            raise UsageError(f"samples: a {type(samples).__name__} is no list", hint="give a list, also of one sample")
        if not len(samples):
            raise UsageError("samples: there is none", hint="give one image or text, or more")
        return self._images(samples) if self.reads == "image" else [self._text(sample) for sample in samples]

    def _text(self, sample: object) -> dict[str, str]:
        fields = self.fields
        if isinstance(sample, str):
            if len(fields) != 1:
                raise UsageError(
                    f"a text of `{self.record.scenario.name}` has {len(fields)} fields: {', '.join(fields)}",
                    hint="give a mapping, e.g. {" + ", ".join(f'"{name}": "..."' for name in fields) + "}",
                )
            return {fields[0]: sample}
        if not isinstance(sample, Mapping):
            raise UsageError(f"a {type(sample).__name__} is no text", hint="give strings, or mappings of fields")
        if sample.keys() != set(fields) or not all(isinstance(value, str) for value in sample.values()):
            raise UsageError(
                f"a text has the fields {', '.join(map(str, sample))}, not {', '.join(fields)}",
                hint="give each of them, as text",
            )
        return dict(sample)

    def _images(self, samples: Sequence[object]) -> Tensor:
        import numpy as np
        import torch

        found = [np.asarray(self._opened.fitted(self._image(sample))) for sample in samples]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()

    def _image(self, sample: object) -> Any:
        """A whole image of PIL, RGB."""
        import numpy as np
        from PIL import Image

        from benchmark import readers

        if isinstance(sample, (str, os.PathLike)):
            path = user_path(sample)
            try:
                blob = path.read_bytes()
            except OSError as error:
                raise DataMissing(
                    f"the image {path} cannot be read: {error.strerror or error}", hint="give the path of an image file"
                ) from error
            return readers.open_image(str(path), blob, upright=self._opened.upright)
        if isinstance(sample, Image.Image):
            return sample.convert("RGB")
        array = np.asarray(sample)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise UsageError(
                f"an image is a {type(sample).__name__} of {array.dtype}, shape {array.shape}",
                hint="give paths, PIL images, or uint8 arrays (H, W, 3)",
            )
        return Image.fromarray(array)


def load_model(
    where: PathLike | Records,
    *,
    results: PathLike = "runs",
    device: str = "auto",
    weights: PathLike | None = None,
    backbone: str | None = None,
) -> TrainedModel:
    """Loads the trained method that a run has kept (``engine.save_model=true``).

    Nothing is trained and no data are read; the pretrained model is loaded as for the run.

    Args:
        where: Path of a record, the beginning of a run id, or `Records` of one.
        results: Results folder, for run ids.
        device: ``auto``, ``cpu``, ``cuda``, ...
        weights: The weights of one's own, of a run with such.
        backbone: The architecture that these are for; default: the record's.

    Raises:
        UsageError: There is no such record, it is not of a completed run, or its run has kept no model.
        DataMissing: The model is gone, damaged or not the record's; or so are the pretrained weights.
        PluginError: The method is broken, or has changed so that it does not take its state.
    """
    from benchmark.run import opening, rerun, saving
    from benchmark.run.jobs import plan_of

    if isinstance(where, Records):
        if len(where) != 1:
            raise UsageError(f"{len(where)} records: one is loaded at a time", hint="choose, e.g. runs.where(seed=0)")
        (path,) = where.paths
    else:
        path = records.named(user_path(where), user_path(results))
    record = records.read(path)
    if record.model is None:
        raise UsageError(f"run {record.run_id} has kept no model", hint=f"make one: {_command(path, record)}")
    about, snapshot = saving.read(path.with_name(record.model.file), record.model.sha256)
    if about["run_id"] != record.run_id:
        raise DataMissing(
            f"{path.with_name(record.model.file)} is the model of run {about['run_id']}, not of {record.run_id}",
            hint=f"make it again: {_command(path, record)} --force",
        )
    asked = rerun.Where(
        out=str(path.parents[2] if len(path.parents) > 2 else Path()),
        device=device,
        download="auto",
        scenario=record.scenario.name,
        weights=None if weights is None else str(user_path(weights)),
        backbone=backbone,
    )
    plan = plan_of(replace(rerun.job_of(record, asked), force=False))
    opened = opening.opened(plan, about, snapshot, record.backbone.sha256)
    _tell_changes(record, opened)
    return TrainedModel(record, opened)


def _tell_changes(record: Record, opened: Opened) -> None:
    """Warns of what may let the model answer otherwise than in its run."""
    from benchmark.code_identity import ENGINE
    from benchmark.run.preparation import input_facts

    name = record.method.name
    if opened.plan.method.code_sha256 != record.identity.code:
        warn(
            f"the code of method `{name}` is {opened.plan.method.code_sha256[:8]}, that of the run was "
            f"{record.identity.code[:8]}: it may answer otherwise"
        )
    if record.identity.engine != ENGINE:
        warn(f"the engine's arithmetic is number {ENGINE}, that of the run was {record.identity.engine}")
    facts = input_facts(opened.pipeline)["facts"]
    if changed := [key for key, value in record.inputs.facts.items() if key in facts and facts[key] != value]:
        warn(f"inputs are prepared otherwise than in the run ({', '.join(changed)}): it may answer otherwise")


def _command(path: Path, record: Record) -> str:
    """The command that makes the run of a record once more, and keeps the model."""
    tested = msgspec.structs.replace(record, evaluated_on="test")  # no table shows a run on held-out data
    command = str(leaderboard.frame([tested])["command"].iloc[0])
    if record.evaluated_on == "validation":
        command += f" --validate {len(record.scenario.experiences)}"
    out = path.parents[2] if len(path.parents) > 2 else Path()
    told = "" if str(out) == "runs" else f" --out {out}"
    return f"{command}{told} --set engine.save_model=true"
