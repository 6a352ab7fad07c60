"""``bench doctor``: what is installed, found, missing or broken, and what to do next.

It answers within two seconds: it imports what costs nothing (no torch), looks for the rest, and asks the machine, not
torch, for its GPUs. ``--deep`` imports every plugin, loads every model and asks torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmark.cli import terminal
from benchmark.errors import EXIT_OK, EXIT_PLUGIN, BenchError, DataMissing, PluginError
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.specs import ScenarioSpec

PACKAGES = (
    "adaptbench",
    "torch",
    "torchvision",
    "timm",
    "avalanche-lib",
    "open_clip_torch",
    "transformers",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "pluggy",
)
LOW_SPACE = 2_000_000_000  # bytes: the largest set that is fetched by itself, decoded, and some runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "--data-root", type=user_path, metavar="DIR", help="data sets (default BENCH_DATA or the user's)"
    )
    parser.add_argument(
        "--out", type=user_path, default=Path("runs"), metavar="DIR", help="results folder (default runs)"
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="import every plugin, load every model, ask torch for devices (half a minute)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; the exit code is 3 if a plugin is broken."""
    findings = examine(args.data_root, args.out, deep=args.deep)
    if args.json:
        terminal.show(json.dumps(findings, indent=2))
    else:
        _show(findings)
    return EXIT_PLUGIN if findings["broken"] else EXIT_OK


def examine(data_root: Path | None, out: Path, *, deep: bool = False) -> dict[str, Any]:
    """Everything that ``bench doctor`` says, as data. Nothing is downloaded and nothing is written.

    Args:
        data_root: Where data sets are; None: the default places.
        out: Results folder.
        deep: Whether everything is imported and loaded; else it is looked for.
    """
    from benchmark import registry

    with registry.remembered():
        plugins, broken = _plugins(deep=deep)
        findings: dict[str, Any] = {
            "versions": _versions(),
            "plugins": plugins,
            "broken": broken,
            "data": _data(data_root),
            "weights": _weights(deep=deep),
            "disk": _disk(data_root, out),
            "device": _device() if deep else _machine(),
            "deep": deep,
        }
    findings["next"] = _next(findings)
    return findings


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


IMPORTED = ("scenarios", "exporters", "tracks", "presets", "families", "protocols")
"""Kinds whose modules import nothing heavy. Those of the others are looked for, unless everything is asked for."""


