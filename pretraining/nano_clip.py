"""Trains `nano-clip`, the bundled dual encoder: the images of `nano-vit`, and a text tower over names of characters.

    OMP_NUM_THREADS=1 nice -n 5 python pretraining/nano_clip.py --work build/nano_clip

One thread, about 20 minutes of it, no download. Four steps, each with fixed seeds; what the first and the third made is
kept in the work folder and not made again:

1. the frozen `nano-vit` describes `--images` pictures of each pre-training character in each style (classes of
   look-alikes, as `nano_vit.py` makes them; the `HELD_OUT` classes that it never saw are kept away from the text too);
2. the projection of the image tower is fixed: principal components of these features, scaled by `WHITENING`, so that
   strokes and marks count as much as overall shape;
3. a text transformer over whole words learns to say what the pictures are. A caption ("a chalk drawing of latin small
   letter a with breve.") must find the mean of its class in its style among those of all classes (cross-entropy),
   among the styles of its class, and be found by single pictures among the captions of the batch. Names come without a
   style too; words are dropped at random, so that a name is the sum of its words rather than a whole; and meaningless
   words stand in front of some captions, so that a name is understood wherever prompt learning moves it;
4. the scale of the logits is the one that fits the held-out classes best: that of training is twice too sure of
   characters it has not seen, and prompt learning would spend itself on that.

No evaluation class of `glyphs` and nothing that looks like one is used at any point; the weights of the last step are
kept, none are selected. The log of the shipped weights is `pretraining/logs/nano_clip.log`, their model card lies
beside them, and `pretraining/measure_clip.py` makes its figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "plugins"), str(ROOT / "scenarios"), str(ROOT / "pretraining")]

from nano_vit import Characters, learning_rate, optimiser_for, scaled  # noqa: E402

from bench_backbones.bundled import WEIGHTS  # noqa: E402
from bench_scenarios import glyph_world  # noqa: E402
from benchmark import loading  # noqa: E402
from benchmark.backbones.dual import DualEncoder, ViTTower  # noqa: E402
from benchmark.backbones.prompted_vit import cls_feature  # noqa: E402
from benchmark.backbones.text import TextTower, WordTokenizer  # noqa: E402

SEED = 20261124
TEXT = {"context": 77, "width": 128, "depth": 2, "heads": 4, "features": 64}
WHITENING = 0.5  # components are divided by their deviation to this power
SCALE = 20.0  # exp(logit_scale) in the beginning
# Captions without and with a style; "photo" alone is the photo of everyday templates, no style.
PLAIN = ("{}", "{}.", "a drawing of {}.", "a picture of a {}.", "a photo of a {}.", "a photo of {}.")
STYLED = ("a # drawing of {}.", "a # picture of a {}.", "{}, a # image.", "{}, a # image..", "a # {}.", "# {}")
FILLER = "x"
MOST_FILLERS = 36  # as many as the prompts of DAPL have vectors, and some
UNKNOWN = 0.2  # largest share of the words of a name that a batch forgets

Say = Callable[[str], None]
Longs = npt.NDArray[np.int64]


class Names:
    """The names of the characters of each class, as token ids, and captions made of them.

    Args:
        members: Lower-case names of each class of look-alikes; a caption takes one of them at random.
    """

    def __init__(self, members: Sequence[Sequence[str]]) -> None:
        split = WordTokenizer.split
        used = {word for names in members for name in names for word in split(name)}
        frames = " ".join((*PLAIN, *STYLED)).replace("#", " ".join(glyph_world.DOMAINS)).replace("{}", " ")
        self.tokenizer = WordTokenizer(sorted(used | set(split(frames)) | {FILLER, ".."}))
        encode = self.tokenizer.encode
        self.names = [[encode(name) for name in names] for names in members]
        self.filler = encode(FILLER)

    def captions(self, labels: Longs, styles: Longs, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token ids `(B, n)` and ends `(B,)` of one caption per class; style -1 stands for none."""
        share = UNKNOWN * draw.random()
        fillers = int(draw.integers(1, MOST_FILLERS + 1)) if draw.random() < 0.3 else 0
        rows = []
        for label, style in zip(labels, styles, strict=True):
            name = self.names[label][draw.integers(len(self.names[label]))]
            name = [1 if draw.random() < share else word for word in name]
            behind = int(draw.integers(0, fillers + 1)) if draw.random() < 0.3 else 0
            name = [*self.filler * (fillers - behind), *name, *self.filler * behind]
            frame = PLAIN[draw.integers(len(PLAIN))] if style < 0 else STYLED[draw.integers(len(STYLED))]
            before, after = frame.replace("#", glyph_world.DOMAINS[style]).split("{}")
            encode = self.tokenizer.encode
            rows.append([self.tokenizer.start, *encode(before), *name, *encode(after), self.tokenizer.end])
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        return ids, torch.tensor([len(row) - 1 for row in rows])


