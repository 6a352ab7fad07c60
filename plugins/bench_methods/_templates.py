"""Texts around class names that are made by hand: ensembles, and one template per data set of CoOp's.

Private: `expand` reads an option that is a list of templates, `template_of` one that is a template or a data set.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

PHOTO = "a photo of a {}."
PHOTOS = ("imagenet", "caltech101", "stanford_cars", "sun397")

# KaiyangZhou/CoOp at ff61507c, trainers/zsclip.py; gaopengcuhk/Tip-Adapter at d0e2d6f8, datasets/*.py, has the same.
COOP: Mapping[str, str] = {
    "oxford_pets": "a photo of a {}, a type of pet.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "food101": "a photo of {}, a type of food.",
    "ucf101": "a photo of a person doing {}.",
    **dict.fromkeys(PHOTOS, PHOTO),
}
# htyao89/KgCoOp at c43ccc32, trainers/kgcoop.py
KGCOOP: Mapping[str, str] = {**COOP, "dtd": "a photo of a {}, a type of texture."}
# BeierZhu/Prompt-align at 1b762036, trainers/prograd.py: what follows a name elsewhere stands in front
PROGRAD: Mapping[str, str] = {
    **COOP,
    "oxford_pets": "a type of pet, a photo of a {}.",
    "oxford_flowers": "a type of flower, a photo of a {}.",
    "fgvc_aircraft": "a type of aircraft, a photo of a {}.",
    "dtd": "a texture of {}.",
    "food101": "a type of food, a photo of {}.",
}


def template_of(told: str, table: Mapping[str, str]) -> str:
    """The template that an option stands for.

    Args:
        told: A template with one ``{}``, or a key of the table.
        table: Of the paper.

    Raises:
        ValueError: It is neither.
    """
    found = table.get(told, told)
    if found.count("{}") != 1:
        raise ValueError(f"template: {told!r} must have one {{}} for the class name, or be one of {', '.join(table)}")
    return found


# --- ensembles ------------------------------------------------------------------------------------------------------

_PHOTO_OF = "photo/painting/sculpture/sketch/tattoo/rendition/drawing/doodle"
_TOY = "plastic/toy/embroidered/cartoon/plushie/origami"
_SHOWN = "photo/video/example/demonstration"
TEMPLATES: dict[str, str] = {
    # notebooks/Prompt_Engineering_for_ImageNet.ipynb
    "imagenet-7": "itap of a {}.|a bad photo of the {}.|a origami {}.|a photo of the large {}.|a {} in a video game."
    "|art of the {}.|a photo of the small {}.",
    "imagenet-80": "a [bad/low resolution/cropped/bright/dark/close-up/black and white/pixelated/jpeg corrupted/blurry"
    "/good] photo of [a/the] {}.|a photo of [a/the] [hard to see/clean/dirty/cool/large/nice/weird/small] {}."
    "|a photo of [a/the/my/one] {}.|a photo of many {}."
    "|a [sculpture/rendering/tattoo/drawing/painting/doodle/sketch/rendition] of [a/the] {}.|[graffiti/art] of [a/the]"
    f" {{}}.|itap of [a/the/my] {{}}.|[a/the] [{_TOY}] {{}}.|[a/the] {{}} in a video game.",
    # muzairkhattak/PromptSRC at bb95c77b, trainers/imagenet_templates.py: 60 of the 80
    "promptsrc-60": "a [bad/low resolution/cropped/bright/pixelated/blurry] photo of [a/the] {}."
    "|a dark photo of the {}.|a close-up photo of [a/the] {}.|a black and white photo of the {}."
    "|a jpeg corrupted photo of a {}.|a good photo of the {}.|a photo of [a/the] [hard to see/clean/dirty] {}."
    "|a photo of the cool {}.|a photo of a [large/nice/weird] {}.|a photo of [a/the/my/one] {}.|a photo of many {}."
    "|a [sculpture/rendering/painting/doodle/sketch/rendition] of [a/the] {}.|a [tattoo/drawing] of a {}."
    "|[graffiti/art] of a {}.|itap of the {}.|[a/the] [plastic/embroidered/origami] {}.|the toy {}.|a cartoon {}."
    "|[a/the] {} in a video game.",
    # data/prompts.md
    "caltech101": f"a [{_PHOTO_OF}] of [a/the] {{}}.|[art/graffiti] of [a/the] {{}}.|[a/the] [{_TOY}] {{}}."
    "|[a/the] {} in a video game.",
    "cars": "a photo of [a/the/my] {}.|i love my {}!|a photo of my [dirty/clean/new/old] {}.",
    "cifar": "a [/blurry /black and white /low contrast /high contrast /bad /good ]photo of [a/the] {}."
    "|a photo of [a/the] [small/big] {}.",
    "country211": "a photo i took in {}.|a photo i took while visiting {}.|a photo from my home country of {}."
    "|a photo from my visit to {}.|a photo showing the country of {}.",
    "describable-textures": "a photo of [a/the] {} [texture/pattern/thing/object].",
    "eurosat": "a centered satellite photo of [/a /the ]{}.",
    "fgvc-aircraft": "a photo of [a/the] {}, a type of aircraft.",
    "gtsrb": 'a [zoomed in/centered/close up] photo of a "{}" traffic sign.',
    "kinetics700": f"a [{_SHOWN}] of [/a person /a person using /a person doing /a person during /a person performing "
    "/a person practicing ]{}.",
    "mnist": 'a photo of the number: "{}".',
    "resisc45": "[satellite/aerial] [imagery/photo/view] of [/a /the ]{}.",
    "sun397": "a photo of [a/the] {}.",
    "ucf101": f"a [{_SHOWN}] of [a/the] person[/ using/ doing/ during/ performing/ practicing] {{}}.",
}


def expand(templates: str) -> tuple[str, ...]:
    """The templates that an option stands for, without repetition.

    Args:
        templates: Templates and names of `TEMPLATES`, joined by ``|``; ``[a/the]`` stands for either word.

    Raises:
        ValueError: A part is neither a template with ``{}`` nor a known name.
    """
    found: list[str] = []
    for part in map(str.strip, templates.split("|")):
        if part in TEMPLATES:
            found += expand(TEMPLATES[part])
            continue
        if part.count("{}") != 1:
            names = ", ".join(TEMPLATES)
            raise ValueError(f"templates: {part!r} must have one {{}} for the class name, or be one of {names}")
        pieces = [piece.split("/") if odd else [piece] for odd, piece in _pieces(part)]
        found += ["".join(chosen) for chosen in itertools.product(*pieces)]
    return tuple(dict.fromkeys(found))


def _pieces(part: str) -> list[tuple[bool, str]]:
    """Text outside (False) and inside (True) of brackets, in turn."""
    return [(bool(place % 2), piece) for place, piece in enumerate(re.split(r"\[([^\[\]]*)\]", part))]
