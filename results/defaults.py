"""Writes ``benchmark/records/defaults.json``: the values that options had without any setting of the user.

    python results/defaults.py

It was run once, when schema 3 came, for the upgrade of older records (`benchmark.records.upgrades`), which must not ask
plugins. Records of schema 3 hold these values themselves: do not run it again after a default has changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from benchmark import config as configs
from benchmark import loading, registry
from benchmark.files import replace_file
from benchmark.run.options import EngineConfig
from benchmark.specs import MethodSpec, ScenarioSpec

FILE = Path(__file__).parents[1] / "benchmark" / "records" / "defaults.json"


def defaults() -> dict[str, Any]:
    """Defaults of methods with what tracks and recipes put in their place, of scenarios, and shared image towers."""
    methods: dict[str, Any] = {}
    for name in registry.names("methods"):
        spec = cast("MethodSpec", registry.load_method(name).spec)
        methods[name] = {
            "default": configs.as_dict(spec.config()),
            "tracks": _plain(spec.tracks),
            "recipes": _plain(spec.recipes),
        }
    scenarios = {
        name: configs.as_dict(cast("ScenarioSpec", registry.load_scenario(name).spec).config())
        for name in registry.names("scenarios")
    }
    return {
        "towers": loading.image_towers(),
        "engine": configs.as_dict(EngineConfig()),
        "methods": methods,
        "scenarios": scenarios,
    }


def _plain(layers: Any) -> dict[str, Any]:
    return {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in layer.items()}
        for name, layer in layers.items()
    }


if __name__ == "__main__":
    replace_file(FILE, (json.dumps(defaults(), indent=1, sort_keys=True) + "\n").encode())
