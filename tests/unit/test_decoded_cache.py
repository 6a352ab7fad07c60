"""Decoded image files kept on disk: the same results with and without, whatever happens to the files."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark import readers
from benchmark.cli import main
from benchmark.errors import BenchWarning
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS
from benchmark.readers import decoded
from benchmark.readers.decoded import DecodedCache, KeptImages, Pixels
from benchmark.run.loader import Request, ahead
from benchmark.run.options import UNSEEN, EngineConfig
from benchmark.samples import Samples

MOST = 10**8


def images(count: int, seed: int = 0, side: int = 16) -> dict[bytes, Pixels]:
    draws = np.random.RandomState(seed)
    every = [draws.randint(0, 256, (side, side + place % 3, 3), dtype=np.uint8) for place in range(count)]
    return {hashlib.sha256(image).digest(): image for image in every}


def fill(root: Path, several: dict[bytes, Pixels], most: int = MOST, work: str = "whole") -> KeptImages:
    kept = DecodedCache(root, most).of(work)
    for key, image in several.items():
        if kept.get(key) is None:
            kept.put(key, image)
    kept.write()
    return kept


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.safetensors"))


def missing(root: Path, several: dict[bytes, Pixels], work: str = "whole") -> int:
    """How many are not kept; those that are must be right."""
    kept = DecodedCache(root, MOST).of(work)
    found = {key: kept.get(key) for key in several}
    assert all(image is None or np.array_equal(image, several[key]) for key, image in found.items())
    return sum(image is None for image in found.values())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for number in range(20):
        folder = root / "ab"[number % 2] / f"class {number // 2 % 2}"
        folder.mkdir(exist_ok=True, parents=True)
        levels = np.random.RandomState(number).randint(0, 256, (40 + number, 52, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number:02d}.{('jpg', 'png')[number % 3 % 2]}")
    return root


def source_of(root: Path, cache: Path, **options: Any) -> readers.FileImages:
    return readers.FileImages(readers.index_files(readers.find_images(root), cache, quiet=True), **options)


@pytest.mark.parametrize("preset", ["unit224", "l2p-jax", "domainbed224", "plain"])
@pytest.mark.parametrize("short", [0, 44])
def test_images_are_the_same_decoded_and_kept(tree: Path, tmp_path: Path, preset: str, short: int) -> None:
    pipeline = ImagePipeline(PRESETS[preset], size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    plain = source_of(tree, tmp_path, short=short).fitted(pipeline.fit())
    rows = torch.tensor([3, 0, 11, 3, 7])
    for _ in range(2):  # into the cache, then out of it
        source = plain.keeping(DecodedCache(tmp_path, MOST))
        assert source.digest == plain.digest
        for cut in (pipeline.cut(5, torch.Generator().manual_seed(1)), None):
            if cut is not None:
                assert torch.equal(source.cut(rows, cut), plain.cut(rows, cut))
            assert torch.equal(source[rows], plain[rows])
        del source  # writes what is not yet written,
        gc.collect()  # as soon as nothing else holds it
        assert shards(tmp_path)


def test_what_is_kept_is_read_instead_of_the_file_and_a_changed_file_is_not_kept(tmp_path: Path) -> None:
    paths = [tmp_path / "tree" / f"{number}.png" for number in range(2)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
    source = source_of(paths[0].parent, tmp_path).keeping(DecodedCache(tmp_path, MOST))
    first = source[torch.tensor([0])]
    paths[0].unlink()
    assert torch.equal(source[torch.tensor([0])], first)
    Image.new("RGB", (9, 9), (77, 0, 0)).save(paths[1])  # since it was indexed
    assert int(source[torch.tensor([1])].max()) == 77
    Image.new("RGB", (9, 9), (78, 0, 0)).save(paths[1])
    assert int(source[torch.tensor([1])].max()) == 78


def test_workers_keep_what_they_decode(tree: Path, tmp_path: Path) -> None:
    plain = source_of(tree, tmp_path)
    source = plain.keeping(DecodedCache(tmp_path, MOST))
    samples = Samples(source, torch.arange(12), torch.zeros(12, dtype=torch.int64))
    rows = torch.arange(12)
    requests = [Request(samples, part) for part in rows.split(4)]
    found = torch.cat([torch.as_tensor(raw) for raw in ahead(iter(requests), [samples], count=12, workers=2)])
    assert torch.equal(found, plain[rows])
    keys = [digest.tobytes() for digest in source._hashes[:12]]
    work = "fit-224-224-bicubic-0-upright"
    kept = DecodedCache(tmp_path, MOST).of(work)
    assert all(kept.get(key) is not None for key in keys)


def test_a_record_is_the_same_with_and_without(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    records = []
    for gigabytes in ("0", "0.1"):
        out = tmp_path / str(len(records))
        arguments = ["run", "--scenario", f"domains:{tree}", "--method", "nearest-mean", "--track", "mini"]
        settings = ["--set", f"engine.decoded_cache_gb={gigabytes}", "--set", "engine.workers=0", "-q"]
        assert main([*arguments, *settings, "--out", str(out)]) == 0
        (file,) = out.rglob("*.json")
        records.append(json.loads(file.read_text()))
        gc.collect()  # a process that ends does the same
        assert bool(shards(tmp_path / "cache")) == (gigabytes != "0")
    for name in ("run_id", "scenario", "accuracy", "metrics", "inputs"):
        assert records[0][name] == records[1][name]
    assert records[0]["config"]["effective"] == records[1]["config"]["effective"]
    assert records[0]["predictions"]["sha256"] == records[1]["predictions"]["sha256"]
    assert set(UNSEEN) <= set(EngineConfig.__dataclass_fields__)
    assert EngineConfig().decoded_cache_gb == 0


def test_it_can_be_listed_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    fill(tmp_path, images(3))
    assert main(["cache", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["kind"] == "decoded image files"
    assert entry["name"].startswith("decoded/whole-")
    assert entry["bytes"] == shards(tmp_path)[0].stat().st_size
    assert main(["cache", "clear", entry["name"]]) == 0
    assert shards(tmp_path) == []


def test_a_process_sees_what_another_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "_LOOK_SECONDS", 0.0)
    several = images(4)
    early = DecodedCache(tmp_path, MOST).of("whole")
    assert early.get(next(iter(several))) is None
    fill(tmp_path, several)
    assert all(np.array_equal(early.get(key), image) for key, image in several.items())  # type: ignore[arg-type]
    for shard in shards(tmp_path):
        shard.unlink()
    early.get(b"\0" * 32)
    assert early.get(next(iter(several))) is None


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    several = dict(zip((b"a" * 31 + b"1", b"a" * 31 + b"2"), images(2).values(), strict=True))
    fill(tmp_path, several)
    assert missing(tmp_path, several) == 0
    assert DecodedCache(tmp_path, MOST).of("whole").get(b"a" * 31 + b"3") is None
    assert DecodedCache(tmp_path, MOST).of("other").get(b"a" * 31 + b"1") is None


def _keep(root: str) -> None:
    fill(Path(root), images(40))


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_keep, args=(str(tmp_path),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert len(shards(tmp_path)) == 1  # the same images, the same name
    assert missing(tmp_path, images(40)) == 0


def test_a_process_that_ends_writes_what_it_has_and_a_fork_does_not(tmp_path: Path) -> None:
    several = images(2)
    kept = DecodedCache(tmp_path, MOST).of("whole")
    (first, image), (second, _) = several.items()
    kept.get(first)
    kept.put(first, image)

    def child(kept: KeptImages) -> None:
        assert kept.get(second) is None
        kept.put(second, several[second])

    process = multiprocessing.get_context("fork").Process(target=child, args=(kept,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert missing(tmp_path, several) == 1
    again = pickle.loads(pickle.dumps(kept))  # as where workers are started anew
    assert np.array_equal(again.get(second), several[second])
    del kept
    gc.collect()
    assert missing(tmp_path, several) == 0


def _stop_halfway(root: str, half: Any) -> None:
    def fsync(handle: int) -> None:
        half.set()
        time.sleep(60)

    os.fsync = fsync  # type: ignore[assignment]
    fill(Path(root), images(6))


def test_what_was_half_written_when_it_was_killed_is_never_read(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    half = context.Event()
    process = context.Process(target=_stop_halfway, args=(str(tmp_path), half))
    process.start()
    assert half.wait(30)
    process.kill()
    process.join()
    (left,) = tmp_path.rglob("*.part")
    assert shards(tmp_path) == []
    assert missing(tmp_path, images(6)) == 6
    os.utime(left, (0, 0))
    fill(tmp_path, images(6))
    assert not left.exists()
    assert missing(tmp_path, images(6)) == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "no header", "a bit", "parts", "another kind"])
def test_a_damaged_file_is_removed_and_its_images_are_decoded_again(tmp_path: Path, damage: str) -> None:
    several = images(5)
    fill(tmp_path, several)
    (shard,) = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    if damage == "a bit":
        content[-1000] ^= 4
    elif damage in ("parts", "another kind"):
        from safetensors.numpy import load, save

        tensors = load(bytes(content))
        tensors["shapes"] = tensors["shapes"] + 1 if damage == "parts" else tensors["shapes"].astype(np.float32)
        content = bytearray(save(tensors))
    else:
        content = {"cut": content[:-7], "empty": bytearray(), "no header": bytearray(b"\xff" * 900)}[damage]
    shard.write_bytes(content)
    with pytest.warns(
        BenchWarning, match=r"is damaged \(.*\); it is removed, and its images are decoded again"
    ) as said:
        missing(tmp_path, several)
    assert len(said) == 1
    assert not shard.exists()
    fill(tmp_path, several)
    assert missing(tmp_path, several) == 0


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    groups = [images(40, seed) for seed in range(3)]
    for group in groups[:2]:
        fill(tmp_path, group)
    for age, shard in enumerate(sorted(shards(tmp_path), key=lambda path: path.stat().st_mtime), 1):
        os.utime(shard, (age, age))
    size = shards(tmp_path)[0].stat().st_size
    assert missing(tmp_path, groups[0]) == 0  # used now: the other one is the oldest
    time.sleep(0.02)
    fill(tmp_path, groups[2], most=int(2.5 * size))
    assert missing(tmp_path, groups[1]) == 40
    assert missing(tmp_path, groups[0]) == missing(tmp_path, groups[2]) == 0
    assert sum(shard.stat().st_size for shard in shards(tmp_path)) <= 2.5 * size


def test_what_the_run_itself_has_kept_stays_when_there_is_no_more_room(tmp_path: Path) -> None:
    several = images(300)
    with pytest.warns(BenchWarning, match=r"take all the space that engine.decoded_cache_gb=0.00016 gives") as said:
        fill(tmp_path, several, most=160_000)
    assert len(said) == 1
    assert 100 < missing(tmp_path, several) < 180
    assert sum(shard.stat().st_size for shard in shards(tmp_path)) <= 160_000


def test_a_full_disk_costs_the_cache_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    several = images(3)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(BenchWarning, match=r"not kept: .*No space left on device") as said:
        fill(tmp_path, several, most=8 * 1000)  # one after the other: none of them is tried after the first
    assert len(said) == 1
    assert list(tmp_path.rglob("*.part")) == shards(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "decoded").write_text("a file")
    with pytest.warns(BenchWarning, match="not kept: .*cannot be written") as said:
        fill(tmp_path, images(3))
    assert 1 <= len(said) <= 2


def test_images_that_are_larger_than_a_shard_are_left_out(tmp_path: Path) -> None:
    kept = fill(tmp_path, images(1, side=64), most=8 * 1000)
    assert shards(tmp_path) == []
    assert kept.get(b"\0" * 32) is None


def test_what_a_worker_has_to_say_is_said_by_the_run_once(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = source_of(tree, tmp_path)
    source = plain.keeping(DecodedCache(tmp_path, 8 * 300_000))
    samples = Samples(source, torch.arange(12), torch.zeros(12, dtype=torch.int64))
    requests = [Request(samples, torch.tensor([row])) for row in range(12)]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(BenchWarning, match="No space left") as said:
        found = list(ahead(iter(requests), [samples], count=12, workers=2))
    assert len(said) == 1
    assert torch.equal(torch.cat([torch.as_tensor(raw) for raw in found]), plain[torch.arange(12)])
