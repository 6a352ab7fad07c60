#!/usr/bin/env bash
# docs/tutorial.md as one script; a test holds it against the page.
set -euo pipefail

cat > make_images.py <<'END'
"""Twelve small pictures of each of six patterns: a stand-in for a folder of photographs."""

from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
across, down = np.meshgrid(np.arange(32), np.arange(32))
patterns = {
    "stripes": across // 4 % 2,
    "bars": down // 4 % 2,
    "checks": (across // 8 + down // 8) % 2,
    "rings": (np.hypot(across - 16, down - 16) // 4) % 2,
    "diagonal": (across + down) // 6 % 2,
    "disc": np.hypot(across - 16, down - 16) < 10,
}
for name, pattern in patterns.items():
    folder = Path("patterns", name)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        paper, ink = rng.integers(0, 90, 3), rng.integers(120, 255, 3)
        picture = np.where(pattern[..., None], ink, paper) + rng.normal(0, 12, (32, 32, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
END

python make_images.py
bench data check patterns
bench run --scenario folder:patterns --set experiences=3 --method nearest-mean,linear-probe,finetune --seed 0-2 --set engine.save_model=true
bench leaderboard
bench compare linear-probe finetune
bench plot accuracy --width single -o curves.pdf
bench leaderboard --format latex --caption short --display-names -o table.tex
bench site -o site
bench predict "$(ls runs/*/linear-probe/*.json | head -n 1)" patterns/rings/00.png