def _plugins(*, deep: bool) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Imports plugins, or looks for their modules; names the distribution of those that cannot be used."""
    from benchmark import registry

    counts: dict[str, Any] = {}
    broken: list[dict[str, str]] = []
    for kind in registry.KINDS:
        entries = registry.entries(kind)
        counts[kind] = {
            "found": len(entries),
            "distributions": sorted({c.distribution for e in entries.values() for c in e}),
        }
        for name, claims in entries.items():
            try:
                if deep or kind in IMPORTED:
                    registry.look(kind, name)
                else:
                    registry.find(kind, name)
            except BenchError as error:
                who = " and ".join(claim.distribution for claim in claims)
                broken.append(
                    {"plugin": f"{registry.singular(kind)} {name}", "distribution": who, "problem": error.message}
                )
    counts["life-cycle"] = {"found": 0, "distributions": []}
    for name, claims in registry.listeners().items():
        for entry in claims:
            try:
                if deep:
                    registry.load_listener(entry)
                else:
                    registry.find_module(f"life-cycle plugin `{name}`", entry)
                counts["life-cycle"]["found"] += 1
            except PluginError as error:
                about = {"plugin": f"life-cycle plugin {name}", "distribution": entry.distribution}
                broken.append({**about, "problem": error.message})
    return counts, broken


def _data(given: Path | None) -> dict[str, Any]:
    """Data root, and for every scenario whether its data sets are there; they are not read (``bench data verify``)."""
    from benchmark import data, registry

    try:
        root, problem = str(data.data_root(given)), None
    except DataMissing as error:
        root = problem = f"missing: {error.message}"
    scenarios: dict[str, str] = {}
    for name in registry.names("scenarios"):
        try:
            spec = cast("ScenarioSpec", registry.look("scenarios", name))
        except BenchError as error:
            scenarios[name] = f"broken: {error.message}"
            continue
        if spec.name != name:
            scenarios[name] = f"alias of {spec.name}"
        elif spec.tag:
            scenarios[name] = f"found: reads {name}:{spec.tag}"
        elif not spec.data:
            scenarios[name] = "found: made by the suite"
        elif problem is not None:
            scenarios[name] = problem
        elif gone := data.absent(spec.data, given):
            more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
            titles = ", ".join(dataset.title for dataset in gone[:3])
            scenarios[name] = f"missing: {titles}{more} not found below {root}"
        else:
            scenarios[name] = f"found: {', '.join(dataset.title for dataset in spec.data)}"
    return {"root": root, "scenarios": scenarios}


def _weights(*, deep: bool) -> dict[str, str]:
    """Weights that come with plugins, those of packages, and the Hugging Face cache.

    Args:
        deep: Whether they are loaded and held against their SHA-256; else only what plugins say of them is read.
    """
    from benchmark import loading

    found: dict[str, str] = {}
    for name in loading.single():
        try:
            about = loading.describe(name)
            if "installed" in about:  # large, and of somebody else's package: not loaded here
                found[name] = "installed" if about["installed"] else f"not installed: {about['command']}"
                continue
            if deep:
                loading.load(name, offline=True)
            found[name] = "found, SHA-256 as stated" if deep else "found, not loaded"
        except BenchError as error:
            found[name] = f"damaged: {error.message}"
    if not found:
        found["bundled"] = "missing: no plugin brings a backbone"
    hub = Path(
        os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", Path.home() / ".cache/huggingface")) / "hub"
    )
    models = sorted(path.name.removeprefix("models--").replace("--", "/") for path in hub.glob("models--*"))
    found["hub cache"] = f"{hub}: {', '.join(models)}" if models else f"{hub}: no models"
    return found


def _disk(data_root: Path | None, out: Path) -> dict[str, Any]:
    from benchmark import data

    places = {"results": out.absolute(), "cache": data.cache_root()}
    found = {}
    for name, path in places.items():
        there = next(parent for parent in [path, *path.parents] if parent.exists())
        found[name] = {
            "path": str(path),
            "free_bytes": shutil.disk_usage(there).free,
            "writable": os.access(there, os.W_OK),
        }
    return found


def _device() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    found["cuda"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found["mps"] = torch.backends.mps.is_available()
    found["default"] = "cuda" if found["cuda"] else "cpu"
    return found


def _machine() -> dict[str, Any]:
    """The same without torch, which takes seconds to import: what the driver of the system shows."""
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    found: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    lines = [line for card in cards for line in card.read_text(encoding="utf-8", errors="replace").splitlines()]
    found["cuda"] = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    found["default"] = "cuda" if found["cuda"] else "cpu"
    return found


def _next(findings: dict[str, Any]) -> list[str]:
    """One line per thing that is worth doing, the most urgent first."""
    lines = []
    for item in findings["broken"]:
        name = item["distribution"].split(" ")[0]
        lines.append(f"{item['plugin']}: fix or uninstall `{name}`; the other plugins work")
    for name, what in findings["weights"].items():
        if what.startswith(("damaged", "missing")):
            lines.append(f"weights of {name} are unusable: reinstall adaptbench")
    for name, place in findings["disk"].items():
        if not place["writable"]:
            lines.append(f"{place['path']} cannot be written: choose another folder for the {name}")
        elif place["free_bytes"] < LOW_SPACE:
            lines.append(f"{place['path']}: little space left for the {name}")
    missing = [name for name, what in findings["data"]["scenarios"].items() if what.startswith("missing")]
    if missing:
        lines.append(
            f"data for {', '.join(missing)}: set BENCH_DATA to your data folder, or let `bench run --scenario "
            f"{missing[0]}` fetch them (sets above 200 MB: with --download)"
        )
    if findings["device"]["default"] == "cpu":
        lines.append("no GPU: tracks nano and mini are made for this; `--track paper` would take days")
    if not findings["broken"]:
        lines.append("try: bench run --scenario split-glyphs --method l2p")
    if not findings["deep"]:
        lines.append("bench doctor --deep imports every plugin, loads every model and asks torch for devices")
    return lines


def _show(findings: dict[str, Any]) -> None:
    def section(title: str, rows: dict[str, Any]) -> None:
        terminal.show(f"{title}:")
        width = max(map(len, rows), default=0)
        for key, value in rows.items():
            terminal.show(f"  {key:<{width}}  {value}")

    section("versions", findings["versions"])
    plugins = {
        kind: f"{about['found']} {', '.join(about['distributions'])}" for kind, about in findings["plugins"].items()
    }
    section("plugins", plugins)
    for item in findings["broken"]:
        terminal.show(f"  broken: {item['plugin']} of {item['distribution']}: {item['problem']}")
    section(f"data in {findings['data']['root']}", findings["data"]["scenarios"])
    section("weights", findings["weights"])
    section(
        "disk",
        {
            name: f"{place['path']}: {place['free_bytes'] / 2**30:.1f} GiB free"
            + ("" if place["writable"] else ", read-only")
            for name, place in findings["disk"].items()
        },
    )
    section("device", findings["device"])
    terminal.show("what to do next:")
    for line in findings["next"]:
        terminal.show(f"  {line}")
