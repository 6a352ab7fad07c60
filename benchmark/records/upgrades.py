"""Older schemas, one step at a time, on plain values: files are never edited.

What an old record does not say is derived from what it says, or looked up in two files beside this module:

``defaults.json``
    Values that methods and scenarios gave to options when records of schema 2 were made, by method, track and recipe.
    An option that a user had set, and that is not in it, stays without a value of its track and so is always shown; so
    is one that its track has changed since, in the oldest records.
    Also the backbones that saw images through the weights of another, by the hash of their file.
``contents.json``
    What a scenario decodes, for those whose data are known (`benchmark.records.contents`).

No plugin is asked: an old record must not read differently because a method has changed or is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from benchmark.records import contents

_HERE = Path(__file__).parent


def upgrade_1_to_2(record: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 tells how the model was selected, and names the test sets, the target and the variant's option."""
    scenario, config = record["scenario"], record["config"]
    effective = config["effective"]
    parts = scenario["experiences"]
    own = len(parts) == len(record["counts"])
    names = [(parts[place]["domain"] if own else None) or str(place) for place in range(len(record["counts"]))]
    return {
        **record,
        "schema": 2,
        "scenario": {
            **scenario,
            "experiences": [{**part, "target": None} for part in parts],
            "tests": [{"name": name, "further": False} for name in names],
            "transductive": False,
            "variant_option": "",
        },
        "config": {
            **config,
            "effective": {**effective, "engine": {**effective.get("engine", {}), "select": "last"}},
        },
        "selection": {"rule": "last", "chosen": [], "scores": []},
    }


def upgrade_2_to_3(record: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 tells the content of the data, the values of the track, the image tower and the engine's number.

    One word: what a method uses is ``num_experiences``, no longer ``num_tasks``.
    """
    scenario, method, backbone, config = (record[name] for name in ("scenario", "method", "backbone", "config"))
    content, partition = contents.look_up(scenario)
    name, digest = _defaults()["towers"].get(backbone["sha256"], (backbone["name"], backbone["sha256"]))
    effective = {**{group: {} for group in ("scenario", "method", "engine")}, **config["effective"]}
    return {
        **record,
        "schema": 3,
        "scenario": {
            **scenario,
            "fingerprint": fingerprint(scenario["fingerprint"], content),
            "content": content,
            "partition": partition,
        },
        "method": {
            **{key: value for key, value in method.items() if key != "code_sha256"},
            "uses": ["num_experiences" if use == "num_tasks" else use for use in method["uses"]],
        },
        "identity": {"engine": 0, "code": method["code_sha256"]},
        "backbone": {
            "name": backbone["name"],
            "sha256": backbone["sha256"],
            "image_name": name,
            "image_sha256": digest,
            "own_weights": False,
            "parameters": backbone["parameters"],
        },
        "inputs": {
            "kind": "image",
            "facts": {
                "preset": config.get("preset", ""),
                "size": backbone["image_size"],
                "normalize": backbone["normalize"],
                "mean": backbone.get("normalize_mean", backbone["mean"]),
                "std": backbone.get("normalize_std", backbone["std"]),
            },
        },
        "config": {
            "given": config["given"],
            "effective": effective,
            "track": _of_track(record, effective),
            "origin": config["origin"],
        },
    }


def upgrade_3_to_4(record: dict[str, Any]) -> dict[str, Any]:
    """Schema 4 tells facts of the scores by which an epoch was kept, which need be no accuracies any more."""
    return {**record, "schema": 4, "selection": {**record["selection"], "facts": {}}}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: upgrade_1_to_2,
    2: upgrade_2_to_3,
    3: upgrade_3_to_4,
}
"""``{n: upgrade_n_to_n_plus_1}``; each returns a new record. What is damaged raises an error of looking up."""


def fingerprint(split: str, content: str) -> str:
    """The fingerprint of a scenario whose split and content are known.

    Args:
        split: Hash of sample ids, labels, experiences and subsets, with ``-lossy`` behind it for re-encoded data.
        content: Hash of what was decoded; "" where it is not known.

    Returns:
        The hash of both with the same mark behind it; ``split`` where there is no content.
    """
    if not content:
        return split
    text = f"adaptbench split 2\n{split[:64]}\n{content}"
    return hashlib.sha256(text.encode()).hexdigest() + split[64:]


def _of_track(record: Mapping[str, Any], effective: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By group the values without any setting of the user, as far as they are known."""
    given, method = record["config"]["given"], record["method"]
    known = _defaults()
    about = known["methods"].get(method["name"], {"default": {}, "tracks": {}, "recipes": {}})
    defaults = {
        "scenario": known["scenarios"].get(record["scenario"]["name"].partition("/")[0], {}),
        "method": {
            **about["default"],
            **about["tracks"].get(record["track"], {}),
            **about["recipes"].get(method["recipe"], {}),
        },
        "engine": known["engine"],
    }
    found: dict[str, dict[str, Any]] = {}
    for group, default in defaults.items():
        found[group] = {}
        for name, value in effective[group].items():
            if name in default:
                found[group][name] = default[name]
            elif f"{group}.{name}" not in given:
                found[group][name] = value
    return found


@cache
def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((_HERE / "defaults.json").read_bytes())
    return found
