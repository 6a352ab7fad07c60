"""Trains `nano-cnn`, the bundled network with BatchNorm, on the pre-training characters of the `glyphs` world.

    OMP_NUM_THREADS=1 python pretraining/nano_cnn.py --work build/nano_cnn

It takes some minutes on one core of a small machine, 2 GB of memory and no download. The task is that of the teacher of
`nano-vit` (`pretraining/nano_vit.py`): to find the two images of a character among those of others, on the same
characters, grouped in the same way, with the same ones held out. What is trained beside the network, a linear layer
with BatchNorm, is thrown away.

No evaluation class of `glyphs` and nothing that looks like one is used at any point, and no corruption of an image; the
weights of the last step are kept, none are selected. The log of the shipped weights is `pretraining/logs/nano_cnn.log`,
their model card lies beside them. Equal seeds give equal images everywhere, but the weights also depend on the rounding
of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "pretraining")]

from nano_vit import (  # noqa: E402
    SEED,
    Characters,
    Say,
    learning_rate,
    mixed_classes,
    optimiser_for,
    scaled,
    unseen_accuracy,
    update,
)

from benchmark.backbones.convolutional import ConvNet  # noqa: E402

WEIGHTS = ROOT / "plugins" / "bench_backbones" / "weights"
ARCHITECTURE = {"widths": [16, 32, 32, 48, 64, 96, 128], "strides": [1, 2, 1, 2, 1, 2, 1], "image_size": 32}
FEATURES = 64  # of the layer that is thrown away
HALF = 128  # pairs of a step


def train(world: Characters, images: int, say: Say) -> ConvNet:
    """Two images of each of many classes; each must find its partner (InfoNCE)."""
    torch.manual_seed(SEED)
    draw = np.random.default_rng([SEED, 5])
    net = ConvNet(ARCHITECTURE["widths"], ARCHITECTURE["strides"])  # type: ignore[arg-type]
    neck = nn.Sequential(nn.Linear(ARCHITECTURE["widths"][-1], FEATURES, bias=False), nn.BatchNorm1d(FEATURES))  # type: ignore[index]
    whole = nn.Sequential(net, neck)
    optimiser, steps, total, began = optimiser_for(whole), images // (2 * HALF), 0.0, time.monotonic()
    for step in range(steps):
        labels = world.training[np.tile(mixed_classes(draw, len(world.training), HALF), 2)]
        pictures = world.draw(labels, step * 2 * HALF, 5)
        features = F.normalize(whole(scaled(pictures)), dim=1)
        pairs = 12.0 * features[:HALF] @ features[HALF:].T
        partner = torch.arange(HALF)
        loss = (F.cross_entropy(pairs, partner) + F.cross_entropy(pairs.T, partner)) / 2
        update(whole, optimiser, loss, learning_rate(step, steps, 4e-3))
        total += loss.item()
        if (step + 1) % 50 == 0:
            done = (step + 1) * 2 * HALF
            say(f"{done:7d} images, loss {total / 50:.3f}, {done / (time.monotonic() - began):.0f} images/s")
            total = 0.0
    whole.eval()
    say(f"done, unseen characters {unseen_accuracy(net, world):.3f}")
    return net


def save(net: ConvNet, folder: Path) -> None:
    """Writes the weights and the description the loader reads."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nano-cnn.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, file)
    count = sum(value.numel() for value in net.parameters())
    description = {
        "name": "nano-cnn",
        "description": f"CNN with BatchNorm for 32x32 images, {count / 1e6:.2f} M parameters, trained on rendered "
        "Unicode characters",
        "convolutions": ARCHITECTURE,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
    }
    (folder / "nano-cnn.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train nano-cnn on rendered characters.")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (default: %(default)s)")
    parser.add_argument("--images", type=int, default=102_400, help="images it sees (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        stamped = f"[{time.monotonic() - began:7.1f} s] {line}"
        print(stamped, flush=True)
        with (given.work / "nano_cnn.log").open("a", encoding="utf-8") as log:
            log.write(stamped + "\n")

    say(f"torch {torch.__version__}, seed {SEED}, {' '.join(sys.argv[1:])}")
    world = Characters(given.work)
    say(f"{len(world.table) // 2} masks, {len(world.rows)} classes of look-alikes")
    net = train(world, given.images, say)
    save(net, given.out)
    say(f"{sum(value.numel() for value in net.parameters())} parameters written")


if __name__ == "__main__":
    main()
