"""The Parquet file of predictions that belongs to a record.

Columns: ``experience`` (int32, after which the prediction was made), ``test_set`` (int32),
``sample_id`` (int64), ``label`` and ``prediction`` (int32), ``top5`` (list<int32>, best first,
fewer when fewer classes were allowed), ``confidence`` (float32, largest softmax probability among
the allowed classes) and optionally ``prediction_in_task`` (int32, the best label among the classes of the
experience that the sample belongs to, -1 where it belongs to none), ``choices`` (list<int32>, the prompts or other
parts that the method has used for the sample, numbered from 0, the first choice first; empty where it cannot tell;
kept with ``engine.save_choices=true``) and ``logits`` (list<float32>). Equal content gives equal bytes with the same
version of pyarrow.

Where texts are generated there are three more, so that every score can be computed from this file alone: ``input``
(string, the fields of the sample as a JSON object), ``references`` (list<string>) and ``text`` (string, what was
generated; may be empty). No label is predicted then: ``prediction`` is -1, ``top5`` empty, ``confidence`` 0.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing, shown
from benchmark.files import replace_file, sha256

if TYPE_CHECKING:
    from benchmark.records.schema import Record

_SCALARS: dict[str, npt.DTypeLike] = {
    "experience": np.int32,
    "test_set": np.int32,
    "sample_id": np.int64,
    "label": np.int32,
    "prediction": np.int32,
    "confidence": np.float32,
}
_TEXTS = ("input", "references", "text")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions on test images; N rows.

    Attributes:
        experience: Training experience after which each was made, int32 ``(N,)``.
        test_set: Index of the test set, int32 ``(N,)``.
        sample_id: int64 ``(N,)``.
        label: int32 ``(N,)``.
        prediction: int32 ``(N,)``.
        top5: Best labels, best first, int32 ``(N, K)``, -1 where there were fewer classes.
        confidence: float32 ``(N,)`` in [0, 1].
        prediction_in_task: Best label among the classes of the sample's experience, int32 ``(N,)``, -1 where it
            belongs to none; None where classes do not come with experiences.
        choices: Parts of the method that each sample has chosen, int32 ``(N, k)``, -1 where there were fewer; None
            where they were not kept.
        logits: float32 ``(N, C)``, ``-inf`` for classes that were not allowed; or None.
        text: The text that was generated for each sample, ``(N,)`` of strings; None where samples were classified.
        references: The texts that would have been right, ``(N,)`` of tuples of strings; None when ``text`` is.
        input: The fields of the samples, ``(N,)`` of JSON objects (`fields`); None when ``text`` is.
    """

    experience: npt.NDArray[np.int32]
    test_set: npt.NDArray[np.int32]
    sample_id: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    prediction: npt.NDArray[np.int32]
    top5: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    prediction_in_task: npt.NDArray[np.int32] | None = None
    choices: npt.NDArray[np.int32] | None = None
    logits: npt.NDArray[np.float32] | None = None
    text: npt.NDArray[np.object_] | None = None
    references: npt.NDArray[np.object_] | None = None
    input: npt.NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def after(self, experience: int) -> Predictions:
        """Those that were made after one training experience."""
        return self._rows(self.experience == experience)

    def on(self, test_sets: Sequence[int]) -> Predictions:
        """Those on some of the test sets."""
        return self._rows(np.isin(self.test_set, list(test_sets)))

    def _rows(self, rows: npt.NDArray[np.bool_]) -> Predictions:
        if rows.all():
            return self
        values = {name: getattr(self, name)[rows] for name in (*_SCALARS, "top5")}
        for name in ("prediction_in_task", "choices", "logits", *_TEXTS):
            column = getattr(self, name)
            values[name] = None if column is None else column[rows]
        return Predictions(**values)


def table(experience: int, **columns: Any) -> Predictions:
    """Predictions of one evaluation, in the types that are written.

    Args:
        experience: Training experience after which they were made.
        columns: The other attributes of `Predictions`, as arrays or CPU tensors; optional ones may be None.

    Raises:
        ValueError: If the columns differ in length.
    """
    dtypes = {**_SCALARS, "top5": np.int32, "prediction_in_task": np.int32, "choices": np.int32, "logits": np.float32}
    values: dict[str, Any] = {
        name: None if column is None else np.asarray(column).astype(dtypes[name]) for name, column in columns.items()
    }
    values["experience"] = np.full(len(values["label"]), experience, dtype=np.int32)
    return _even(values)


