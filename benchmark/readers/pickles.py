"""Pickled arrays of known content, as the authors of old data sets left them."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import Any

import numpy as np

from benchmark.errors import DataMissing


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can make numpy arrays and plain values, nothing else."""

    # Asked of numpy itself, because the function moves between its versions.
    _rebuild = np.empty(0).__reduce__()[0]
    _allowed = {"_reconstruct": _rebuild, "ndarray": np.ndarray, "dtype": np.dtype}  # noqa: RUF012 - private

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._allowed:
            return self._allowed[name]
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a data file")


def read_pickle(content: bytes, where: str, *, md5: str) -> Any:
    """What a pickle holds: arrays and plain values. Texts of Python 2 arrive as bytes.

    Args:
        content: The file's bytes.
        where: What errors call it.
        md5: Its published checksum: pickles can run code when loaded, so nothing else is opened.

    Raises:
        DataMissing: The checksum differs, or it holds anything else.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataMissing(f"{where} is damaged: its MD5 is {found} instead of {md5}")
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a pickle can fail in any way
        raise DataMissing(f"{where} cannot be read: {error}") from error