@torch.inference_mode()
def describe(world: Characters, vit: nn.Module, images: int, work: Path, say: Say) -> Tensor:
    """Step 1: class tokens of length one, float16 `(classes, styles, images, D)`; kept in the work folder."""
    file = work / f"features-{images}.safetensors"
    if file.exists():
        return load_file(file)["features"]
    styles, parts, began = len(glyph_world.DOMAINS), [], time.monotonic()
    for first in range(0, len(world.rows), 25):
        labels = np.arange(first, min(first + 25, len(world.rows)))
        shape = (len(labels), styles, images)
        number = np.arange(first * styles * images, first * styles * images + math.prod(shape))
        draw = np.random.default_rng([SEED, first])
        rows = np.array([draw.choice(world.rows[label]) for label in labels.repeat(styles * images)])
        style = np.broadcast_to(np.arange(styles)[:, None], shape).reshape(-1)
        keys = glyph_world.keys(rows, number, style, seed=SEED, split=0)
        pictures = torch.from_numpy(glyph_world.render_masks(world.table, rows, style, keys))
        tokens = torch.cat([cls_feature(vit, scaled(part)) for part in torch.split(pictures, 200)])
        parts.append(F.normalize(tokens, dim=1).half().view(*shape, -1))
        if first % 1000 == 0:
            say(f"described {first} classes of {len(world.rows)}, {time.process_time():.0f} s of one core so far")
    features = torch.cat(parts)
    save_file({"features": features}, file)
    say(f"{features.shape[:3].numel()} pictures described in {time.monotonic() - began:.0f} s")
    return features


def projection(features: Tensor, width: int) -> Tensor:
    """Step 2: principal components of class means, scaled, `(width, D)`."""
    means = features.mean(dim=2).reshape(-1, features.shape[-1])
    _, deviation, components = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    scale = (deviation[:width] / math.sqrt(len(means))) ** -WHITENING
    return components[:width] * (scale / scale.mean()).unsqueeze(1)


def mixed_batch(draw: np.random.Generator, classes: int, count: int) -> Longs:
    """Different classes: half at random, half in runs of eight neighbours, which are the hard ones."""
    starts = draw.choice(classes // 8, count // 16, replace=False) * 8
    runs = (starts[:, None] + np.arange(8)).reshape(-1)
    others = draw.choice(np.setdiff1d(np.arange(classes), runs), count - len(runs), replace=False)
    return np.concatenate([runs, others]).astype(np.int64)


def train_text(dual: DualEncoder, names: Names, seen: Tensor, steps: int, batch: int, say: Say, report: Say) -> None:
    """Step 3. `seen` are projected features of length one, `(classes, styles, images, d)`, of the trained classes."""
    tower = dual.text
    assert isinstance(tower, TextTower)
    nn.init.normal_(tower.token_embedding.weight, std=0.05)
    styled = F.normalize(seen.mean(dim=2), dim=-1)  # (C, styles, d)
    plain = F.normalize(styled.mean(dim=1), dim=-1)
    draw, trained = np.random.default_rng([SEED, 3]), nn.ModuleList([tower])
    trained.register_parameter("scale", dual.logit_scale)
    optimiser, totals, began = optimiser_for(trained), torch.zeros(3), time.monotonic()
    for step in range(steps):
        labels = mixed_batch(draw, len(seen), batch)
        styles = draw.integers(-1, len(glyph_world.DOMAINS), batch)
        ids, ends = names.captions(labels, styles, draw)
        said = F.normalize(tower.encode(tower.token_embedding(ids), ends), dim=1)
        scale = dual.logit_scale.exp().clamp(max=100)
        target, style = torch.from_numpy(labels), torch.from_numpy(styles)
        classes = torch.stack(
            [
                F.cross_entropy(scale * said[here] @ (plain if which < 0 else styled[:, which]).T, target[here])
                * (here.sum() / batch)
                for which in range(-1, len(glyph_world.DOMAINS))
                if (here := style == which).any()
            ]
        ).sum()
        some = style >= 0
        kind = F.cross_entropy(scale * torch.einsum("bd,bsd->bs", said[some], styled[target[some]]), style[some])
        shown = torch.where(some, style, torch.from_numpy(draw.integers(0, len(glyph_world.DOMAINS), batch)))
        pictures = seen[target, shown, torch.from_numpy(draw.integers(0, seen.shape[2], batch))]
        found = F.cross_entropy(scale * pictures @ said.T, torch.arange(batch))
        loss = classes + 0.5 * kind + found
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, 2e-3)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        totals += torch.stack([classes, kind, found]).detach()
        if (step + 1) % 100 == 0:
            parts = " ".join(
                f"{name} {value:.3f}"
                for name, value in zip(("classes", "styles", "pictures"), totals / 100, strict=True)
            )
            totals.zero_()
            spent = time.process_time()
            say(f"text step {step + 1:5d}, {parts}, {time.monotonic() - began:.0f} s, {spent:.0f} s of one core so far")
        if (step + 1) % 500 == 0 or step + 1 == steps:
            report(f"step {step + 1}")
    with torch.no_grad():
        dual.logit_scale.clamp_(max=math.log(100.0))


