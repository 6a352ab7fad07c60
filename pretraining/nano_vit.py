"""Trains `nano-vit`, the bundled backbone for 32x32 images, on the pre-training characters of the `glyphs` world.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 pretraining/nano_vit.py --work build/nano_vit

It takes about an hour on two cores of a small machine, 2 GB of memory per process and no download; without `torchrun` a
single process does the same with other random numbers. Four steps, each with fixed seeds:

1. all pre-training characters are rasterised (`make_glyph_masks.rasterise`); characters that look alike in some font
   become one class, and `HELD_OUT` classes are kept away from training to follow its progress on classes never seen;
2. a teacher, a plain CNN of seven convolutions, learns to find the two images of a character among those of others
   (with cross-entropy over the 4,300 classes it was still at chance after 38,000 images);
3. the teacher describes a pool of images;
4. a ViT learns to say the same: its class token is the teacher's feature (cosine, in-batch contrast, and cross-entropy
   over the teacher's class means), its patch tokens are mapped to the teacher's 4x4 map.

No evaluation class of `glyphs` and nothing that looks like one is used at any point; the weights of the last step are
kept, none are selected. The log of the shipped weights is `pretraining/logs/nano_vit.log`, their model card lies beside
them. Equal seeds give equal images everywhere, but the weights also depend on the rounding of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, distributed, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scenarios"), str(ROOT / "pretraining")]

from make_glyph_masks import rasterise  # noqa: E402

from bench_scenarios import glyph_world  # noqa: E402

WEIGHTS = ROOT / "benchmark" / "backbones" / "weights"
ARCHITECTURE = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 4.0,
    "num_classes": 0,
}
SEED = 20261122
HELD_OUT = 100
ALIKE = 0.012  # squared distance of two masks, relative to their size, below which their characters are one class
FEATURES, MAP = 128, 192  # channels of the teacher's feature (as wide as the ViT) and of its 4x4 map

Say = Callable[[str], None]


class Characters:
    """The rasterised pre-training characters, grouped into classes of look-alikes."""

    def __init__(self, work: Path) -> None:
        file = work / "masks.npz"
        if not file.exists():
            world = rasterise(glyph_world.pretraining_code_points())
            rows = [(code, font, mask) for code, masks in world.items() for font, mask in masks.items()]
            part = work / f"masks-{share_of_work()[0]}.npz"  # each process makes its own, the last rename stays
            np.savez(
                part,
                codes=[row[0] for row in rows],
                fonts=[row[1] for row in rows],
                masks=np.stack([row[2] for row in rows]),
            )
            part.replace(file)
        with np.load(file, allow_pickle=False) as data:
            codes, fonts, masks = data["codes"], data["fonts"], data["masks"]
        groups = look_alikes(codes, fonts, masks)
        self.table = glyph_world.with_contours(masks)
        self.rows = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
        self.codes = [sorted({int(code) for code in codes[rows]}) for rows in self.rows]
        order = np.random.default_rng(SEED).permutation(len(self.rows))
        self.held_out, self.training = order[:HELD_OUT], np.sort(order[HELD_OUT:])

    def draw(self, labels: npt.NDArray[np.int64], start: int, split: int) -> Tensor:
        """Images of labels (positions in `rows`), `(N, 3, 32, 32)`; each call needs its own `start` or `split`."""
        number = np.arange(start, start + len(labels))
        draw = np.random.default_rng([SEED, split, start])
        rows = np.array([draw.choice(self.rows[label]) for label in labels])
        domains = draw.integers(0, len(glyph_world.DOMAINS), len(labels))
        keys = glyph_world.keys(rows, number, domains, seed=SEED, split=split)
        return torch.from_numpy(glyph_world.render_masks(self.table, rows, domains, keys))


def look_alikes(
    codes: npt.NDArray[np.int64], fonts: npt.NDArray[np.int64], masks: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """The class of each mask: style copies of a letter and characters with nearly one mask belong together."""
    parent = {int(code): int(code) for code in codes}

    def root(code: int) -> int:
        while parent[code] != code:
            code = parent[code]
        return code

    first: dict[str, int] = {}
    for code in parent:
        styled = unicodedata.name(chr(code)).startswith("MATHEMATICAL")
        form = unicodedata.normalize("NFKC" if styled else "NFC", chr(code))
        parent[root(code)] = root(first.setdefault(form, code))
    for font in np.unique(fonts):
        at = np.flatnonzero(fonts == font)
        small = masks[at].reshape(len(at), 24, 2, 24, 2).mean((2, 4), dtype=np.float32).reshape(len(at), -1)
        power = (small**2).sum(1)
        distance = 1 - 2 * (small @ small.T) / (power[:, None] + power[None])
        for i, j in np.argwhere(np.triu(distance < ALIKE, 1)):
            parent[root(int(codes[at[i]]))] = root(int(codes[at[j]]))
    roots = np.array([root(int(code)) for code in codes])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


class Teacher(nn.Module):
    """Seven 3x3 convolutions to a 4x4 map, and one linear layer from the whole map to a feature of zero mean."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, stride in ((32, 1), (48, 2), (64, 1), (96, 2), (128, 1), (MAP, 2), (MAP, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(16 * MAP, FEATURES, bias=False), nn.BatchNorm1d(FEATURES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(B, 3, 32, 32)` to features `(B, FEATURES)` and a map `(B, 16, MAP)` in the order of patches."""
        spatial = self.body(images)
        return self.neck(spatial), spatial.flatten(2).transpose(1, 2)


