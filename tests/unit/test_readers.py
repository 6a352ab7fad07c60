"""Readers of data files, on good files and on everything else that a data root can hold."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmark import readers
from benchmark.errors import DataMissing

needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")


def png(*size: int, mode: str = "RGB", value: Any = 7, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size or (4, 4), value).save(file, kind)
    return file.getvalue()


# --- what is no file ----------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def looping(path: Path) -> None:
    path.symlink_to(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20 << 30)


def table(path: Path) -> Any:
    return readers.read_parquet(path, ["label"], what="x")


READ: dict[str, Callable[[Path], Any]] = {
    "bytes": readers.read_bytes,
    "idx": lambda path: readers.read_idx(path, 1),
    "list": readers.read_list,
    "parquet": table,
    "member": lambda path: readers.read_member(path, "a"),
    "tree": lambda path: readers.read_tree([path.parent], what="x"),
}


@needs_fifo
@pytest.mark.parametrize("make", [fifo, device, folder, dangling, looping, sparse])
@pytest.mark.parametrize("reader", READ)
def test_what_is_no_file_of_a_sane_size_is_refused_by_name_by_every_reader(
    make: Callable[[Path], None], reader: str, tmp_path: Path
) -> None:
    path = tmp_path / "thing.png"
    make(path)
    with pytest.raises(DataMissing, match=r"thing\.png"):
        READ[reader](path)


@needs_fifo
def test_what_is_no_file_is_no_missing_file_either(tmp_path: Path) -> None:
    assert not readers.is_file(tmp_path / "none")
    assert not readers.is_folder(tmp_path / "none" / "below")
    for number, (make, what) in enumerate(
        [(fifo, "a FIFO"), (device, "a device"), (dangling, "a link that leads nowhere"), (looping, "to itself")]
    ):
        make(tmp_path / str(number))
        for ask in (readers.is_file, readers.is_folder):
            with pytest.raises(DataMissing, match=what):
                ask(tmp_path / str(number))
    with pytest.raises(DataMissing, match="is a folder, not a file"):
        readers.is_file(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataMissing, match="is a file, not a folder"):
        readers.is_folder(tmp_path / "file")
    with pytest.raises(DataMissing, match="cannot be read: Not a directory"):
        readers.listing(tmp_path / "file")


@needs_fifo
def test_names_that_are_not_utf8_are_shown_with_their_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(DataMissing, match=r"caf\\xe9 cannot be read") as caught:
        readers.read_bytes(path)
    caught.value.message.encode()
    path.write_bytes(b"x")
    assert readers.file_key([path], tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_folders_that_cannot_be_entered_are_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataMissing, match=r"closed.* cannot be read: Permission denied"):
        readers.is_file(tmp_path / "closed" / "file")


def test_importing_the_readers_loads_nothing_heavy() -> None:
    code = "import sys, benchmark.readers; sys.exit(bool({'torch', 'PIL', 'pyarrow', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- images -------------------------------------------------------------------------------------


def one(blob: bytes) -> readers.Array:
    return readers.decode([("here", blob)], 1, what="x").images[0]


@pytest.mark.parametrize("level", [0, 1, 255, 256, 32767, 32768, 65279, 65535])
def test_16_bit_grey_is_scaled_to_8_bits(level: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 3), level, np.uint16)).save(file, "PNG")
    found = one(file.getvalue())
    assert found.shape == (3, 2, 3)
    assert (found == round(level / 257)).all()


def test_images_of_every_mode_become_rgb() -> None:
    assert one(png(mode="L", value=9)).tolist() == [[[9] * 4] * 4] * 3
    assert one(png(mode="RGBA", value=(1, 2, 3, 4)))[:, 0, 0].tolist() == [1, 2, 3]
    assert one(png(mode="1", value=1)).min() == 255
    decoded = readers.decode([("a", png()), ("b", png(kind="JPEG"))], 2, what="x")
    assert decoded.codecs == ("", "JPEG")


def test_images_that_are_none_or_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs: list[Any] = [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0", png()[:-30], None, png(kind="GIF")]
    for blob in blobs:
        with pytest.raises(DataMissing, match="here is no"):
            one(blob)
    huge = bytearray(png())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # the size in its header
    with pytest.raises(DataMissing, match="here is not a readable image"):
        one(bytes(huge))
    monkeypatch.setattr("benchmark.readers.images.MOST_PIXELS", 15)
    with pytest.raises(DataMissing, match="here is not a readable image: 4x4 pixels are more than 15"):
        one(png())


def test_more_or_fewer_images_than_announced_are_an_error() -> None:
    for count, said in ((1, "b is one more than the 1 images"), (3, "there are 2 images instead of 3")):
        with pytest.raises(DataMissing, match=said):
            readers.decode([("a", png()), ("b", png())], count, what="x")
    with pytest.raises(DataMissing, match="do not fit into memory"):
        readers.decode([("a", png())], 1 << 60, what="x")


# --- trees --------------------------------------------------------------------------------------

NAMES = ("apple", "aquarium_fish", "bear")


def tree(root: Path, **splits: str) -> dict[str, Path]:
    for split, names in splits.items():
        for name in names.split(","):
            (root / split / name).mkdir(parents=True)
    return {split: root / split for split in splits}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("apple,aquarium_fish,bear", "Apple,aquarium fish,BEAR"),
        ("2_apple,1_aquarium_fish,0_bear", "00 apple,01-aquarium-fish,2. bear"),
        ("0,1,2", "00,01,02"),
        ("8,9,10", "8,9,10"),
    ],
)
def test_class_folders_are_matched_by_name_or_by_number(train: str, test: str, tmp_path: Path) -> None:
    found = readers.class_folders(tree(tmp_path, train=train, test=test), NAMES)
    for split, names in (("train", train), ("test", test)):
        assert [path.name for path in found[split]] == names.split(",")


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            "apple,aquarium_fish,bear",
            "apple,fish,bear",
            r"test.fish is none of the classes \(should it be aquarium_fish\?\); .*test has no folder aquarium_fish",
        ),
        ("apple,aquarium_fish,bear", "0,1,2", r"test.0 is none of the classes"),
        ("apple,aquarium_fish,bear", "apple,bear", r"test has 2 class folders instead of 3: .*no folder aquarium_fish"),
        (
            "apple,aquarium_fish,bear,x",
            "apple,aquarium_fish,bear",
            r"train has 4 class folders instead of 3: .*train.x",
        ),
        ("apple,0_Apple,bear", "apple,aquarium_fish,bear", r"train.0_Apple and .*train.apple are the same class"),
        ("0,00,000", "0,1,2", r"train.0 and .*train.00 are the same class"),
        ("0,1,2", "0,1,\uff12", r"train.0 is none of the classes"),
        ("0,1,2", "0,1,3", r"train and .*test have different class folders: only one of them has 2"),
        ("0,1,2", "0,1", r"test has 2 class folders instead of 3"),
        ("0,1,bear", "0,1,bear", r"train.0 is none of the classes"),
    ],
)
def test_class_folders_that_do_not_agree_are_named(train: str, test: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=said):
        readers.class_folders(tree(tmp_path, train=train, test=test), NAMES)


def test_a_tree_is_read_in_the_order_of_folders_and_files(tmp_path: Path) -> None:
    folders = [tmp_path / "b", tmp_path / "a"]
    for number, path in enumerate(["a/2.png", "a/1.png", "b/1.png", "b/.hidden.png", "b/notes.txt"]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(png(value=(number, 0, 0)))
    decoded, labels = readers.read_tree(folders, what="x")
    assert labels.tolist() == [1, 1, 0]
    assert decoded.images[:, 0, 0, 0].tolist() == [1, 0, 2]


# --- tables, idx, pickles, archives, lists ------------------------------------------------------


def write_table(path: Path, labels: Any, cells: Any = None) -> Path:
    pq.write_table(pa.table({"img": cells or [png()] * len(labels), "label": labels}), path)
    return path


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([2**63, 1], pa.uint64()), r"labels out of range: .*9223372036854775808"),
        (pa.array([1.5, 1.0]), "labels of type double, not integers"),
        (pa.array(["1", "2"]), "labels of type string"),
        (pa.array([1, None]), "labels of type int64, some of them missing"),
        (pa.array([[1], [2]]), "labels of type list"),
    ],
)
def test_labels_of_a_table_are_integers_in_range(labels: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=rf"t\.parquet, column `label` has {said}"):
        table(write_table(tmp_path / "t.parquet", labels))


def test_tables_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    decoded, labels = table(write_table(path, pa.array([3, 2**62], pa.uint64())))
    assert (decoded.images.shape, labels.tolist()) == ((2, 3, 4, 4), [3, 2**62])
    with pytest.raises(DataMissing, match=r"t\.parquet holds 2 images instead of 3"):
        readers.read_parquet(path, ["label"], what="x", count=3)
    cells: list[Any] = [[b"no", b"no"], [1, 2], [None, None], ["a", "b"], [{"path": "x"}] * 2]
    for cell in cells:
        with pytest.raises(DataMissing, match=r"t\.parquet"):
            table(write_table(path, [1, 2], cell))


def test_a_table_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "t.parquet", [1], [bytes(1 << 20)])
    assert path.stat().st_size < 1 << 18
    monkeypatch.setattr("benchmark.readers.parquet.MOST", 1 << 18)
    with pytest.raises(DataMissing, match=r"t\.parquet unpacks to [0-9,]+ bytes for 1 rows"):
        table(path)


def test_a_packed_idx_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(readers.idx_header((5,)) + bytes(1 << 24)))
    with pytest.raises(DataMissing, match=r"a\.gz holds more than the 13 bytes that it announces"):
        readers.read_idx(path, 1)
    path.write_bytes(gzip.compress(readers.idx_header((2**32 - 1,))))
    with pytest.raises(DataMissing, match=r"announces 4,294,967,295 bytes"):
        readers.read_idx(path, 1)
    path.write_bytes(gzip.compress(readers.idx_header((2, 3)) + b"abcdef"))
    assert readers.read_idx(path, 2).tolist() == [[97, 98, 99], [100, 101, 102]]
    with pytest.raises(DataMissing, match="begins with 2050 instead of 2049"):
        readers.read_idx(path, 1)


def test_a_pickle_needs_its_checksum() -> None:
    with pytest.raises(DataMissing, match=r"here is damaged: its MD5 is .* instead of 0000"):
        readers.read_pickle(pickle.dumps(b"a"), "here", md5="0000")


def write_archive(path: Path, kind: str, **members: bytes) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        return path
    with path.open("wb") as file, tarfile.open(fileobj=file, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_members_of_archives_are_read_up_to_a_size(kind: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "pack", kind, first=b"1" * 10, second=bytes(1 << 22))
    assert readers.read_member(path, "first") == b"1" * 10
    with pytest.raises(DataMissing, match="pack: third cannot be read: "):
        readers.read_member(path, "third")
    with pytest.raises(DataMissing, match=r"pack(: second: .* bytes would be unpacked| has .* bytes)"):
        readers.read_member(path, "second", most=1 << 20)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataMissing, match="pack: second cannot be read: "):
        readers.read_member(path, "second")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "names no image"),
        (b"\n \n", "names no image"),
        (b"a/b.png 1\n\nc/d.png\n", r"line 3: 'c/d\.png' is not `path label`"),
        (b"a/b.png x\n", "line 1: .* is not `path label`"),
        (b"a/b.png 99999999999\n", "line 1: .* is not `path label`"),
        (b"a/b.png 1\nc 2\na/b.png 2\n", r"line 3: a/b\.png is in line 1 already"),
        (b"caf\xe9.png 1\n", "line 1: not UTF-8"),
    ],
)
def test_lists_that_say_nothing_or_something_twice_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataMissing, match=rf"list\.txt(, | ){said}"):
        readers.read_list(path)


def test_a_list_gives_labels_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa b.png 1\r\n\r\nc.png  2")
    assert readers.read_list(path) == {"a b.png": (1, 1), "c.png": (2, 3)}


# --- derived arrays -----------------------------------------------------------------------------


class Builder:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[dict[str, readers.Array], dict[str, str]]:
        self.calls += 1
        return {"images": np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2), "labels": np.array([1, 0])}, {"a": "b"}


def test_arrays_are_built_once(tmp_path: Path) -> None:
    build = Builder()
    for _ in range(3):
        kept = readers.cached_arrays(tmp_path / "key", build)
        arrays, notes = kept.arrays, kept.notes
        assert arrays["images"].dtype == np.uint8
        assert arrays["images"].tolist() == np.arange(24).reshape(2, 3, 2, 2).tolist()
        assert arrays["labels"].tolist() == [1, 0]
        assert notes == {"a": "b"}
    assert build.calls == 1
    assert sorted(path.name for path in (tmp_path / "key").iterdir()) == ["arrays.json", "images.npy", "labels.npy"]


@pytest.mark.parametrize("file", ["arrays.json", "images.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent", "empty", "a zip by its first bytes"])
def test_damaged_arrays_are_built_again(
    file: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder()
    readers.cached_arrays(tmp_path, build)
    path = tmp_path / file
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        damaged = {"truncated": content[:-5], "flipped": flipped, "empty": b""}
        path.write_bytes(damaged.get(damage, b"PK\x03\x04" + content[4:]))
    arrays = readers.cached_arrays(tmp_path, build).arrays
    assert build.calls == 2
    assert arrays["labels"].tolist() == [1, 0]
    assert path.read_bytes() == content
    readers.cached_arrays(tmp_path, build)
    assert build.calls == 2
    if (file, damage) != ("arrays.json", "absent"):
        assert "is damaged" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_gives_a_warning_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"not cached: .*file cannot be written \((File exists|Not a directory)"):
        arrays = readers.cached_arrays(tmp_path / "file" / "key", Builder()).arrays
    assert arrays["labels"].tolist() == [1, 0]


def test_the_key_knows_names_sizes_times_and_first_bytes(tmp_path: Path) -> None:
    def key(*extra: str) -> str:
        return readers.file_key([path], tmp_path, *extra)

    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = key()
    assert key() == first
    assert key("other reader") != first
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert key() != first
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 2))
    assert key() != first


def test_the_key_knows_other_data_of_the_same_name_size_and_time_of_modification(tmp_path: Path) -> None:
    """As in copies and archives that keep times: what differs lies behind the bytes that are read."""
    path = tmp_path / "a"
    keys = set()
    for last in (b"1", b"2"):
        path.write_bytes(bytes(1 << 17) + last)
        os.utime(path, ns=(1, 1))
        keys.add(readers.file_key([path], tmp_path))
        time.sleep(0.02)  # file systems keep times in steps of some milliseconds
    assert len(keys) == 2


def test_notes_of_kept_arrays_that_were_changed_are_made_again(tmp_path: Path) -> None:
    build = Builder()
    readers.cached_arrays(tmp_path, build)
    manifest = tmp_path / "arrays.json"
    manifest.write_text(manifest.read_text().replace('"a": "b"', '"a": "c"'))
    assert readers.cached_arrays(tmp_path, build).notes == {"a": "b"}
    assert build.calls == 2


def test_kept_arrays_have_the_usual_permissions_and_digests(tmp_path: Path) -> None:
    fresh = readers.cached_arrays(tmp_path / "key", Builder())
    again = readers.cached_arrays(tmp_path / "key", Builder())
    assert fresh.digests == again.digests
    assert len(fresh.digests["images"]) == 64
    (tmp_path / "other").write_bytes(b"")
    usual = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "key").iterdir()} == {usual}
