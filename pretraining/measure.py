"""Measures how good the features of a bundled backbone are, without training it any further.

    python pretraining/measure.py nano-vit glyphs
    python pretraining/measure.py mini-vit cifar100 --data-root DIR

The feature of an image is the class token after the final norm. Two numbers come out, both accuracies in [0, 1]:

- *nearest class mean*: features are scaled to length one, averaged per class over all training images, and a test image
  gets the class of the most similar mean (cosine);
- *linear probe*: multinomial logistic regression on features standardised with the training mean and deviation, mean
  cross-entropy plus `PENALTY` / 2 times the squared weights, solved by L-BFGS to convergence from zero.

Neither has a random part. `glyphs` takes all 100 evaluation classes in all four domains, `--train` and `--test` images
per class and domain, of world seed 0. `cifar100` takes all 50,000 and 10,000 images from
`DIR/cifar100/{train,test}.parquet` (columns `img` and `fine_label`), or the first `--limit` of each.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scenarios"))

from bench_scenarios import glyph_world  # noqa: E402

WEIGHTS = ROOT / "benchmark" / "backbones" / "weights"
PENALTY = 1e-3


def load_backbone(name: str, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The frozen model and its description; the weights must have the SHA-256 the description promises."""
    description: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    file = folder / f"{name}.safetensors"
    if hashlib.sha256(file.read_bytes()).hexdigest() != description["sha256"]:
        raise SystemExit(f"{file}: not the file that {name}.json describes (SHA-256 differs)")
    model = VisionTransformer(**description["architecture"])
    model.load_state_dict(load_file(file))
    return model.eval(), description


@torch.inference_mode()
def features_of(model: nn.Module, description: dict[str, Any], images: Tensor) -> Tensor:
    """Class tokens `(N, D)` of uint8 images `(N, 3, H, W)`, which are resized if the backbone wants another size."""
    mean, std = (torch.tensor(description[name]).view(3, 1, 1) for name in ("mean", "std"))
    size = description["architecture"]["img_size"]
    parts = []
    for part in torch.split(images, 100):
        pictures = part.float() / 255
        if pictures.shape[-1] != size:
            pictures = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        parts.append(model((pictures - mean) / std))
    return torch.cat(parts)


def nearest_mean(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """Predicted classes `(N,)` by cosine similarity to the class means."""
    means = torch.zeros(int(labels.max()) + 1, train.shape[1]).index_add_(0, labels, F.normalize(train, dim=1))
    return (F.normalize(test, dim=1) @ F.normalize(means, dim=1).T).argmax(1)


def linear_probe(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """Predicted classes `(N,)` by logistic regression on standardised features."""
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    x = (train - mean) / std
    weight = torch.zeros(int(labels.max()) + 1, x.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=400, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + PENALTY / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        return ((test - mean) / std @ weight.T + bias).argmax(1)


def cifar100(root: Path, split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Images uint8 `(N, 3, 32, 32)` and fine labels `(N,)`."""
    import pandas as pd
    from PIL import Image

    table = pd.read_parquet(root / "cifar100" / f"{split}.parquet").head(limit or 10**9)
    raw = [entry["bytes"] if isinstance(entry, dict) else entry for entry in table["img"]]
    images = np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in raw])
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(table["fine_label"].to_numpy().copy()).long()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the features of a bundled backbone.")
    parser.add_argument("backbone", help="name of the weights, such as nano-vit")
    parser.add_argument("data", choices=("glyphs", "cifar100"))
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (cifar100 only)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the weights (default: %(default)s)")
    parser.add_argument("--train", type=int, default=25, help="glyphs: training images per class and domain")
    parser.add_argument("--test", type=int, default=10, help="glyphs: test images per class and domain")
    parser.add_argument("--limit", type=int, help="cifar100: take only so many images of each split")
    given = parser.parse_args()
    model, description = load_backbone(given.backbone, given.weights)
    domains: Tensor | None = None
    if given.data == "glyphs":
        world = range(glyph_world.CLASSES), range(len(glyph_world.DOMAINS))
        images, labels, _ = glyph_world.load(world[0], given.train, world[1], seed=0, split=0)
        test_images, test_labels, domains = glyph_world.load(world[0], given.test, world[1], seed=0, split=1)
    elif given.data_root is None:
        raise SystemExit("cifar100 needs --data-root")
    else:
        images, labels = cifar100(given.data_root, "train", given.limit)
        test_images, test_labels = cifar100(given.data_root, "test", given.limit)
    began = time.monotonic()
    train, test = (features_of(model, description, part) for part in (images, test_images))
    speed = (len(train) + len(test)) / (time.monotonic() - began)
    print(f"{given.backbone} on {given.data}: {len(train)} training and {len(test)} test images, {speed:.0f} images/s")
    for name, method in (("nearest class mean", nearest_mean), ("linear probe", linear_probe)):
        right = (method(train, labels, test) == test_labels).float()
        line = f"{name}: {right.mean():.4f}"
        if domains is not None:
            each = (f"{style} {right[domains == i].mean():.4f}" for i, style in enumerate(glyph_world.DOMAINS))
            line += f" ({', '.join(each)})"
        print(line)


if __name__ == "__main__":
    main()