def scaled(images: Tensor) -> Tensor:
    """uint8 images as the backbone wants them: in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def share_of_work() -> tuple[int, int]:
    """The rank of this process and how many there are (`torchrun` starts several)."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def average(tensors: list[Tensor]) -> None:
    """Replaces tensors by their mean over the processes; the processes thereby stay in step."""
    count = share_of_work()[1]
    if count == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, mean in zip(tensors, torch.split(flat / count, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def update(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One optimiser step on the mean gradient of all processes, clipped to norm 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    average([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def cosine_logits(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Tensor:
    """Scaled cosine similarity, `(B, C)`."""
    return scale * F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T


def learning_rate(step: int, steps: int, top: float) -> float:
    """Linear warm-up over the first 5 %, then half a cosine to zero."""
    warm = max(1, steps // 20)
    return (
        top * (step + 1) / warm
        if step < warm
        else top * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    )


def optimiser_for(model: nn.Module) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )


@torch.inference_mode()
def unseen_accuracy(feature: Callable[[Tensor], Tensor], world: Characters) -> float:
    """Nearest-class-mean accuracy in [0, 1] on the held-out characters: 20 images for each mean, 20 to test."""
    labels = np.repeat(np.arange(HELD_OUT), 20)
    halves = []
    for split in (10, 11):
        images = world.draw(world.held_out[labels], 0, split)
        halves.append(torch.cat([F.normalize(feature(scaled(part)), dim=1) for part in torch.split(images, 500)]))
    means = F.normalize(halves[0].reshape(HELD_OUT, 20, -1).mean(1), dim=1)
    return float(((halves[1] @ means.T).argmax(1).numpy() == labels).mean())


def mixed_classes(draw: np.random.Generator, classes: int, count: int) -> npt.NDArray[np.int64]:
    """Different classes for one batch: half at random, half in runs of eight neighbours.

    Classes are in the order of code points, so neighbours are the characters that are hard to tell apart.
    """
    starts = draw.choice(classes // 8, count // 16, replace=False) * 8
    runs = (starts[:, None] + np.arange(8)).reshape(-1)
    others = draw.choice(np.setdiff1d(np.arange(classes), runs), count - len(runs), replace=False)
    return np.concatenate([runs, others]).astype(np.int64)


def train_teacher(world: Characters, images: int, say: Say) -> Teacher:
    """Step 2: two images of each of many classes; each must find its partner (InfoNCE). 256 images a step."""
    torch.manual_seed(SEED)
    rank, ranks = share_of_work()
    draw = np.random.default_rng([SEED, 2, rank])
    teacher, half, began, total = Teacher(), 128 // ranks, time.monotonic(), 0.0
    optimiser, steps = optimiser_for(teacher), images // 256
    for step in range(steps):
        labels = world.training[np.tile(mixed_classes(draw, len(world.training), half), 2)]
        pictures = world.draw(labels, step * 256 + rank * 2 * half, 0)
        features = F.normalize(teacher(scaled(pictures))[0], dim=1)
        pairs = 12.0 * features[:half] @ features[half:].T
        partner = torch.arange(half)
        loss = (F.cross_entropy(pairs, partner) + F.cross_entropy(pairs.T, partner)) / 2
        update(teacher, optimiser, loss, learning_rate(step, steps, 2e-3))
        total += loss.item()
        if (step + 1) % 25 == 0:
            speed = (step + 1) * 256 / (time.monotonic() - began)
            say(f"teacher {(step + 1) * 256:7d} images, loss {total / 25:.3f}, {speed:.0f} images/s")
            total = 0.0
    average([buffer for buffer in teacher.buffers() if buffer.is_floating_point()])
    teacher.eval()
    say(f"teacher done, unseen characters {unseen_accuracy(lambda x: teacher(x)[0], world):.3f}")
    return teacher


@torch.inference_mode()
def describe(teacher: Teacher, world: Characters, count: int, say: Say) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Step 3: this process's images, the teacher's features and maps (both float16), and labels (balanced)."""
    rank, ranks = share_of_work()
    labels = np.random.default_rng([SEED, 3]).permutation(np.arange(count) % len(world.training))[rank::ranks]
    count = len(labels)
    images = torch.empty(count, 3, 32, 32, dtype=torch.uint8)
    features = torch.empty(count, FEATURES, dtype=torch.float16)
    maps = torch.empty(count, 16, MAP, dtype=torch.float16)
    for start in range(0, count, 500):
        part = slice(start, start + 500)
        images[part] = world.draw(world.training[labels[part]], rank * 10_000_000 + start, 1)
        feature, spatial = teacher(scaled(images[part]))
        features[part], maps[part] = feature.half(), spatial.half()
    say(f"pool of {count} images described by each of {ranks} processes")
    return images, features, maps, torch.from_numpy(labels)


def train_student(
    world: Characters, pool: tuple[Tensor, Tensor, Tensor, Tensor], images: int, say: Say
) -> VisionTransformer:
    """Step 4: distillation, 256 images a step."""
    torch.manual_seed(SEED)
    student = VisionTransformer(**ARCHITECTURE)
    adapter = nn.Linear(FEATURES, MAP)
    whole = nn.ModuleList([student, adapter])
    ranks = share_of_work()[1]
    optimiser, steps, batch = optimiser_for(whole), images // 256, 256 // ranks
    # The mean of the teacher's features of a class stands for the class.
    prototypes = torch.zeros(len(world.training), FEATURES).index_add_(0, pool[3], F.normalize(pool[1].float(), dim=1))
    average([prototypes])
    order, totals, began = torch.empty(0, dtype=torch.long), torch.zeros(4), time.monotonic()
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(pool[0]))
        chosen, order = order[:batch], order[batch:]
        pictures, feature, spatial, labels = (part[chosen] for part in pool)
        tokens = student.forward_features(scaled(pictures))  # (B, 17, 128)
        own, target = F.normalize(tokens[:, 0], dim=1), F.normalize(feature.float(), dim=1)
        losses = (
            1 - (own * target).sum(1).mean(),
            F.cross_entropy(own @ target.T / 0.07, torch.arange(batch)),
            1 - F.cosine_similarity(adapter(tokens[:, 1:]), spatial.float(), dim=2).mean(),
            F.cross_entropy(cosine_logits(own, prototypes), labels),
        )
        loss = 2 * losses[0] + losses[1] + 2 * losses[2] + 0.5 * losses[3]
        update(whole, optimiser, loss, learning_rate(step, steps, 2e-3))
        totals += torch.stack(losses).detach()
        if (step + 1) % 50 == 0:
            speed = (step + 1) * 256 / (time.monotonic() - began)
            names = ("cosine", "contrast", "map", "names")
            parts = " ".join(f"{name} {value:.3f}" for name, value in zip(names, totals / 50, strict=True))
            totals.zero_()
            say(f"student {(step + 1) * 256:8d} images, {parts}, {speed:.0f} images/s")
    student.eval()
    say(f"student done, unseen characters {unseen_accuracy(lambda x: student.forward_features(x)[:, 0], world):.3f}")
    return student


def save(student: VisionTransformer, folder: Path) -> None:
    """Writes the weights and the description the loader reads."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nano-vit.safetensors"
    save_file({name: value.contiguous() for name, value in student.state_dict().items()}, file)
    description = {
        "name": "nano-vit",
        "description": "ViT for 32x32 images, 1.2 M parameters, distilled from a CNN on rendered Unicode characters",
        "architecture": ARCHITECTURE,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
    }
    (folder / "nano-vit.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train nano-vit on rendered characters.")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (default: %(default)s)")
    parser.add_argument(
        "--teacher-images", type=int, default=76_800, help="images the teacher sees (default: %(default)s)"
    )
    parser.add_argument("--pool", type=int, default=140_000, help="images the teacher describes (default: %(default)s)")
    parser.add_argument("--images", type=int, default=512_000, help="images the ViT sees (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    rank, ranks = share_of_work()
    given.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        if rank:
            return
        stamped = f"[{time.monotonic() - began:7.1f} s] {line}"
        print(stamped, flush=True)
        with (given.work / "nano_vit.log").open("a", encoding="utf-8") as log:
            log.write(stamped + "\n")

    say(f"torch {torch.__version__}, seed {SEED}, {ranks} processes, {' '.join(sys.argv[1:])}")
    world = Characters(given.work)
    say(f"{len(world.table) // 2} masks, {len(world.rows)} classes of look-alikes, {HELD_OUT} held out")
    saved = given.work / f"teacher-{given.teacher_images}.pt"
    if saved.exists():
        teacher = Teacher()
        teacher.load_state_dict(torch.load(saved, weights_only=True))
        teacher.eval()
        say(f"teacher taken from {saved.name}")
    else:
        teacher = train_teacher(world, given.teacher_images, say)
        if not rank:
            torch.save(teacher.state_dict(), saved)
    student = train_student(world, describe(teacher, world, given.pool, say), given.images, say)
    if rank:
        return
    save(student, given.out)
    say(f"{sum(value.numel() for value in student.parameters())} parameters written")


if __name__ == "__main__":
    main()
