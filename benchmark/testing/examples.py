"""Small data that scenarios write to be checked on."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, cast

from benchmark import data
from benchmark.guard import Guard
from benchmark.registry import Loaded
from benchmark.specs import ScenarioSpec


def written_for(owner: object, loaded: Loaded) -> str:
    """Has a library write its example (`ScenarioSpec.example`) into a folder that lasts as long as ``owner``.

    Returns:
        The tag that names it; empty where the scenario is no library.
    """
    spec = cast("ScenarioSpec", loaded.spec)
    if spec.example is None:
        return ""
    folder = tempfile.mkdtemp()
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    with Guard(f"scenario `{spec.name}` of `{loaded.entry.distribution}`")("example"):
        return spec.example(Path(folder))


def miniature_for(owner: object, loaded: Loaded, root: Path | None) -> dict[str, Any]:
    """Has a scenario write tiny copies of its data sets (`ScenarioSpec.miniature`), where one of them is absent.

    Data that are there are used whatever their state: a copy must not hide their damage.

    Args:
        owner: The copies last as long as it.
        loaded: The scenario.
        root: Data root, or None for the default places.

    Returns:
        What `benchmark.scenario.ScenarioRequest` needs to read them; empty where all data are there.
    """
    spec = cast("ScenarioSpec", loaded.spec)
    if spec.miniature is None or not data.absent(spec.data, root):
        return {}
    folder = Path(tempfile.mkdtemp())
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    with Guard(f"scenario `{spec.name}` of `{loaded.entry.distribution}`")("miniature"):
        spec.miniature(folder / "data")
    return {"data_root": folder / "data", "cache": folder / "cache", "miniature": True}
