"""Features of frozen networks kept on disk, so that the next run, also of another method, need not compute them.

An entry holds the features of one set of samples. Its folder is named by everything else that its bits depend on (see
`benchmark.run.keeper`), its file by the samples: hashes of the contents of their sources, and which rows. Nothing of a
label is known here. Entries are written whole and renamed, checked as a whole when they are opened, and mapped into
memory, so that all processes share one copy. Two processes that keep the same features write the same file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.errors import RunFailed
from benchmark.files import replace_file
from benchmark.readers.kept import FEATURES, SUFFIX, Place, used
from benchmark.samples import Content, Samples, digest_of, parts_of

_VERSION = 1
_FEATURES = "features"


class FeatureFiles:
    """The kept features of a cache folder, as one run sees them.

    Args:
        root: Cache folder.
        most: Bytes that all of them may take, those of other runs included.
    """

    def __init__(self, root: Path, most: int) -> None:
        self._root = root
        self._most = most
        self._digests: dict[int, tuple[Content, str]] = {}  # sources are kept, so that no number comes twice
        self._closed = False

    @functools.cached_property
    def _place(self) -> Place:
        """Made when the first features are asked for: most runs on small sets never do."""
        return Place(self._root, FEATURES, self._most, what="features of frozen networks")

    def get(self, asked: str, samples: Samples, *more: int | str) -> Tensor | None:
        """The kept features ``(N, d)`` of a set on the CPU, mapped; whoever changes them changes his own copy.

        Args:
            asked: Name of what was computed.
            samples: The set.
            more: What else tells its inputs from others.
        """
        path = self._path(asked, samples, more)
        try:
            found = _mapped(path, len(samples))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            self._place.discard(path, " ".join(str(error).split()), "its features are computed again")
            return None
        used(path)
        return found

    def put(self, features: Tensor, asked: str, samples: Samples, *more: int | str) -> Tensor | None:
        """Keeps features that `get` did not find, and returns them mapped; None where they cannot be kept."""
        if self._closed:
            return None
        path = self._path(asked, samples, more)
        content = _packed(features)
        try:
            with self._place.room(len(content)) as room:
                if room:
                    replace_file(path, content)
                else:
                    self._closed = True
                    self._place.tell(
                        "features of frozen networks take all the space that engine.feature_cache_gb="
                        f"{self._most / 1e9:g} gives them; the others are computed in every run"
                    )
                    return None
        except (OSError, RunFailed) as error:
            self._closed = True
            self._place.cannot(str(getattr(error.__cause__ or error, "strerror", None) or error))
            return None
        return self.get(asked, samples, *more)

    def _path(self, asked: str, samples: Samples, more: Iterable[int | str]) -> Path:
        return self._place.folder / asked / f"{self._digest(samples, more)[:32]}{SUFFIX}"

    def _digest(self, samples: Samples, more: Iterable[int | str]) -> str:
        """SHA-256 of which samples, in which order, a set holds."""
        found = hashlib.sha256(json.dumps([len(samples), *more]).encode())
        for source, rows, places in parts_of(samples.source, samples.rows):
            if id(source) not in self._digests:
                self._digests[id(source)] = (source, digest_of(source))
            found.update(self._digests[id(source)][1].encode())
            for numbers in (rows, places):
                found.update(numbers.numpy().astype("<i8").data)
        return found.hexdigest()


def _packed(features: Tensor) -> bytes:
    """The bytes of an entry: safetensors, with a sum in its header."""
    from safetensors.torch import save

    own = features.contiguous()
    total = zlib.crc32(own.reshape(-1).view(torch.uint8).numpy().data)
    return save({_FEATURES: own}, metadata={"sum": str(total), "version": str(_VERSION)})


def _mapped(path: Path, count: int) -> Tensor:
    """The features of an entry.

    Raises:
        FileNotFoundError: There is none.
        Exception: It is damaged.
    """
    content: Any = np.memmap(path, np.uint8, mode="c")  # changes stay in this process
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    about, told = header[_FEATURES], header["__metadata__"]
    first, last = about["data_offsets"]
    body = content[start + first : start + last]
    shape = about["shape"]
    if told["version"] != str(_VERSION) or start + last != len(content) or len(shape) != 2 or shape[0] != count:
        raise ValueError("its parts do not fit one another")
    if zlib.crc32(body.data) != int(told["sum"]):
        raise ValueError("the features have another sum")
    dtype = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[about["dtype"]]
    return torch.from_numpy(body).view(dtype).view(*shape)
