"""Archives: what is unpacked, and what is refused with nothing left behind."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.errors import DataMissing
from benchmark.readers import unpack as unpacking
from benchmark.readers.unpack import unpack

CONTENT = {"set/train/cat/1.png": b"one", "set/train/dog/2 ü.png": b"two", "set/read me.txt": b""}


def tar(path: Path, *more: tuple[str, dict[str, object], bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in CONTENT.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, facts, content in more:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in facts.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, *more: tuple[str, int, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)
        for name, mode, content in more:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("make", [tar, lambda path: tar(path, mode="w"), lambda path: tar(path, mode="w:xz"), zipped])
def test_an_archive_is_unpacked_whole(make: Callable[[Path], Path], tmp_path: Path) -> None:
    target = tmp_path / "data" / "things"
    unpack(make(tmp_path / "a"), target)
    assert {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    } == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["things"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o500 == 0o500
    with pytest.raises(DataMissing, match="things is there already, and is not overwritten"):
        unpack(make(tmp_path / "a"), target)


LINK = {"type": tarfile.SYMTYPE, "linkname": "train"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: tar(p, ("../evil", {}, b"x")), r"holds the path `\.\./evil`, which leads out of its folder"),
        (lambda p: tar(p, ("set/../../evil", {}, b"x")), "leads out of its folder"),
        (lambda p: tar(p, ("/evil", {}, b"x")), "holds the path `/evil`, which leads out"),
        (lambda p: tar(p, ("..\\evil", {}, b"x")), "leads out of its folder"),
        (lambda p: tar(p, ("C:/evil", {}, b"x")), "leads out of its folder"),
        (lambda p: tar(p, ("set/link", LINK, b"")), "set/link is a link; only files and folders"),
        (lambda p: tar(p, ("set/link", {**LINK, "linkname": "/etc"}, b"")), "is a link"),
        (lambda p: tar(p, ("set/hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, b"")), "is a link"),
        (lambda p: tar(p, ("set/fifo", {"type": tarfile.FIFOTYPE}, b"")), "set/fifo is no file"),
        (lambda p: tar(p, ("set/device", {"type": tarfile.CHRTYPE}, b"")), "set/device is no file"),
        (lambda p: tar(p, ("set/bomb", {}, bytes(3_000_000))), "unpacks to more than 1,000,000 bytes"),
        (lambda p: zipped(p, ("../evil", 0, b"x")), r"holds the path `\.\./evil`"),
        (lambda p: zipped(p, ("/evil", 0, b"x")), "leads out of its folder"),
        (lambda p: zipped(p, ("set/link", 0o120777, b"/etc")), "set/link is a link"),
        (lambda p: zipped(p, ("set/bomb", 0, bytes(3_000_000))), "unpacks to more than 1,000,000 bytes"),
        (lambda p: (p.write_bytes(b"no archive at all"), p)[1], "cannot be unpacked"),
        (lambda p: (tar(p), p.write_bytes(p.read_bytes()[:-40]), p)[2], "cannot be unpacked"),
        (lambda p: p, "cannot be read: No such file"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    make: Callable[[Path], Path], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1_000_000)
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in" / "archive.tar.gz")
    with pytest.raises(DataMissing, match=said):
        unpack(archive, tmp_path / "out" / "things")
    assert [path for path in tmp_path.rglob("*") if "in" not in path.relative_to(tmp_path).parts] == [tmp_path / "out"]


def test_a_zip_that_lies_about_its_sizes_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1_000_000)
    path = zipped(tmp_path / "a.zip", ("set/bomb", 0, bytes(3_000_000)))
    path.write_bytes(path.read_bytes().replace((3_000_000).to_bytes(4, "little"), (3).to_bytes(4, "little")))
    with pytest.raises(DataMissing, match=r"cannot be unpacked|unpacks to more"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 2)
    with pytest.raises(DataMissing, match="unpacks to more than 2 files"):
        unpack(zipped(tmp_path / "a.zip"), tmp_path / "out")