def generated(
    experience: int,
    *,
    test_set: Any,
    sample_id: Any,
    label: Any,
    text: Sequence[str],
    references: Sequence[Sequence[str]],
    inputs: Sequence[Mapping[str, str]],
) -> Predictions:
    """Generated texts of one evaluation.

    Args:
        experience: Training experience after which they were made.
        test_set: See `Predictions`; so ``sample_id``, ``label``.
        sample_id: Of the samples.
        label: Of the samples.
        text: What was generated.
        references: What would have been right.
        inputs: The fields of the samples.

    Raises:
        ValueError: If they differ in length.
    """
    count = len(text)
    values: dict[str, Any] = {
        name: np.asarray(column).astype(_SCALARS[name])
        for name, column in {"test_set": test_set, "sample_id": sample_id, "label": label}.items()
    }
    values["experience"] = np.full(count, experience, dtype=np.int32)
    values["prediction"] = np.full(count, -1, dtype=np.int32)
    values["top5"] = np.empty((count, 0), dtype=np.int32)
    values["confidence"] = np.zeros(count, dtype=np.float32)
    values["text"] = _objects(text)
    values["references"] = _objects([tuple(texts) for texts in references])
    values["input"] = _objects([json.dumps(dict(fields)) for fields in inputs])
    return _even(values)


def fields(text: str) -> dict[str, str]:
    """The fields of a sample from `Predictions.input`."""
    found: dict[str, str] = json.loads(text)
    return found


def _objects(values: Sequence[object]) -> npt.NDArray[np.object_]:
    """One Python object per row: numpy would make a matrix of tuples of one length."""
    column = np.empty(len(values), dtype=np.object_)
    for place, value in enumerate(values):
        column[place] = value
    return column


def _even(values: dict[str, Any]) -> Predictions:
    lengths = {name: len(value) for name, value in values.items() if value is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"predictions: columns differ in length: {lengths}")
    return Predictions(**values)


def concat(parts: Sequence[Predictions]) -> Predictions:
    """Joins predictions in the order given; narrower ``top5``, ``choices`` and ``logits`` are padded.

    Choices may be kept from some point of a run on only, as no result depends on them: rows before have none.

    Raises:
        ValueError: If there is nothing to join, or only some parts have logits, or texts.
    """
    if not parts:
        raise ValueError("predictions: nothing to join")
    values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _SCALARS}
    values["top5"] = _stack([part.top5 for part in parts], np.int32(-1))
    logits = [part.logits for part in parts if part.logits is not None]
    if logits and len(logits) < len(parts):
        raise ValueError("predictions: some parts have logits and some do not")
    chosen = None
    if any(part.choices is not None for part in parts):
        none = [np.empty((len(part), 0), dtype=np.int32) if part.choices is None else part.choices for part in parts]
        chosen = _stack(none, np.int32(-1))
    in_task = [part.prediction_in_task for part in parts if part.prediction_in_task is not None]
    if in_task and len(in_task) < len(parts):
        raise ValueError("predictions: some parts have labels within the experience and some do not")
    texts = [part for part in parts if part.text is not None]
    if texts and len(texts) < len(parts):
        raise ValueError("predictions: some parts have generated texts and some do not")
    values |= {name: np.concatenate([getattr(part, name) for part in texts]) for name in _TEXTS} if texts else {}
    return Predictions(
        **values,
        prediction_in_task=np.concatenate(in_task) if in_task else None,
        choices=chosen,
        logits=_stack(logits, np.float32(-np.inf)) if logits else None,
    )


def _stack(parts: Sequence[npt.NDArray[Any]], fill: Any) -> npt.NDArray[Any]:
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill) for part in parts]
    return np.concatenate(padded)


def write(path: Path, predictions: Predictions) -> None:
    """Writes the Parquet file atomically.

    Raises:
        RunFailed: The disk is full or the folder cannot be written.
    """
    replace_file(path, encoded(predictions))