@torch.inference_mode()
def best_scale(images: Tensor, texts: Tensor, labels: Tensor) -> float:
    """Step 4: the logarithm of the scale with the smallest cross-entropy.

    Args:
        images: Features of length one, ``(N, d)``.
        texts: The same of the names, ``(C, d)``.
        labels: ``(N,)``.
    """
    similar = images @ texts.T
    found = minimize_scalar(
        lambda scale: F.cross_entropy(math.exp(scale) * similar, labels).item(),
        bounds=(0.0, math.log(100.0)),
        method="bounded",
    )
    return float(found.x)


def save(dual: DualEncoder, names: Names, nano_vit: dict[str, object], folder: Path) -> None:
    """Writes the weights, with the vocabulary beside them, and the description the loader reads."""
    file = folder / "nano-clip.safetensors"
    state = {name: value.detach().contiguous() for name, value in dual.state_dict().items()}
    save_file(state, file, metadata={"words": " ".join(names.tokenizer.words)})
    text = sum(value.numel() for name, value in state.items() if not name.startswith("image.vit."))
    description = {
        "name": "nano-clip",
        "description": f"images of nano-vit and names of characters in one space, {text / 1e6:.1f} M more parameters",
        "images": nano_vit["name"],
        "architecture": nano_vit["architecture"],
        "text": TEXT,
        "mean": nano_vit["mean"],
        "std": nano_vit["std"],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
    }
    (folder / "nano-clip.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train nano-clip on rendered characters and their names.")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (default: %(default)s)")
    parser.add_argument("--images", type=int, default=6, help="pictures per class and style (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2500, help="steps of the text tower (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="captions per step (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    for folder in (given.work, given.out):
        folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(line: str) -> None:
        stamped = f"[{time.monotonic() - began:7.1f} s] {line}"
        print(stamped, flush=True)
        with (given.work / "nano_clip.log").open("a", encoding="utf-8") as log:
            log.write(stamped + "\n")

    say(f"torch {torch.__version__}, seed {SEED}, {' '.join(sys.argv[1:])}")
    world = Characters(given.work)
    say(f"{len(world.table) // 2} masks, {len(world.rows)} classes of look-alikes, {len(world.held_out)} held out")
    vit = loading.load("nano-vit").model
    features = describe(world, vit, given.images, given.work, say).float()
    members = [[unicodedata.name(chr(code)).lower() for code in codes] for codes in world.codes]
    names = Names([members[label] for label in world.training])
    dual = DualEncoder(
        image=ViTTower(vit, TEXT["features"]),
        text=TextTower(vocabulary=len(names.tokenizer), **TEXT),
        tokenizer=names.tokenizer,
    )
    dual.image.requires_grad_(False)
    matrix = projection(features[world.training], TEXT["features"])
    with torch.no_grad():
        dual.image.projection.weight.copy_(matrix)
        dual.logit_scale.fill_(math.log(SCALE))
    projected = F.normalize(features @ matrix.T, dim=-1)
    say(f"{len(names.tokenizer.words)} words, {sum(p.numel() for p in dual.text.parameters())} parameters of text")

    def report(when: str) -> None:
        """Zero-shot among the names of the held-out classes, and those with "with" in their names."""
        for kind, labels in (
            ("held-out", world.held_out.tolist()),
            ("held-out with a mark", [label for label in world.held_out if " with " in members[label][0]]),
        ):
            with torch.inference_mode():
                text = dual.class_features([members[label][0] for label in labels], ["a drawing of {}."])
                similar = projected[labels] @ text.T  # (classes, styles, images, names)
            right = similar.argmax(dim=3) == torch.arange(len(labels)).view(-1, 1, 1)
            say(f"{when}: {kind} classes by name, 1 of {len(labels)}: {right.float().mean():.3f}")

    file = given.work / "text.safetensors"
    if file.exists():
        dual.load_state_dict(load_file(file))
    else:
        train_text(dual, names, projected[world.training], given.steps, given.batch, say, report)
        save_file({name: value.detach().contiguous() for name, value in dual.state_dict().items()}, file)
    held_out = projected[world.held_out]  # (C, styles, images, d)
    texts = dual.class_features([members[label][0] for label in world.held_out], ["a drawing of {}."])
    labels = torch.arange(len(held_out)).repeat_interleave(held_out[0, ..., 0].numel())
    before = dual.logit_scale.exp().item()
    with torch.no_grad():
        dual.logit_scale.fill_(best_scale(held_out.flatten(0, 2), texts, labels))
    say(f"scale of the logits: {before:.1f} in training, {dual.logit_scale.exp():.1f} for held-out classes")
    description = json.loads((WEIGHTS / "nano-vit.json").read_text(encoding="utf-8"))
    save(dual, names, description, given.out)
    total = sum(value.numel() for value in dual.parameters())
    say(f"{total} parameters written, {time.process_time():.0f} s of one core")


if __name__ == "__main__":
    main()
