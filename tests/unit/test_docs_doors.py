"""docs/doors.md: every block registers what it says, and what it registers works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmark import How, families, loading, registry
from benchmark.importing import import_file
from benchmark.records import read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "doors.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("registry_as_it_was")
def test_every_block_is_a_plugin_that_works(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    found = {}
    for place, text in enumerate(blocks):
        path = tmp_path / f"block{place}.py"
        path.write_text(text, encoding="utf-8")
        registry.add_file(path)
        for kind, name in re.findall(r"bench_register_(\w+)\(.*?name=\"([\w-]+)\"", text, re.DOTALL):
            found[kind] = registry.load(kind, name).spec
    doors = set(registry.KINDS) - {"methods", "scenarios", "exporters"}
    assert set(found) == doors, "a door has no example"
    assert all(f"`bench.{kind}`" in PAGE for kind in doors)
    backbone = loading.load("random-vit")
    assert backbone.image_size == 16
    assert loading.load("random-vit").sha256 == backbone.sha256
    assert registry.load_family("noise-il").domains
    del families.REGISTERED["noise-il"]
    assert found["metrics"].compute(accuracy=np.array([[0.5, np.nan], [0.25, 0.75]])) == 0.5
    assert list(found["executors"].execute([], How())) == []
    scores = tmp_path / "scores.csv"
    scores.write_text("method,accuracy\nmine,0.5\nyours,0.25\n", encoding="utf-8")
    assert [run.reported[0].value for run in import_file("their-suite", scores)] == [0.5, 0.25]
    record = read(ROOT / "tests" / "golden" / "records" / "v1.json")
    assert registry.load_plot("finals").draw([record]).axes
