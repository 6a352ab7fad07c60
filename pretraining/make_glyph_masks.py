"""Makes the shipped masks and character lists of the `glyphs` world.

    python pretraining/make_glyph_masks.py            # writes scenarios/bench_scenarios/glyph_data/

It reads the sixteen text fonts that come with matplotlib (DejaVu Sans, Sans Mono and Serif, STIX General, four styles
each), takes the characters that exist in three or more of them, chooses the 100 evaluation classes and writes

- `masks.npz`: the evaluation masks, so that no image of an evaluation class depends on the FreeType of the machine;
- `digits.npz`: likewise the ten digits, which are no evaluation classes (nine are pre-training characters);
- `pretraining.txt`: the code points a bundled backbone may be trained on.

The choice is a fixed rule without any random state: characters are visited in the order of the SHA-256 of their code
point, and one is taken when its group (see `QUOTAS`) has room, it is large and dark enough to be read at 24 pixels,
and it looks like no character taken before. A compositional name (Latin with a diacritic, Greek, Cyrillic) must
consist of words that pre-training keeps using.

The pre-training set is every other readable character except those which look like an evaluation class: the same
compatibility form (`unicodedata.normalize("NFKC")`), or a mask that overlaps by `SEEN` or more in any font. Made with
matplotlib 3.11.2 and Pillow 13.0.0.
"""

from __future__ import annotations

import argparse
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

