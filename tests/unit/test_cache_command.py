"""`bench cache`: lists and removes what adaptbench has put into the cache folder, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import readers
from benchmark.cli import main


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("BENCH_CACHE", str(root))
    readers.cached_arrays(root / "birds-1a2b", lambda: ({"images": np.zeros((2, 3, 4, 4), np.uint8)}, {}))
    (tmp_path / "tree").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "tree" / "a.png")
    readers.index_files(readers.find_images(tmp_path / "tree"), root, quiet=True)
    (root / "mine").mkdir()
    (root / "mine" / "letter.txt").write_text("x")
    return root


def test_entries_are_listed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["kind"] for entry in told["entries"]] == ["decoded arrays", "hashes of image files"]
    assert all(entry["bytes"] > 0 for entry in told["entries"])
    assert main(["cache", "list"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("birds-1a2b")
    assert "2 entries" in said.err


def test_entries_are_removed_by_name_or_all(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "birds-1a2"]) == 2
    assert "birds-1a2b" in capsys.readouterr().err
    assert main(["cache", "clear", "birds-1a2b"]) == 0
    assert not (cache / "birds-1a2b").exists()
    assert main(["cache", "clear"]) == 0
    assert [path.name for path in sorted(cache.rglob("*")) if path.is_file()] == ["letter.txt"]
    assert main(["cache", "list"]) == 0
