"""The Parquet file of predictions that belongs to a record.

Columns: ``experience`` (int32, after which the prediction was made), ``test_set`` (int32),
``sample_id`` (int64), ``label`` and ``prediction`` (int32), ``top5`` (list<int32>, best first,
fewer when fewer classes were allowed), ``confidence`` (float32, largest softmax probability among
the allowed classes) and optionally ``prediction_in_task`` (int32, the best label among the classes of the
experience that the sample belongs to, -1 where it belongs to none) and ``logits`` (list<float32>). Equal
content gives equal bytes with the same version of pyarrow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing
from benchmark.files import replace_file

_SCALARS: dict[str, npt.DTypeLike] = {
    "experience": np.int32,
    "test_set": np.int32,
    "sample_id": np.int64,
    "label": np.int32,
    "prediction": np.int32,
    "confidence": np.float32,
}


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
        logits: float32 ``(N, C)``, ``-inf`` for classes that were not allowed; or None.
    """

    experience: npt.NDArray[np.int32]
    test_set: npt.NDArray[np.int32]
    sample_id: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    prediction: npt.NDArray[np.int32]
    top5: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    prediction_in_task: npt.NDArray[np.int32] | None = None
    logits: npt.NDArray[np.float32] | None = None

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
        for name in ("prediction_in_task", "logits"):
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
    dtypes = {**_SCALARS, "top5": np.int32, "prediction_in_task": np.int32, "logits": np.float32}
    values: dict[str, Any] = {
        name: None if column is None else np.asarray(column).astype(dtypes[name]) for name, column in columns.items()
    }
    values["experience"] = np.full(len(values["label"]), experience, dtype=np.int32)
    lengths = {name: len(value) for name, value in values.items() if value is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"predictions: columns differ in length: {lengths}")
    return Predictions(**values)


def concat(parts: Sequence[Predictions]) -> Predictions:
    """Joins predictions in the order given; narrower ``top5`` and ``logits`` are padded.

    Raises:
        ValueError: If there is nothing to join, or only some parts have logits.
    """
    if not parts:
        raise ValueError("predictions: nothing to join")
    values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _SCALARS}
    values["top5"] = _stack([part.top5 for part in parts], np.int32(-1))
    logits = [part.logits for part in parts if part.logits is not None]
    if logits and len(logits) < len(parts):
        raise ValueError("predictions: some parts have logits and some do not")
    in_task = [part.prediction_in_task for part in parts if part.prediction_in_task is not None]
    if in_task and len(in_task) < len(parts):
        raise ValueError("predictions: some parts have labels within the experience and some do not")
    return Predictions(
        **values,
        prediction_in_task=np.concatenate(in_task) if in_task else None,
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(predictions, name).astype(dtype)) for name, dtype in _SCALARS.items()}
    columns["top5"] = _lists(predictions.top5.astype(np.int32), np.int32(-1))
    if predictions.prediction_in_task is not None:
        columns["prediction_in_task"] = pa.array(predictions.prediction_in_task.astype(np.int32))
    if predictions.logits is not None:
        columns["logits"] = _lists(predictions.logits.astype(np.float32), np.float32(-np.inf))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    replace_file(path, buffer.getvalue())


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
    if "logits" in content.column_names:
        values["logits"] = _dense(content.column("logits"), np.float32(-np.inf), np.float32)
    return Predictions(**values)


def _dense(column: Any, fill: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    array = column.combine_chunks()
    lengths = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    width = int(lengths.max(initial=0))
    result = np.full((len(array), width), fill, dtype=dtype)
    result[np.arange(width) < lengths[:, None]] = array.flatten().to_numpy(zero_copy_only=False)
    return result
