"""600,000 image files in a tree of DomainNet's shape: memory, speed, start, and what the index costs.

Run by `tox -e perf`, or by hand, which prints the figures of docs/performance.md::

    python tests/perf/test_files.py [IMAGES]
    python tests/perf/test_files.py epochs    # memory over four epochs alone, of a tree that is there
    python tests/perf/test_files.py kept      # what `engine.decoded_cache_gb` is worth

The tree is 6 domains of 345 classes; every file is its own, of its own content (a frame of JPEG is drawn once per class
and 12 bytes behind its end tell files apart, so that the tree is written in a minute; decoders read all of it).
"""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BEGAN = time.perf_counter()  # before torch is imported
pytestmark = [pytest.mark.perf, pytest.mark.slow]

DOMAINS, CLASSES, SIZE = 6, 345, 32
BATCH = 256
MEASURED = 40_000  # images that a speed is measured on
TURNS = 3


def write_tree(root: Path, images: int) -> None:
    """Writes the tree; takes a tree that is complete as it is."""
    from PIL import Image

    if (root / ".complete").exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    each, more = divmod(images, DOMAINS * CLASSES)
    for place in range(DOMAINS * CLASSES):
        folder = root / f"domain{place // CLASSES}" / f"class{place % CLASSES:03d}"
        folder.mkdir(parents=True)
        draws = np.random.RandomState(place)
        blobs = []
        for height, width in ((64, 80), (72, 64), (64, 64), (60, 90)):
            buffer = io.BytesIO()
            coarse = draws.randint(0, 256, (8, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            picture.save(buffer, "JPEG", quality=85)
            blobs.append(buffer.getvalue())
        for number in range(each + (place < more)):
            blob = blobs[number % len(blobs)]
            # A comment segment behind the first marker: other bytes, the same picture.
            told = f"{place}:{number}".encode().ljust(12)
            handle = os.open(folder / f"{number:06d}.jpg", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, blob[:2] + b"\xff\xfe\x00\x0e" + told + blob[2:])
            os.close(handle)
    (root / ".complete").touch()


def ours(root: Path, cache: Path, workers: int, epochs: int) -> dict[str, Any]:
    """In a process of its own: from its start to the first batch, then speed and peak memory of every epoch."""
    import torch

    from benchmark.inputs.images import ImagePipeline
    from benchmark.readers import FileImages, index_files, read_layout
    from benchmark.run.loader import Request, ahead
    from benchmark.samples import Samples

    torch.set_num_threads(1)
    started = time.perf_counter()
    layout = read_layout(root, domains=True)
    found = time.perf_counter()
    indexed = index_files(layout.found, cache, quiet=True)
    hashed = time.perf_counter()
    pipeline = ImagePipeline("unit224", size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
    source = FileImages(indexed).fitted(pipeline.fit())
    samples = Samples(source, torch.arange(len(source)), torch.from_numpy(layout.labels))
    figures: dict[str, Any] = {
        "imports": started - BEGAN,
        "found": found - started,
        "index": hashed - found,
        "read": indexed.read,
        "epochs": [],
    }
    for epoch in range(epochs):
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(epoch))
        batches = order[: MEASURED // BATCH * BATCH].split(BATCH)
        generators = [torch.Generator().manual_seed(number) for number in range(len(batches))]
        requests = [
            Request(samples, rows, pipeline.cut(len(rows), generator))
            for rows, generator in zip(batches, generators, strict=True)
        ]
        answers = ahead(iter(requests), [samples], count=MEASURED, workers=workers)
        before = 0.0
        for number, raw in enumerate(answers):
            assert isinstance(raw, torch.Tensor)
            ready = pipeline.train(raw, generators[number], cut=requests[number].cut)
            assert ready.shape == (BATCH, 3, SIZE, SIZE)
            if number == 0:
                before = time.perf_counter()
                figures.setdefault("first batch", before - BEGAN)
                figures.setdefault("first batch, processor", time.process_time())
        speed = (len(batches) - 1) * BATCH / (time.perf_counter() - before)
        figures["epochs"].append({"images/s": speed, "peak MiB": _memory(), "MiB after": _resident()})
    return figures


def kept(images: int = 300, size: int = 224) -> dict[str, Any]:
    """Photograph-sized files per second of processor time: decoded, decoded and kept, and read back."""
    import torch
    from PIL import Image

    from benchmark.inputs.images import ImagePipeline
    from benchmark.readers import FileImages, find_images, index_files
    from benchmark.readers.decoded import DecodedCache
    from benchmark.readers.images import choose_decoder

    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "images", Path(folder) / "cache"
        root.mkdir()
        for number in range(images):
            coarse = np.random.RandomState(number).randint(0, 256, (25, 20, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((400, 500), Image.Resampling.BICUBIC)
            picture.save(root / f"{number:06d}.jpg", quality=90)
        choose_decoder()
        for preset in ("unit224", "l2p-jax"):
            pipeline = ImagePipeline(preset, size=size, mean=(0.5,) * 3, std=(0.5,) * 3)
            plain = FileImages(index_files(find_images(root), cache, quiet=True)).fitted(pipeline.fit())
            random, generator = pipeline.cut(images, torch.Generator().manual_seed(0)), torch.Generator()
            for what in ("tested", "trained"):
                told = {}
                for how in ("decoded", "kept", "read back"):
                    source = plain if how == "decoded" else plain.keeping(DecodedCache(cache, 10**10))
                    before = time.process_time()
                    for places in torch.arange(images).split(100):
                        if what == "tested":
                            pipeline.eval(source[places])
                        else:
                            assert random is not None
                            cut = random.at(places.numpy())
                            pipeline.train(source.cut(places, cut), generator, cut=cut)
                    del source  # writes what it has
                    gc.collect()
                    told[how] = images / (time.process_time() - before)
                figures[f"{preset} {what}"] = told
    return figures


def theirs(root: Path, workers: int) -> float:
    """Images per second of torchvision's ``ImageFolder`` and a plain ``DataLoader`` on one domain."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, (0.05, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    whole = ImageFolder(root / "domain0", change)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[: MEASURED // BATCH * BATCH]
    loader = DataLoader(Subset(whole, order.tolist()), BATCH, num_workers=workers)
    count, before = 0, 0.0
    for number, (images, _) in enumerate(loader):
        count += len(images) if number else 0
        before = before or time.perf_counter()
    return count / (time.perf_counter() - before)


def _memory() -> float:
    """Peak of this process and of its largest child, in MiB."""
    import resource

    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + children) / 1024


def _resident() -> float:
    """What this process holds now, in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(images: int, root: Path, cache: Path) -> dict[str, Any]:
    """All figures."""
    started = time.perf_counter()
    write_tree(root, images)
    figures: dict[str, Any] = {"images": images, "writing the tree": time.perf_counter() - started}
    figures["first reading"] = _apart("ours", root, cache, 1, 1)
    for workers in (1, 2):
        # By turns, in processes of their own: a busy machine slows both.
        turns = [
            (_apart("ours", root, cache, workers, 1), _apart("theirs", root, cache, workers, 1)) for _ in range(TURNS)
        ]
        figures[f"{workers} workers"] = {
            "ours": sorted(mine["epochs"][0]["images/s"] for mine, _ in turns)[TURNS // 2],
            "torchvision": sorted(other for _, other in turns)[TURNS // 2],
        }
    figures["four epochs"] = _apart("ours", root, cache, 2, 4)
    return figures


def _apart(what: str, root: Path, cache: Path, workers: int, epochs: int) -> Any:
    arguments = [sys.executable, __file__, what, str(root), str(cache), str(workers), str(epochs)]
    return json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)


def test_600_000_files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(600_000, Path(folder) / "tree", Path(folder) / "cache")
    print(json.dumps(figures, indent=1))
    check(figures)


def check(figures: dict[str, Any]) -> None:
    """What was promised."""
    epochs = figures["four epochs"]["epochs"]
    assert epochs[-1]["peak MiB"] <= 2048
    assert epochs[-1]["peak MiB"] <= 1.05 * epochs[0]["peak MiB"]
    assert epochs[-1]["MiB after"] <= 1.05 * epochs[0]["MiB after"]
    assert figures["four epochs"]["read"] == 0
    assert figures["four epochs"]["first batch"] <= 20
    for workers in (1, 2):
        speeds = figures[f"{workers} workers"]
        assert speeds["ours"] >= speeds["torchvision"]


if __name__ == "__main__":
    place = Path(tempfile.gettempdir()) / "bench-perf-files"
    if sys.argv[1:] == ["kept"]:
        print(json.dumps(kept(), indent=1))
    elif sys.argv[1:] == ["epochs"]:
        print(json.dumps(_apart("ours", place / "tree", place / "cache", 2, 4), indent=1))
    elif len(sys.argv) > 2:
        what, root, cache, workers, epochs = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])
        print(json.dumps(theirs(root, workers) if what == "theirs" else ours(root, cache, workers, epochs)))
    else:
        found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 600_000, place / "tree", place / "cache")
        print(json.dumps(found, indent=1))
        check(found)
