"""Trees as users have them: what counts as an image, and what is one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import readers
from benchmark.errors import DataMissing
from benchmark.readers.walk import Names


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(path, "PNG")
    return path


def test_what_desktops_and_copy_tools_leave_is_passed_over_at_every_level(tmp_path: Path) -> None:
    kept = ["a/1.png", "a/deep/er/2.PNG", "b, c/ü – 3.JPeG", "b, c/4.tiff"]
    for name in kept:
        put(tmp_path / name)
    for name in (".hidden.png", "a/._1.png", "a/.DS_Store", "__MACOSX/a/1.png", "a/__MACOSX/1.png"):
        put(tmp_path / name)
    for name in (".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/1-checkpoint.png", "a/deep/.git/3.png"):
        put(tmp_path / name)
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("x")
    found = readers.find_images(tmp_path)
    assert list(found.names) == sorted(kept)
    assert found.others == ("README.txt", "a/Thumbs.db")
    assert readers.subfolders(tmp_path) == ["a", "b, c"]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    put(tmp_path / "real" / "1.png")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").symlink_to(tmp_path / "real", target_is_directory=True)
    assert list(readers.find_images(tmp_path / "tree").names) == ["a/1.png"]
    (tmp_path / "real" / "back").symlink_to(tmp_path / "tree", target_is_directory=True)
    with pytest.raises(DataMissing, match="back is a link that leads back to a folder above it"):
        readers.find_images(tmp_path / "tree")


def test_links_to_nothing_fifos_and_closed_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    link = tmp_path / "a" / "x.png"
    link.symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataMissing, match=r"x\.png is a link that leads nowhere"):
        readers.find_images(tmp_path)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(DataMissing, match=r"x\.png is a link that leads to itself"):
        readers.find_images(tmp_path)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(DataMissing, match="is a FIFO, not a file"):
        readers.find_images(tmp_path)
    link.unlink()
    with pytest.raises(DataMissing, match="there is no folder"):
        readers.find_images(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(DataMissing, match="closed cannot be read: Permission denied"):
        readers.find_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_named_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataMissing, match="closed cannot be read: Permission denied"):
        readers.find_images(tmp_path)


def test_names_in_two_arrays_are_names() -> None:
    names = ["", "a", "b ü\udcff", "c/d.png"]
    packed = Names.of(names)
    assert list(packed) == names
    assert packed[1:3] == names[1:3]
    assert list(packed.take(np.array([3, 1]))) == ["c/d.png", "a"]
    with pytest.raises(IndexError):
        packed[4]
    assert list(Names.of([])) == []
