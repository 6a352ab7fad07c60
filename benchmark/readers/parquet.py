"""Parquet tables with encoded images and labels, as data-set hubs offer them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import DataMissing
from benchmark.readers import files
from benchmark.readers.images import MOST_IMAGE_BYTES, Decoded, check_image, decode

IMAGE_COLUMNS = ("img", "image")
MOST = 1 << 36
_ROWS = 256  # cells in memory at once


def read_parquet(
    path: Path, label_columns: Sequence[str], *, what: str, count: int | None = None
) -> tuple[Decoded, npt.NDArray[np.int64]]:
    """Images and labels of a table.

    Args:
        path: The file. Images are bytes, alone or in a struct with a field ``bytes``, in a column of `IMAGE_COLUMNS`.
        label_columns: Accepted names of the column of labels, integers, the preferred one first.
        what: Name for the progress bar.
        count: Rows that it must have, where that is known.

    Raises:
        DataMissing: The file is absent, truncated or damaged, a column is missing or of another kind, or see `decode`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = files.shown(path)
    files.opened(path, most=MOST).close()
    labels: list[npt.NDArray[np.int64]] = []

    def blobs(table: Any, image: str, label: str) -> Iterator[tuple[str, bytes]]:
        row = 0
        for batch in table.iter_batches(batch_size=_ROWS, columns=[image, label]):
            labels.append(_integers(batch.column(label), f"{name}, column `{label}`"))
            for cell in batch.column(image).to_pylist():
                yield f"{name}, row {row}", cell["bytes"] if isinstance(cell, dict) else cell
                row += 1

    try:
        # Read in small buffers: a whole column of encoded images would double the memory needed.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
            columns = table.schema_arrow.names
            image = next((column for column in IMAGE_COLUMNS if column in columns), None)
            label = next((column for column in label_columns if column in columns), None)
            if image is None or label is None:
                wanted = IMAGE_COLUMNS if image is None else label_columns
                names = " or ".join(f"`{column}`" for column in wanted)
                raise DataMissing(f"{name} has no column {names}, only {', '.join(columns)}")
            rows = table.metadata.num_rows
            if count is not None and rows != count:
                raise DataMissing(f"{name} holds {rows:,} images instead of {count:,}")
            _bounded(table.metadata, name)
            images = decode(blobs(table, image, label), rows, what=what)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DataMissing(f"{name} is truncated or damaged: {error}") from error
    return images, np.concatenate(labels) if labels else np.empty(0, np.int64)


def check_parquet(path: Path) -> None:
    """Decodes every image of a table, a few at a time, and keeps nothing.

    Raises:
        DataMissing: The file is absent, truncated or damaged, or an image is unreadable; names the first ones.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = files.shown(path)
    files.opened(path, most=MOST).close()
    broken: list[str] = []
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
            _bounded(table.metadata, name)
            image = next((column for column in IMAGE_COLUMNS if column in table.schema_arrow.names), None)
            row = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=None if image is None else [image]):
                for cell in [] if image is None else batch.column(image).to_pylist():
                    try:
                        check_image(f"row {row}", cell["bytes"] if isinstance(cell, dict) else cell)
                    except DataMissing as error:
                        broken.append(error.message)
                    row += 1
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise DataMissing(f"{name} is truncated or damaged: {error}") from error
    if broken:
        more = f"; and {len(broken) - 3} more rows" if len(broken) > 3 else ""
        raise DataMissing(f"{'; '.join(broken[:3])}{more}")


def _bounded(metadata: Any, name: str) -> None:
    """Refuses a table that unpacks to more than images can have."""
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        if found.total_byte_size > min(MOST, max(found.num_rows, 1) * MOST_IMAGE_BYTES):
            raise DataMissing(f"{name} unpacks to {found.total_byte_size:,} bytes for {found.num_rows:,} rows")


def _integers(column: Any, where: str) -> npt.NDArray[np.int64]:
    """Labels as int64."""
    import pyarrow as pa

    if not pa.types.is_integer(column.type) or column.null_count:
        kind = f"{column.type}, " + ("some of them missing" if column.null_count else "not integers")
        raise DataMissing(f"{where} has labels of type {kind}")
    try:
        found: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise DataMissing(f"{where} has labels out of range: {error}") from error
    return found