def encoded(predictions: Predictions) -> bytes:
    """The Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(predictions, name).astype(dtype)) for name, dtype in _SCALARS.items()}
    columns["top5"] = _lists(predictions.top5.astype(np.int32), np.int32(-1))
    if predictions.prediction_in_task is not None:
        columns["prediction_in_task"] = pa.array(predictions.prediction_in_task.astype(np.int32))
    if predictions.choices is not None:
        columns["choices"] = _lists(predictions.choices.astype(np.int32), np.int32(-1))
    if predictions.logits is not None:
        columns["logits"] = _lists(predictions.logits.astype(np.float32), np.float32(-np.inf))
    if predictions.text is not None and predictions.references is not None and predictions.input is not None:
        columns["input"] = pa.array(predictions.input.tolist(), pa.string())
        columns["references"] = pa.array([list(texts) for texts in predictions.references], pa.list_(pa.string()))
        columns["text"] = pa.array(predictions.text.tolist(), pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _lists(values: npt.NDArray[Any], fill: Any) -> Any:
    """List array without the trailing padding of each row."""
    import pyarrow as pa

    rows, width = values.shape
    # Length of a row = place of its last value that is not padding, counted from the end.
    used = values[:, ::-1] != fill
    lengths = np.where(used.any(axis=1), width - used.argmax(axis=1), 0) if width else np.zeros(rows, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = values[np.arange(width) < lengths[:, None]]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def read(path: Path) -> Predictions:
    """Reads a predictions file.

    Raises:
        DataMissing: The file is absent, damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataMissing(
            f"no predictions at {path}",
            hint="predictions are kept beside the record of a run; run it again to make them",
        )
    try:
        content = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataMissing(f"damaged predictions: {path}: {error}", hint="run it again with --force") from error
    missing = {*_SCALARS, "top5"} - set(content.column_names)
    if missing:
        raise DataMissing(
            f"damaged predictions: {path}: no column {', '.join(sorted(missing))}", hint="run it again with --force"
        )
    values: dict[str, Any] = {
        name: content.column(name).to_numpy().astype(dtype, copy=False) for name, dtype in _SCALARS.items()
    }
    values["top5"] = _dense(content.column("top5"), np.int32(-1), np.int32)
    if "prediction_in_task" in content.column_names:
        column = content.column("prediction_in_task")
        values["prediction_in_task"] = column.to_numpy().astype(np.int32, copy=False)
    if "choices" in content.column_names:
        values["choices"] = _dense(content.column("choices"), np.int32(-1), np.int32)
    if "logits" in content.column_names:
        values["logits"] = _dense(content.column("logits"), np.float32(-np.inf), np.float32)
    values |= _read_texts(path, content)
    return Predictions(**values)


def _read_texts(path: Path, content: Any) -> dict[str, npt.NDArray[np.object_]]:
    """The columns of generated texts; none in a file of classified samples."""
    there = [name for name in _TEXTS if name in content.column_names]
    if not there:
        return {}
    if len(there) < len(_TEXTS):
        lacking = ", ".join(name for name in _TEXTS if name not in there)
        raise DataMissing(f"damaged predictions: {path}: no column {lacking}", hint="run it again with --force")
    # Another program may have written an empty text as null.
    found = {name: [value or "" for value in content.column(name).to_pylist()] for name in ("input", "text")}
    told = [tuple(text or "" for text in texts or ()) for texts in content.column("references").to_pylist()]
    return {"input": _objects(found["input"]), "references": _objects(told), "text": _objects(found["text"])}


def _dense(column: Any, fill: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    array = column.combine_chunks()
    lengths = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    width = int(lengths.max(initial=0))
    result = np.full((len(array), width), fill, dtype=dtype)
    result[np.arange(width) < lengths[:, None]] = array.flatten().to_numpy(zero_copy_only=False)
    return result


def has_choices(path: Path) -> bool:
    """Whether a predictions file, which is there, keeps choices; nothing but its head is read."""
    import pyarrow.parquet as pq

    return "choices" in pq.read_schema(path).names


def file_of(path: Path, record: Record) -> Path | None:
    """Where the predictions of a record lie, or None where it has none.

    Raises:
        ValueError: The record names something else than a file beside it.
    """
    if record.predictions is None:
        return None
    name = record.predictions.file
    if not re.fullmatch(r"[^/\\:\0]*[^/\\:\0.]", name):
        raise ValueError(f"predictions.file: {shown(name)} is not the name of a file beside the record")
    return path.with_name(name)


def beside(path: Path, record: Record) -> Path | None:
    """The predictions of a record, where they are there."""
    found = file_of(path, record)
    return found if found is not None and found.is_file() else None


def read_checked(path: Path, digest: str) -> Predictions:
    """The predictions of a record, which holds the hash of their file.

    Raises:
        DataMissing: The file is another one, or damaged.
    """
    if sha256(path) != digest:
        raise DataMissing(f"{path} is not what its record was made with", hint="run it again with --force")
    return read(path)
