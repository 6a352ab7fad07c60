"""Decoded images kept on disk, so that a file is decoded once and not in every epoch: off unless a run asks for it.

What is kept of an image is the part of its way into the model that is the same every time: the whole cut at test time,
the image before the random crop of training. An entry is named by the hash of the file's bytes; its folder by what was
done to the pixels and by the versions of what did it. So no result depends on whether anything is kept.

Images lie in *shards*, safetensors files of some `SHARD` bytes with ``pixels`` (uint8, one image after the other),
``keys`` (uint8 ``(N, 32)``), ``shapes`` (int64 ``(N, 2)``, height and width) and ``sums`` (uint32 ``(N,)``). They are
written whole under another name and renamed, never changed afterwards, and mapped into memory, so that all processes
share one copy. Two processes that keep the same images write the same files. Every image is checked when it is read: a
shard that is damaged is removed, and its images are decoded again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.errors import RunFailed
from benchmark.files import replace_file
from benchmark.readers.kept import SUFFIX, Place, used

FOLDER = "decoded"
"""Below the cache folder; one folder below it for each way of cutting."""
SHARD = 16 << 20
"""Bytes of pixels in one file."""
_VERSION = 1
_LOOK_SECONDS = 5.0  # between two looks for what other processes have kept

Pixels = npt.NDArray[np.uint8]


class DecodedCache:
    """The kept images of a cache folder, as one run sees them.

    When the limit is reached, the shards that were used longest ago go first; what this run has used or written stays,
    so that a data set that is larger than the limit is not written again in every epoch.

    Args:
        root: Cache folder.
        most: Bytes that all kept images may take, those of other runs included.

    Attributes:
        place: What there is to say of the folder.
    """

    def __init__(self, root: Path, most: int) -> None:
        self.place = ImagePlace(root, most)
        self._works: dict[str, KeptImages] = {}

    def of(self, work: str) -> KeptImages:
        """The images that went through ``work``, which names everything that was done to their pixels."""
        if work not in self._works:
            self._works[work] = KeptImages(self.place, work)
        return self._works[work]


class ImagePlace(Place):
    """The folder of kept images."""

    def __init__(self, root: Path, most: int) -> None:
        super().__init__(root, FOLDER, most, what="decoded images")
        self.shard = min(SHARD, most // 8)


class KeptImages:
    """The images of one way of cutting."""

    def __init__(self, place: ImagePlace, work: str) -> None:
        self._place = place
        self._folder = place.folder / f"{work}-{_makers()}"
        self._begin()

    def _begin(self) -> None:
        self._shards: dict[str, _Shard] = {}
        self._order: list[_Shard] = []
        self._heads = np.empty(0, np.uint64)  # first bytes of all keys, sorted,
        self._places = np.empty((0, 2), np.int32)  # and where each image is: shard and number
        self._begin_process()

    def _begin_process(self) -> None:
        """What a forked process must not share: images that are not yet written are the other's to write."""
        self._process = os.getpid()
        self._looked = -math.inf
        self._unwritten = _Unwritten(self._place, self._folder)
        # Also where a worker process ends, which runs nothing of `atexit`.
        from multiprocessing.util import Finalize

        Finalize(self, self._unwritten.write, exitpriority=1)

    def __getstate__(self) -> dict[str, Any]:
        return {"_place": self._place, "_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def get(self, key: bytes) -> Pixels | None:
        """The kept image ``(H, W, 3)`` of a file, or None.

        Args:
            key: SHA-256 of the file's bytes.
        """
        if self._process != os.getpid():
            self._begin_process()
        if key in self._unwritten.images:
            return self._unwritten.images[key]
        place = self._find(key)
        if place is None and time.monotonic() > self._looked + _LOOK_SECONDS:
            self._look()
            place = self._find(key)
        return None if place is None else self._read(*place)

    def put(self, key: bytes, pixels: Pixels) -> None:
        """Keeps an image that `get` did not find, uint8 ``(H, W, 3)``."""
        self._unwritten.add(key, pixels)

    def write(self) -> None:
        """Writes what is not yet written; else that is done when there is enough of it, and at the end."""
        self._unwritten.write()

    def _find(self, key: bytes) -> tuple[_Shard, int] | None:
        head = np.frombuffer(key, np.uint64, 1)[0]
        for at in range(int(np.searchsorted(self._heads, head)), len(self._heads)):
            if self._heads[at] != head:
                break
            number, row = self._places[at].tolist()
            if self._order[number].keys[row].tobytes() == key:
                return self._order[number], row
        return None

    def _read(self, shard: _Shard, row: int) -> Pixels | None:
        pixels = shard.image(row)
        if pixels is None:
            self._damaged(shard.path, "an image has another sum")
            self._look()
        return pixels

    def _look(self) -> None:
        """Takes in shards that are new, and forgets those that are gone."""
        self._looked = time.monotonic()
        try:
            names = {entry.name for entry in os.scandir(self._folder) if entry.name.endswith(SUFFIX)}
        except OSError:  # nothing is kept yet
            names = set()
        if names == self._shards.keys():
            return
        for name in self._shards.keys() - names:
            del self._shards[name]
        for name in sorted(names - self._shards.keys()):
            try:
                self._shards[name] = _Shard(self._folder / name)
            except FileNotFoundError:
                continue
            except Exception as error:  # safetensors raises an error of its own, numpy others
                self._damaged(self._folder / name, " ".join(str(error).split()))
        self._order = list(self._shards.values())
        heads = [shard.keys[:, :8].copy().view(np.uint64)[:, 0] for shard in self._order]
        places = [
            np.stack(np.broadcast_arrays(number, np.arange(len(shard.keys))), axis=1)
            for number, shard in enumerate(self._order)
        ]
        if not heads:
            self._heads, self._places = np.empty(0, np.uint64), np.empty((0, 2), np.int32)
            return
        joined = np.concatenate(heads)
        order = np.argsort(joined, kind="stable")
        self._heads, self._places = joined[order], np.concatenate(places).astype(np.int32)[order]

    def _damaged(self, path: Path, problem: str) -> None:
        self._place.discard(path, problem, "its images are decoded again")


class _Shard:
    """One file of images.

    Raises:
        FileNotFoundError: It is gone.
        Exception: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        # The file stays mapped. It is never made shorter, only removed, which leaves the map as it is.
        file: Any = safe_open(path, framework="np")
        self.keys, shapes, self._sums = (file.get_tensor(name) for name in ("keys", "shapes", "sums"))
        self._pixels = file.get_slice("pixels")
        self._shapes = shapes
        self._ends = np.cumsum(shapes.prod(axis=1) * 3)
        count = len(self.keys)
        if (
            not count
            or (self.keys.shape, self.keys.dtype) != ((count, 32), np.uint8)
            or (shapes.shape, shapes.dtype) != ((count, 2), np.int64)
            or self._sums.shape != (count,)
            or (shapes <= 0).any()
            or self._pixels.get_shape() != [int(self._ends[-1])]
        ):
            raise ValueError("its parts do not fit one another")
        self._used = False

    def image(self, row: int) -> Pixels | None:
        """One image, or None where it is not what was written."""
        height, width = self._shapes[row].tolist()
        end = int(self._ends[row])
        pixels = self._pixels[end - height * width * 3 : end]
        if _sum(self.keys[row].tobytes(), height, width, pixels) != int(self._sums[row]):
            return None
        if not self._used:
            self._used = True
            used(self.path)
        found: Pixels = pixels.reshape(height, width, 3)
        return found


class _Unwritten:
    """Images that wait until there are enough of them for a shard."""

    def __init__(self, place: ImagePlace, folder: Path) -> None:
        self.images: dict[bytes, Pixels] = {}
        self._place = place
        self._folder = folder
        self._size = 0
        self._closed = False

    def add(self, key: bytes, pixels: Pixels) -> None:
        if self._closed or pixels.size > self._place.shard or key in self.images:
            return
        if self._size + pixels.size > self._place.shard:
            self.write()
        self.images[key] = np.array(pixels)
        self._size += pixels.size

    def write(self) -> None:
        from safetensors.numpy import save

        images, self.images, self._size = self.images, {}, 0
        if not images or self._closed:
            return
        keys = b"".join(images)
        content = save(
            {
                "pixels": np.concatenate([image.reshape(-1) for image in images.values()]),
                "keys": np.frombuffer(keys, np.uint8).reshape(-1, 32),
                "shapes": np.array([image.shape[:2] for image in images.values()], np.int64),
                "sums": np.array(
                    [_sum(key, image.shape[0], image.shape[1], image) for key, image in images.items()], np.uint32
                ),
            }
        )
        try:
            with self._place.room(len(content)) as room:
                if room:
                    replace_file(self._folder / f"{hashlib.sha256(keys).hexdigest()[:32]}{SUFFIX}", content)
                else:
                    self._closed = True
                    self._place.tell(
                        "decoded images take all the space that engine.decoded_cache_gb="
                        f"{self._place.most / 1e9:g} gives them; the others are decoded every time"
                    )
        except (OSError, RunFailed) as error:
            self._closed = True
            self._place.cannot(str(getattr(error.__cause__ or error, "strerror", None) or error))


def _sum(key: bytes, height: int, width: int, pixels: Pixels) -> int:
    """Sum of an image with its name and shape."""
    head = zlib.crc32(key + f"{height} {width}".encode())
    return zlib.crc32(np.ascontiguousarray(pixels).data, head)


@functools.cache
def _makers() -> str:
    """Hash of the versions of all that decides about pixels."""
    from PIL import features

    told = {name: metadata.version(name) for name in ("pillow", "torchvision")}
    told |= {name: str(features.version(name)) for name in ("jpg", "libjpeg_turbo", "webp")}
    return hashlib.sha256(json.dumps([_VERSION, told]).encode()).hexdigest()[:12]
