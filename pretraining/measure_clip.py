"""Measures how well a bundled dual encoder names the 100 evaluation characters of `glyphs`, which it never saw.

    python pretraining/measure_clip.py nano-clip

Zero-shot: a picture gets the name whose text feature is the most similar. Three sets of names:

- *compositional*: the 60 Latin, Greek and Cyrillic classes, made of words that pre-training used, among each other;
- *same scripts*: the same pictures, among these names and those of all pre-training characters of the three scripts;
- *all names*: the same pictures among all names of evaluation and pre-training characters;
- *classes*: all 100 classes among each other, whatever their names.

The template is `a drawing of {}.`; the second line uses the style's own, `a chalk drawing of {}.`. Top-1 accuracy (and
top-5 where there are many names), all in [0, 1], over `--test` pictures per class and style of world seed 0. Nothing
is random.
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scenarios")]

from bench_scenarios import glyph_world  # noqa: E402
from benchmark import loading  # noqa: E402
from benchmark.backbones.backbone import Backbone  # noqa: E402
from benchmark.backbones.dual import DualEncoder, dual_of  # noqa: E402

SCRIPTS = ("LATIN ", "GREEK ", "CYRILLIC ")
PLAIN, STYLED = "a drawing of {}.", "a # drawing of {}."


@torch.inference_mode()
def image_features(dual: DualEncoder, backbone: Backbone, images: Tensor) -> Tensor:
    """Features of length one, `(N, d)`, of uint8 images `(N, 3, 32, 32)`."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    parts = [dual.image_features((part / 255 - mean) / std) for part in torch.split(images, 200)]
    return F.normalize(torch.cat(parts), dim=1)


@torch.inference_mode()
def hits(images: Tensor, names: Sequence[str], target: Tensor, template: str, dual: DualEncoder, top: int) -> Tensor:
    """Whether the right name is among the `top` most similar, per image."""
    similar = images @ dual.class_features(names, [template]).T
    return (similar.topk(top, dim=1).indices == target.unsqueeze(1)).any(dim=1).float()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure what a bundled dual encoder knows by name.")
    parser.add_argument("backbone", nargs="?", default="nano-clip")
    parser.add_argument("--weights", type=Path, help="another weight file")
    parser.add_argument("--test", type=int, default=10, help="images per class and style (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = loading.load(given.backbone, weights=given.weights)
    dual = dual_of(backbone)
    styles = range(len(glyph_world.DOMAINS))
    raw, labels, domains = glyph_world.load(range(glyph_world.CLASSES), given.test, styles, seed=0, split=1)
    images = image_features(dual, backbone, raw)
    classes = glyph_world.class_names()
    others = [unicodedata.name(chr(code)) for code in glyph_world.pretraining_code_points()]
    compositional = [label for label, name in enumerate(classes) if name.startswith(SCRIPTS)]
    composed = [classes[label] for label in compositional]
    place = torch.full((len(classes),), -1)
    place[compositional] = torch.arange(len(compositional))
    some = place[labels] >= 0
    print(f"{given.backbone}: {len(images)} images, {len(composed)} compositional names")
    for title, names, top in (
        ("compositional", composed, 1),
        ("same scripts", composed + [name for name in others if name.startswith(SCRIPTS)], 1),
        ("same scripts, top 5", composed + [name for name in others if name.startswith(SCRIPTS)], 5),
        ("all names", composed + others, 1),
        ("all names, top 5", composed + others, 5),
        ("classes", classes, 1),
    ):
        rows = torch.ones_like(some) if title == "classes" else some
        target = labels[rows] if title == "classes" else place[labels[rows]]
        for kind, template in (("plain", PLAIN), ("styled", STYLED)):
            each = []
            for style, word in enumerate(glyph_world.DOMAINS):
                here = domains[rows] == style
                text = template.replace("#", word)
                each.append(hits(images[rows][here], names, target[here], text, dual, top).mean())
            shown = ", ".join(f"{word} {value:.3f}" for word, value in zip(glyph_world.DOMAINS, each, strict=True))
            print(f"{title} ({len(names)} names), {kind}: {torch.stack(each).mean():.3f} ({shown})")


if __name__ == "__main__":
    main()
