"""The JSON Schema of a record, and a fast check against it.

`json_schema` is the document for other tools. `check` understands exactly the keywords used here
(``type``, ``enum``, ``pattern``, ``minimum``, ``required``, ``properties``, ``items``,
``additionalProperties``, and the one ``if``) and is fast enough for ten thousand records in a second or two; a test
holds the two against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STRING = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_COUNT_OR_NULL = {"type": ["integer", "null"], "minimum": 0}
_SECONDS = {"type": "number", "minimum": 0}
_FLAG = {"type": "boolean"}
_OPEN = {"type": "object"}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_INTEGERS = {"type": "array", "items": {"type": "integer"}}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _group(properties: Mapping[str, Any], *, optional: tuple[str, ...] = (), null: bool = False) -> dict[str, Any]:
    return {
        "type": ["object", "null"] if null else "object",
        "properties": dict(properties),
        "required": sorted(set(properties) - set(optional)),
    }


_ERROR = "Why the run was interrupted or failed; absent when it was completed."
_DOCUMENT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "adaptbench record, schema 2",
    "description": "One run: what was asked for, what ran, and every accuracy. Fractions are in [0, 1], times in "
    "seconds, sizes in bytes; null means undefined or not measured.",
    "additionalProperties": False,
    "if": {"properties": {"status": {"const": "completed"}}},
    "then": {"properties": {"metrics": {"type": "object"}}},
    **_group(
        {
            "schema": {"type": "integer", "minimum": 1, "description": "Version of this layout."},
            "run_id": {"type": "string", "pattern": "^[0-9a-f]{16}$", "description": "Hash of all that decides."},
            "status": {"enum": ["completed", "interrupted", "failed"]},
            "error": {"type": ["string", "null"], "description": _ERROR},
            "track": _STRING,
            "scenario": _group(
                {
                    "name": {"type": "string", "description": "With its variant, e.g. split-cifar100/10x10."},
                    "version": {"type": "integer", "description": "Different versions never share a table."},
                    "family": _STRING,
                    "fingerprint": {
                        "type": "string",
                        "pattern": "^[0-9a-f]{64}(-lossy)?$",
                        "description": "Hash of sample ids, labels, experiences, subsets; marked for re-encoded data.",
                    },
                    "num_classes": _COUNT,
                    "class_order": _INTEGERS,
                    "experiences": {
                        "type": "array",
                        "items": _group(
                            {
                                "classes": _INTEGERS,
                                "domain": {"type": ["string", "null"]},
                                "train": _COUNT,
                                "test": _COUNT,
                                "target": {**_COUNT_OR_NULL, "description": "Unlabelled target images."},
                            }
                        ),
                    },
                    "tests": {
                        "type": "array",
                        "description": "The columns of accuracy; further: not of an experience.",
                        "items": _group({"name": _STRING, "further": _FLAG}),
                    },
                    "transductive": {"type": "boolean", "description": "Target images are the test images."},
                    "variant_option": {"type": "string", "description": "Option behind the `/` of name, or empty."},
                    "options": _OPEN,
                    "notes": _OPEN,
                    "distribution": {"type": "string", "description": "Package and version it comes from."},
                }
            ),
            "method": _group(
                {
                    "name": _STRING,
                    "recipe": _STRING,
                    "default_recipe": {"type": "string", "description": "Shown without a suffix in tables."},
                    "uses": {"type": "array", "items": _STRING, "description": "What it declared that it uses."},
                    "control": {"type": "boolean", "description": "A yardstick that every table shows."},
                    "stream": {"enum": ["sequential", "joint", "oracle"]},
                    "code_sha256": _SHA256,
                    "distribution": _STRING,
                    "paper": _STRING,
                },
                optional=("default_recipe", "paper"),
            ),
            "backbone": _group(
                {
                    "name": _STRING,
                    "sha256": _SHA256,
                    "mean": {"type": "array", "items": {"type": "number"}},
                    "std": {"type": "array", "items": {"type": "number"}},
                    "normalize": _STRING,
                    "image_size": _COUNT,
                    "parameters": _COUNT,
                }
            ),
            "config": _group(
                {
                    "given": {"type": "object", "description": "What the user set explicitly."},
                    "effective": {
                        "type": "object",
                        "description": "Every value that can change a number, by group.",
                        "properties": {"scenario": _OPEN, "method": _OPEN, "engine": _OPEN},
                    },
                    "origin": {"type": "object", "description": "Where each value came from."},
                }
            ),
            "selection": _group(
                {
                    "rule": {"enum": ["last", "source-validation", "target-oracle"]},
                    "chosen": {
                        "type": "array",
                        "description": "Epoch kept per experience, from 0; null where there was nothing to choose.",
                        "items": _COUNT_OR_NULL,
                    },
                    "scores": {
                        "type": "array",
                        "description": "Per experience the accuracy on the selection images after each epoch.",
                        "items": {"type": "array", "items": {"type": "number"}},
                    },
                }
            ),
            "seeds": _group({name: {"type": "integer"} for name in ("seed", "class_order", "init", "data")}),
            "evaluated_on": {"enum": ["test", "validation"]},
            "accuracy": {
                "type": "array",
                "description": "R (T, E): row = time, column = test set; null where not evaluated.",
                "items": {"type": "array", "items": _NUMBER_OR_NULL},
            },
            "counts": {"type": "array", "items": _COUNT, "description": "Test images per column."},
            "baseline": {
                "type": ["array", "null"],
                "description": "Accuracy of the untrained model, where it means something.",
                "items": _NUMBER_OR_NULL,
            },
            "metrics": {
                "type": ["object", "null"],
                "description": "Output of benchmark.metrics.continual_metrics; null only in runs without an end.",
                "additionalProperties": {"type": ["number", "null", "array"]},
            },
            "cost": _group(
                {
                    "params_total": _COUNT_OR_NULL,
                    "params_trainable": _COUNT_OR_NULL,
                    "params_trainable_per_experience": {"type": "array", "items": _COUNT_OR_NULL},
                    "params_added": _COUNT_OR_NULL,
                    "flops_forward": _COUNT_OR_NULL,
                    "macs_forward": {"type": ["number", "null"]},
                    "flops_train_step": _COUNT_OR_NULL,
                    "storage_bytes": {"type": "array", "items": _COUNT_OR_NULL},
                },
                null=True,
            ),
            "timing": _group(
                {
                    "data_seconds": _SECONDS,
                    "train_seconds": {"type": "array", "items": _SECONDS},
                    "eval_seconds": {"type": "array", "items": _SECONDS},
                    "total_seconds": _SECONDS,
                    "peak_memory_bytes": _COUNT_OR_NULL,
                    "throughput_images_per_second": _NUMBER_OR_NULL,
                    "resumed": {"type": "integer", "minimum": 0, "description": "Times it went on after a stop."},
                }
            ),
            "predictions": _group({"file": _STRING, "rows": _COUNT, "sha256": _SHA256}, null=True),
            "losses": {
                "type": "array",
                "description": "Per experience, per epoch: the mean of each loss term.",
                "items": {"type": "array"},
            },
            "warnings": {"type": "array", "items": _STRING},
            "provenance": _group(
                {
                    "command": _STRING,
                    "date": _STRING,
                    "python": _STRING,
                    "platform": _STRING,
                    "packages": _OPEN,
                    "git_commit": {"type": ["string", "null"]},
                    "git_dirty": {"type": ["boolean", "null"]},
                    "device": _STRING,
                    "threads": _COUNT,
                    "deterministic": _FLAG,
                }
            ),
        },
        optional=("error",),
    ),
}

# bool is an int for isinstance, but not for JSON Schema; exact types are also faster.
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def json_schema() -> dict[str, Any]:
    """A fresh copy of the JSON Schema (draft 2020-12) of the current record layout."""
    import copy

    return copy.deepcopy(_DOCUMENT)


def check(record: object) -> str | None:
    """Checks a record.

    Returns:
        What is wrong first, with the full key, or None if all is well.
    """
    wrong = _check(record, _COMPILED)
    if wrong is not None:
        return wrong.removeprefix(".") if wrong.startswith(".") else f"the file{wrong}"
    if isinstance(record, dict) and record["status"] == "completed" and record["metrics"] is None:
        return "metrics is null, but status is completed"
    return None


class _Node:
    """One schema with its keywords looked up once."""

    __slots__ = (
        "accepts",
        "closed",
        "enum",
        "free",
        "items",
        "minimum",
        "others",
        "pattern",
        "plain",
        "properties",
        "required",
        "types",
    )

    def __init__(self, schema: Mapping[str, Any]) -> None:
        names = schema.get("type", ())
        names = (names,) if isinstance(names, str) else names
        self.types = frozenset(kind for name in names for kind in _TYPES[name])
        self.enum = schema.get("enum")
        self.pattern = re.compile(schema["pattern"]) if "pattern" in schema else None
        self.minimum = schema.get("minimum")
        self.required = frozenset(schema.get("required", ()))
        self.properties = {name: _Node(part) for name, part in schema.get("properties", {}).items()}
        self.items = _Node(schema["items"]) if "items" in schema else None
        others = schema.get("additionalProperties", True)
        self.closed = others is False
        self.others = _Node(others) if isinstance(others, dict) else None
        # Scalars (and lists and objects without further rules): nothing but the type, and a minimum.
        self.plain = bool(names) and not schema.keys() - {"type", "minimum", "description"}
        self.free = self.plain and self.minimum is None
        self.accepts = self.types if self.free else frozenset()


_COMPILED = _Node(_DOCUMENT)


# What is wrong is told from the inside out, and every level puts its own name in front: nothing is
# put together as long as all is well.


def _check(value: Any, node: _Node) -> str | None:
    kind = type(value)
    if node.types and kind not in node.types:
        return f" is {_name(value)}"
    if kind is dict:
        return _check_group(value, node)
    if kind is list:
        return None if node.items is None else _check_items(value, node.items)
    if node.enum is not None and value not in node.enum:
        return f" is {value!r}; known are {', '.join(map(str, node.enum))}"
    if kind is str:
        if node.pattern is not None and not node.pattern.search(value):
            return f" is {value!r}, which does not match {node.pattern.pattern}"
    elif node.minimum is not None and value is not None and value < node.minimum:
        return f" is {value}, less than {node.minimum}"
    return None


def _check_group(value: dict[str, Any], node: _Node) -> str | None:
    if not node.required <= value.keys():
        return f".{min(node.required - value.keys())} is missing"
    find, others = node.properties.get, node.others
    # Whole groups of scalars at once (options, origins, versions): most keys of a record are in one.
    if (
        others is not None
        and others.free
        and not node.properties
        and others.types.issuperset(map(type, value.values()))
    ):
        return None
    for name, item in value.items():
        part = find(name, others)
        if part is None:
            if node.closed:
                return f".{name} is not part of schema 2"
            continue
        # Three short cuts for the usual cases; whatever they cannot accept gets the full check,
        # which finds the words.
        kind = type(item)
        if kind in part.accepts:
            continue
        if kind is int and part.plain and int in part.types and (part.minimum is None or item >= part.minimum):
            continue
        known = part.items if kind is list else None
        if known is not None and known.free and known.types.issuperset(map(type, item)):
            continue
        if wrong := _check(item, part):
            return f".{name}{wrong}"
    return None


def _check_items(values: list[Any], node: _Node) -> str | None:
    kinds = set(map(type, values))
    # Whole lists of scalars at once: the usual case, and lists can be long.
    if node.plain and kinds <= node.types and (node.minimum is None or _at_least(values, kinds, node.minimum)):
        return None
    for place, item in enumerate(values):
        if wrong := _check(item, node):
            return f"[{place}]{wrong}"
    return None


def _at_least(values: list[Any], kinds: set[type], minimum: float) -> bool:
    return type(None) not in kinds and (not values or min(values) >= minimum)


def _name(value: object) -> str:
    names = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "a string", "bool": "true or false"}
    return names.get(type(value).__name__, repr(value))