FONTS = (
    *(
        f"DejaVu{family}{style}"
        for family in ("Sans", "SansMono")
        for style in ("", "-Bold", "-Oblique", "-BoldOblique")
    ),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
SIZE = 48  # pixels of a mask; the longer side of the glyph takes SIZE - 4 of them
MIN_FONTS = 3
MASKS_PER_CLASS = 6
QUOTAS = {"LATIN": 26, "GREEK": 15, "CYRILLIC": 19, "script": 16, "operator": 8, "symbol": 16}
PER_SCRIPT = 3
TWIN = 0.80  # overlap at which two evaluation classes would be too alike
SEEN = 0.85  # overlap at which a pre-training character would give an evaluation class away
COMPOSITIONAL = ("LATIN", "GREEK", "CYRILLIC")
SCRIPTS = ("ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "CANADIAN", "LISU", "COPTIC", "OLD", "LAO")
DATA = Path(__file__).resolve().parents[1] / "scenarios" / "bench_scenarios" / "glyph_data"

Masks = npt.NDArray[np.uint8]


def name_of(code: int) -> str:
    """The Unicode name of a code point, or an empty string."""
    return unicodedata.name(chr(code), "")


def rasterise(codes: Iterable[int] | None = None) -> dict[int, dict[int, Masks]]:
    """Draws characters in every font that has them.

    Args:
        codes: the code points to draw; all characters of at least `MIN_FONTS` fonts if not given.

    Returns:
        For each code point the masks by index into `FONTS`, each `(SIZE, SIZE)`, 0 (paper) to 255 (ink), tight and
        centred.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    wanted = None if codes is None else set(codes)
    charmaps = [set(FT2Font(str(folder / f"{font}.ttf")).get_charmap()) for font in FONTS]
    counts = Counter(code for charmap in charmaps for code in charmap)
    out: dict[int, dict[int, Masks]] = {}
    for font_id, (font, charmap) in enumerate(zip(FONTS, charmaps, strict=True)):
        face = ImageFont.truetype(str(folder / f"{font}.ttf"), 176, layout_engine=ImageFont.Layout.BASIC)
        for code in sorted(charmap):
            if counts[code] < MIN_FONTS or (wanted is not None and code not in wanted):
                continue
            # Letters, numbers, punctuation and symbols; combining marks and blanks have no shape of their own.
            if unicodedata.category(chr(code))[0] not in "LNPS" or not name_of(code):
                continue
            glyph = face.getmask(chr(code), mode="L")
            if not glyph.size[0] or not glyph.size[1]:
                continue
            picture = Image.frombytes("L", glyph.size, bytes(glyph))
            box = picture.getbbox()
            if box is None:
                continue
            picture = picture.crop(box)
            factor = (SIZE - 4) / max(picture.size)
            width, height = (max(1, round(side * factor)) for side in picture.size)
            small = picture.resize((width, height), Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            top, left = (SIZE - height) // 2, (SIZE - width) // 2
            mask[top : top + height, left : left + width] = np.asarray(small)
            out.setdefault(code, {})[font_id] = mask
    return {code: masks for code, masks in sorted(out.items()) if len(masks) >= MIN_FONTS}


def overlap(a: dict[int, Masks], b: dict[int, Masks]) -> float:
    """The largest intersection over union of two characters' masks over their common fonts; 0 without any."""
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return 0.0
    x = np.stack([a[font] for font in shared]).astype(np.int64)
    y = np.stack([b[font] for font in shared]).astype(np.int64)
    return float((np.minimum(x, y).sum((1, 2)) / np.maximum(x, y).sum((1, 2))).max())


def readable(masks: dict[int, Masks]) -> bool:
    """Whether a character can be told apart at 24 pixels: it is neither a speck nor a bar nor a full block."""
    regular = masks[min(masks)]
    rows, columns = np.nonzero(regular.max(1))[0], np.nonzero(regular.max(0))[0]
    short_side = min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return bool(short_side >= 18 and 0.05 <= regular.mean() / 255 <= 0.55)


def group_of(code: int) -> str | None:
    """The quota a character counts towards, or None if it can be no evaluation class."""
    name = name_of(code)
    first = name.split()[0]
    if unicodedata.normalize("NFKC", chr(code)) != chr(code):
        return None  # a style copy of another character
    if first in COMPOSITIONAL:
        plain_latin = first == "LATIN" and " WITH " not in name
        return None if plain_latin or " LETTER " not in name or "LIGATURE" in name else first
    if first in SCRIPTS:
        return "script" if unicodedata.category(chr(code)) == "Lo" or " LETTER " in name else None
    if first in (
        "BRAILLE",
        "BOX",
        "DOMINO",
        "TETRAGRAM",
        "HEXAGRAM",
        "DIGRAM",
        "TRIGRAM",
        "PLAYING",
        "MODIFIER",
        "APL",
        "QUADRANT",
    ):
        return None  # patterns that differ in a single dot
    if code >= 0x2A00 and unicodedata.category(chr(code)) == "Sm":
        return None  # supplemental operators: stacks of the plain ones, too fine for 24 pixels
    return {"So": "symbol", "Sc": "symbol", "Sm": "operator"}.get(unicodedata.category(chr(code)))


def choose(world: dict[int, dict[int, Masks]], refused: set[int]) -> list[int]:
    """The evaluation classes by the rule of the module, without the refused, in the order of their code points."""
    words = Counter(word for code in world for word in set(name_of(code).split()))
    left, scripts, taken = dict(QUOTAS), Counter[str](), list[int]()
    for code in sorted(world, key=lambda code: hashlib.sha256(f"glyphs {code:04X}".encode()).digest()):
        group = group_of(code)
        if group is None or code in refused or not left[group] or not readable(world[code]):
            continue
        # A name with words that would be new is no use to a text encoder.
        if group in COMPOSITIONAL and min(words[word] for word in name_of(code).split()) < 4:
            continue
        script = name_of(code).split()[0]
        if group == "script" and scripts[script] == PER_SCRIPT:
            continue
        if any(overlap(world[code], world[other]) >= TWIN for other in taken):
            continue
        taken.append(code)
        left[group] -= 1
        scripts[script] += 1
    return sorted(taken)


def pretraining(world: dict[int, dict[int, Masks]], evaluation: list[int]) -> list[int]:
    """All characters that neither are an evaluation class nor look like one."""
    forms = {unicodedata.normalize("NFKC", chr(code)) for code in evaluation}
    return [
        code
        for code, masks in world.items()
        if unicodedata.normalize("NFKC", chr(code)) not in forms
        and all(overlap(masks, world[other]) < SEEN for other in evaluation)
    ]


def split(world: dict[int, dict[int, Masks]]) -> tuple[list[int], list[int]]:
    """Evaluation classes and pre-training characters; each word of a compositional name occurs in pre-training.

    Taking a class can take the last other use of a word away (its look-alikes leave pre-training); such a class is
    refused and the choice is made again.
    """
    refused = set[int]()
    while True:
        evaluation = choose(world, refused)
        rest = pretraining(world, evaluation)
        known = {word for code in rest for word in name_of(code).split()}
        new = {
            code
            for code in evaluation
            if group_of(code) in COMPOSITIONAL and not known.issuperset(name_of(code).split())
        }
        if not new:
            return evaluation, rest
        refused |= new


def spread(masks: dict[int, Masks]) -> list[int]:
    """Up to `MASKS_PER_CLASS` of a character's fonts, evenly over the list so that families and styles mix."""
    fonts = sorted(masks)
    count = min(MASKS_PER_CLASS, len(fonts))
    return [fonts[(2 * i + 1) * len(fonts) // (2 * count)] for i in range(count)]


def save(path: Path, world: dict[int, dict[int, Masks]], codes: list[int]) -> int:
    """Writes the masks of the characters; returns how many there are."""
    chosen = [(class_id, font) for class_id, code in enumerate(codes) for font in spread(world[code])]
    np.savez_compressed(
        path,
        masks=np.stack([world[codes[class_id]][font] for class_id, font in chosen]),
        classes=np.array([class_id for class_id, _ in chosen], np.int16),
        fonts=np.array([font for _, font in chosen], np.int16),
        code_points=np.array(codes, np.int32),
    )
    return len(chosen)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the masks and character lists of the glyphs world.")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to (default: %(default)s)")
    out: Path = parser.parse_args().out
    world = rasterise()
    evaluation, rest = split(world)
    out.mkdir(parents=True, exist_ok=True)
    chosen = save(out / "masks.npz", world, evaluation)
    save(out / "digits.npz", world, list(range(ord("0"), ord("9") + 1)))
    (out / "pretraining.txt").write_text("".join(f"{code:04X}\n" for code in rest), encoding="ascii")
    print(f"{len(world)} characters: {len(evaluation)} classes ({chosen} masks), {len(rest)} for pre-training")


if __name__ == "__main__":
    main()
